"""The `preview` command: from a document to files."""

import asyncio
import os
import re
import shlex
import webbrowser
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final
from uuid import uuid4

import grpc
import typer

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client.cli import exit_codes
from docpreview_client.cli.contact_sheet import CONTACT_SHEET, write_contact_sheet
from docpreview_client.cli.exit_codes import ExitCode
from docpreview_client.cli.parameters import BUCKET_VARIABLE, NewJobOptions
from docpreview_client.cli.session import Session
from docpreview_client.cli.views import Progress, View
from docpreview_client.errors import (
    DeadlineExceeded,
    DocPreviewError,
    InternalError,
    NotFound,
    OutcomeUnknown,
    PreviewUnfinished,
)
from docpreview_client.page_directory import delete_pages_of_other_jobs, prepared, removed_if_unused
from docpreview_client.requests import CreateFields
from docpreview_client.uploading import brought
from docpreview_client.watching import TERMINAL_STATES

_URL_TTL: Final = timedelta(minutes=15)
_OF_FORMAT: Final = frozenset({"INPUT_FORMAT_UNSUPPORTED", "INPUT_FORMAT_MISMATCH"})
_WITH_SUFFIX: Final = re.compile(r"[^/]\.[A-Za-z0-9]{1,10}\Z")
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
            "--bucket", help=f"Bucket of the document and its pages. [env: {BUCKET_VARIABLE}]", show_default=False
        ),
    ] = None
    upload_as: Annotated[
        str | None,
        typer.Option(
            "--upload-as",
            help="Key to upload the document to. Default: in/${UploadId} and its suffix",
            show_default=False,
        ),
    ] = None
    job_id: Annotated[
        str | None, typer.Option("--job-id", help="Use this job instead of creating one.", show_default=False)
    ] = None
    open: Annotated[bool, typer.Option("--open", help="Show all pages on one page in the browser.")] = False

    def bucket_name(self) -> str:
        """The bucket: option, environment."""
        if name := self.bucket or os.environ.get(BUCKET_VARIABLE):
            return name
        raise typer.BadParameter(f"Give --bucket, or set {BUCKET_VARIABLE}.")

    def directory(self, document: str | None) -> Path:
        """The directory of the pages. The default has the suffix, too: documents of one stem do not share it."""
        default = f"{Path(document).name or 'preview'}-pages" if document else self.job_id or ""
        return self.pages or Path(default if default.isprintable() else "preview")


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


@contextmanager
def telling_how_to_repeat(view: View, again: str, request_id: str) -> Iterator[None]:
    """Tells, of a create of unknown outcome, how to repeat the command without a second job; `again`: for what."""
    try:
        yield
    except OutcomeUnknown as error:
        if error.retry == "now" and error.create_request_id:
            view.note(
                f"The job may exist. To get it, and not a second one, repeat the command{again} "
                f"with the same options and --request-id {error.create_request_id}"
            )
        raise
    except asyncio.CancelledError:
        if request_id:
            view.note(
                f"The job may have been made. To get it, and not a second one, repeat the command{again} "
                f"with the same options and --request-id {request_id}"
            )
        raise


@contextmanager
def advising_source_format(view: View, key: str) -> Iterator[None]:
    """Advises --source-format for a document of a wrong format whose key has no suffix, which would decide."""
    try:
        yield
    except DocPreviewError as error:
        if error.reason in _OF_FORMAT and not _WITH_SUFFIX.search(key):
            view.note(f"{key} has no suffix: name the kind of document that it is with --source-format.")
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
    bucket, directory = options.bucket_name(), options.directory(document)
    fields = new_job.create_fields(session.timeout) if document else CreateFields()
    created = None
    with session.view.progress() as progress:
        with removed_if_unused(directory):
            _prepare(directory)
            if document is not None:
                fields["request_id"] = fields["request_id"] or str(uuid4())
                key = await _uploaded(session, file, options, fields=fields, progress=progress) if file else document
                again = "" if file else f" for {key} in the bucket,"
                output = new_job.output_object(key)
                with (
                    telling_how_to_repeat(session.view, again, fields["request_id"]),
                    advising_source_format(session.view, key),
                ):
                    created = await _created(session, bucket, key, output_object=output, fields=fields)
        rest = _Rest(session, bucket, directory, progress)
        job, files = await rest.done(options.job_id or "", created)
    if job.state != PreviewJob.STATE_SUCCESS:
        session.view.finished(job)
        return exit_codes.of_job(job)
    title = file.name if file else Path(job.input.object).name or job.job_id
    await _show(session, title, directory, files=files, in_browser=options.open)
    return ExitCode.OK


