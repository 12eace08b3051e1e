"""What commands have to say, apart from how it is printed. Results go to stdout, everything else to stderr."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_queue_service_pb2 import PreviewQueue
from docpreview.v1.usage_service_pb2 import Usage
from docpreview_client.cli.exit_codes import ExitCode
from docpreview_client.errors import DocPreviewError


class Progress(Protocol):
    """Tells how a job and the download of its pages come along."""

    def changed(self, job: PreviewJob) -> None:
        """The job is in another state."""

    def downloaded(self, done: int, *, total: int) -> None:
        """So many pages of so many are on disk."""


class View(Protocol):
    """A way to print."""

    def job(self, job: PreviewJob) -> None:
        """One job with all that is known about it."""

    async def jobs(self, jobs: AsyncIterator[PreviewJob]) -> None:
        """Several jobs."""

    async def queues(self, queues: AsyncIterator[PreviewQueue]) -> None:
        """Several queues."""

    def usage(self, usage: Usage) -> None:
        """What the caller has used up."""

    def progress(self) -> AbstractContextManager[Progress]:
        """Begins to tell about a job that is being followed."""

    def finished(self, job: PreviewJob) -> None:
        """The last state of a job that was followed."""

    def saved(self, directory: Path, *, files: Sequence[Path]) -> None:
        """Pages that were downloaded."""

    def note(self, text: str) -> None:
        """A word to the person at the terminal."""

    def error(self, error: DocPreviewError, *, exit_code: ExitCode) -> None:
        """Why the command ends, and what to do."""
