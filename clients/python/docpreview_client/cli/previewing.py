"""The `preview` command: create, follow and download a job."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import grpc
import typer

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client.cli import exit_codes
from docpreview_client.cli.exit_codes import ExitCode
from docpreview_client.cli.parameters import NewJobOptions
from docpreview_client.cli.session import Session
from docpreview_client.cli.views import Progress
from docpreview_client.errors import DeadlineExceeded, InternalError

# The gateway's maximum, since a large job takes a while to download.
_URL_TTL: Final = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class PreviewOptions:
    """Options of `preview`: job and directory."""

    job_id: Annotated[
        str | None, typer.Option("--job-id", help="Use this job instead of creating one.", show_default=False)
    ] = None
    directory: Annotated[
        Path | None, typer.Option("--directory", "-d", help="Default: ./JOB_ID", show_default=False)
    ] = None


async def create(session: Session, bucket: str, *, input_object: str, new_job: NewJobOptions) -> PreviewJob:
    """Creates the job that the options describe."""
    return await session.client.create(
        bucket,
        input_object,
        output_object=new_job.output_object(input_object),
        timeout=session.timeout,
        **new_job.create_fields(),
    )


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


async def save_pages(session: Session, bucket: str, *, job_id: str, directory: Path | None) -> ExitCode:
    """Follows the job and downloads its pages."""
    # Imported late: the HTTP client is half of the command's start-up time, and only this command needs it.
    from docpreview_client.cli.downloading import download  # noqa: PLC0415

    with session.view.progress() as progress:
        jobs = session.client.watch(bucket, job_id, page_url_ttl=_URL_TTL, timeout=session.timeout)
        job = await follow(jobs, progress=progress)
        pages = job.result.pages
        target = directory or Path(job.job_id if job.job_id.isalnum() else "preview")
        files = await download(pages, target, downloaded=lambda done: progress.downloaded(done, total=len(pages)))
    if job.state == PreviewJob.STATE_SUCCESS:
        session.view.saved(target, files=files)
    else:
        session.view.finished(job)
    return exit_codes.of_job(job)
