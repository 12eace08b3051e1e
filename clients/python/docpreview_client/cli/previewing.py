"""The `preview` command: from a document to files."""

import asyncio
import os
import re
import webbrowser
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import grpc
import typer

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client.cli import exit_codes
from docpreview_client.cli.contact_sheet import CONTACT_SHEET, write_contact_sheet
from docpreview_client.cli.exit_codes import ExitCode
from docpreview_client.cli.parameters import NewJobOptions
from docpreview_client.cli.session import Session
from docpreview_client.cli.views import Progress
from docpreview_client.errors import DeadlineExceeded, InternalError, NotFound, OutcomeUnknown
from docpreview_client.page_directory import prepared

_URL_TTL: Final = timedelta(minutes=15)
_LOCAL: Final = re.compile(r"(/|\.{1,2}/|~|[A-Za-z]:\\|\.{0,2}\\)")


@dataclass(frozen=True, kw_only=True)
class PreviewOptions:
    """Options of `preview`: where the document is, and where its pages go."""

    pages: Annotated[
        Path | None,
        typer.Option("--pages", help="Directory for the pages. Default: ./NAME-pages, or ./JOB_ID", show_default=False),
    ] = None
    bucket: Annotated[
        str | None,
        typer.Option(
            "--bucket", help="Bucket of the document and its pages. [env: DOCPREVIEW_BUCKET]", show_default=False
        ),
    ] = None
    upload_as: Annotated[
        str | None,
        typer.Option(
            "--upload-as",
            help="Key to upload the document to. Default: in/${UploadId} with its suffix",
            show_default=False,
        ),
    ] = None
    job_id: Annotated[
        str | None, typer.Option("--job-id", help="Use this job instead of creating one.", show_default=False)
    ] = None
    open: Annotated[bool, typer.Option("--open", help="Show all pages on one page in the browser.")] = False

    def bucket_name(self) -> str:
        """The bucket: option, environment."""
        if name := self.bucket or os.environ.get("DOCPREVIEW_BUCKET"):
            return name
        raise typer.BadParameter("Give --bucket, or set DOCPREVIEW_BUCKET.")

    def directory(self, document: str | None) -> Path:
        """The directory of the pages, made and writable, before anything costs money."""
        default = f"{Path(document).stem or 'preview'}-pages" if document else self.job_id or ""
        directory = self.pages or Path(default if default.isprintable() else "preview")
        try:
            return prepared(directory)
        except OSError as error:
            raise typer.BadParameter(f"--pages: {directory}: {error.strerror}") from error


def local_file(document: str) -> Path | None:
    """The file of this machine that is meant; None for a key in the bucket."""
    path = Path(document).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise typer.BadParameter(f"{document} is a directory: name a document.")
    if _LOCAL.match(document):
        raise typer.BadParameter(f"There is no file {document}.")
    return None


def refuse_file(input_object: str) -> None:
    """Refuses a path of this machine where a key in the bucket is meant."""
    if _LOCAL.match(input_object) and Path(input_object).expanduser().is_file():
        raise typer.BadParameter(f"{input_object} is a file of this machine: `docpreview preview` uploads it.")


async def create(session: Session, bucket: str, *, input_object: str, new_job: NewJobOptions) -> PreviewJob:
    """Creates the job that the options describe."""
    try:
        return await session.client.create(
            bucket,
            input_object,
            output_object=new_job.output_object(input_object),
            **new_job.create_fields(session.timeout),
        )
    except OutcomeUnknown as error:
        if error.retry == "now" and error.create_request_id:
            session.view.note(
                f"The job may exist. To get it, and not a second one, repeat the command for {input_object} in the "
                f"bucket, with the same options and --request-id {error.create_request_id}"
            )
        raise


async def follow(jobs: AsyncGenerator[PreviewJob, None], *, progress: Progress) -> PreviewJob:
    """Reports every state to `progress` and returns the last one, also when the deadline passes after the first."""
    seen: PreviewJob | None = None
    try:
        async with aclosing(jobs):
            async for job in jobs:
                seen = job
                progress.changed(job)
    except DeadlineExceeded:
        if seen is None:
            raise
    if seen is None:
        raise InternalError("The gateway ended the watch without a state.", code=grpc.StatusCode.UNKNOWN)
    return seen


async def preview(
    session: Session, options: PreviewOptions, *, document: str | None, new_job: NewJobOptions
) -> ExitCode:
    """Uploads the document if it is a file, creates the job unless there is one, follows it, downloads its pages."""
    if (document is None) == (options.job_id is None):
        raise typer.BadParameter("Name either a document or --job-id.")
    file = local_file(document) if document else None
    bucket = options.bucket_name()
    directory = options.directory(document)
    with suppress(OSError):
        (directory / CONTACT_SHEET).unlink()  # of an earlier run: its pages may not be there any more
    files: list[Path] = []
    with session.view.progress() as progress:
        job_id = options.job_id or ""
        if document is not None:
            key = await _uploaded(session, file, options=options, progress=progress) if file else document
            job_id = await _created(session, bucket, key, new_job=new_job)
        jobs = session.client.watch(bucket, job_id, page_url_ttl=_URL_TTL, timeout=session.timeout)
        job = await follow(jobs, progress=progress)
        if job.state == PreviewJob.STATE_SUCCESS:
            files = await _downloaded(session, job, directory, progress=progress)
    if job.state != PreviewJob.STATE_SUCCESS:
        session.view.finished(job)
        return exit_codes.of_job(job)
    title = file.name if file else Path(job.input.object).name or job.job_id
    await _show(session, title, directory, files=files, in_browser=options.open)
    return ExitCode.OK


async def _created(session: Session, bucket: str, key: str, *, new_job: NewJobOptions) -> str:
    try:
        created = await create(session, bucket, input_object=key, new_job=new_job)
    except NotFound as error:
        if error.reason == "INPUT_OBJECT_NOT_FOUND":
            session.view.note(f"{key} is neither a file here nor a key in the bucket.")
        raise
    session.view.note(f"Created job {created.job_id}")
    return created.job_id


async def _uploaded(session: Session, file: Path, *, options: PreviewOptions, progress: Progress) -> str:
    progress.uploading(file.name)
    try:
        uploaded = await session.client.upload(
            file, options.bucket_name(), options.upload_as or "", timeout=session.timeout
        )
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error).replace("`object`, the key to put it at", "--upload-as")) from error
    return uploaded.object


async def _downloaded(session: Session, job: PreviewJob, directory: Path, *, progress: Progress) -> list[Path]:
    try:
        return await session.client.download(
            job,
            directory,
            page_url_ttl=_URL_TTL,
            timeout=session.timeout,
            progress=lambda done, total, _: progress.downloaded(done, total=total),
        )
    except OSError as error:
        raise typer.BadParameter(f"--pages: {directory}: {error.strerror}") from error


async def _show(session: Session, title: str, directory: Path, *, files: list[Path], in_browser: bool) -> None:
    session.view.saved(directory, files=files)
    if not files:
        return
    first = files[0]
    if in_browser:
        first = await asyncio.to_thread(write_contact_sheet, title, files)
        await asyncio.to_thread(webbrowser.open, first.resolve().as_uri())
    session.view.note(f"Open {first}")