class _Rest:
    """What is left once there is a job: to follow it, and to download its pages."""

    def __init__(self, session: Session, bucket: str, directory: Path, progress: Progress) -> None:
        self._session = session
        self._bucket = bucket
        self._directory = directory
        self._progress = progress

    async def done(self, job_id: str, created: PreviewJob | None) -> tuple[PreviewJob, list[Path]]:
        """Follows this job, or the one that was created. Whatever fails after that, it is told how to go on."""
        job, files = created, list[Path]()
        try:
            if job is not None:
                job_id = job.job_id
                self._clear(job_id)
            timeout = self._session.timeout
            jobs = self._session.client.watch(self._bucket, job_id, page_url_ttl=_URL_TTL, timeout=timeout)
            job = await follow(jobs, progress=self._progress)
            self._clear(job_id)
            if job.state == PreviewJob.STATE_SUCCESS:
                files = await self._downloaded(job)
        except (DocPreviewError, OSError) as error:
            if job is None:
                raise
            self._tell_how_to_go_on(job_id)
            raise PreviewUnfinished(job, error) from error
        except asyncio.CancelledError:
            self._tell_how_to_go_on(job_id)
            raise
        if job.state not in TERMINAL_STATES:
            self._tell_how_to_go_on(job_id)
        return job, files

    def _clear(self, job_id: str) -> None:
        """Deletes pages of another job, and the sheet of an earlier run, whose pages may not be there any more."""
        delete_pages_of_other_jobs(self._directory, job_id=job_id)
        (self._directory / CONTACT_SHEET).unlink(missing_ok=True)

    async def _downloaded(self, job: PreviewJob) -> list[Path]:
        return await self._session.client.download(
            job,
            self._directory,
            page_url_ttl=_URL_TTL,
            timeout=self._session.timeout,
            progress=lambda done, total, _: self._progress.downloaded(done, total=total),
        )

    def _tell_how_to_go_on(self, job_id: str) -> None:
        job = ["--job-id", job_id, "--bucket", self._bucket, "--pages", str(self._directory)]
        words = ["docpreview", "preview", *job, *self._session.connection]
        self._session.view.note(f"Job {job_id} was made, and no other is needed. To go on: {shlex.join(words)}")


def _prepare(directory: Path) -> None:
    try:
        prepared(directory)
    except OSError as error:
        raise typer.BadParameter(f"--pages: {directory}: {error.strerror}") from error


async def _created(session: Session, bucket: str, key: str, *, output_object: str, fields: CreateFields) -> PreviewJob:
    try:
        created = await session.client.create(bucket, key, output_object=output_object, **fields)
    except NotFound as error:
        if error.reason == "INPUT_OBJECT_NOT_FOUND":
            session.view.note(f"{key} is neither a file here nor a key in the bucket.")
        raise
    session.view.note(f"Created job {created.job_id}")
    return created


async def _uploaded(
    session: Session, file: Path, options: PreviewOptions, *, fields: CreateFields, progress: Progress
) -> str:
    progress.uploading(file.name)
    try:
        return await brought(
            lambda key: session.client.upload(file, options.bucket_name(), key, timeout=session.timeout),
            file,
            key=options.upload_as or "",
            request_id=fields["request_id"],
        )
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error).replace("`object`, the key to put it at", "--upload-as")) from error


async def _show(session: Session, title: str, directory: Path, *, files: list[Path], in_browser: bool) -> None:
    session.view.saved(directory, files=files)
    if not files:
        return
    first = files[0]
    if in_browser:
        first = await asyncio.to_thread(write_contact_sheet, title, files)
        await asyncio.to_thread(webbrowser.open, first.resolve().as_uri())
    session.view.note(f"Open {first}")
