"""Interface of the command's output. Results go to stdout, everything else to stderr."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_queue_service_pb2 import PreviewQueue
from docpreview.v1.usage_service_pb2 import Usage
from docpreview_client.cli.exit_codes import ExitCode
from docpreview_client.errors import DocPreviewError


@dataclass(frozen=True, kw_only=True)
class ForwardedEvent:
    """An event about a job that `docpreview listen` has sent to a receiver."""

    event_id: str
    type: str
    job: PreviewJob
    """As the event has it, without pages."""
    status: int | None = None
    """Of the receiver's answer; None: there was none, and `problem` says why."""
    problem: str = ""


class Progress(Protocol):
    """Progress of a job and of the download of its pages."""

    def changed(self, job: PreviewJob) -> None:
        """The job is in another state."""

    def uploading(self, name: str) -> None:
        """The document of this name is on its way to the bucket."""

    def downloaded(self, done: int, *, total: int) -> None:
        """`done` of `total` pages are on disk."""


class View(Protocol):
    """An output format."""

    def job(self, job: PreviewJob) -> None:
        """One job with all its known fields."""

    async def jobs(self, jobs: AsyncIterator[PreviewJob]) -> None:
        """Several jobs."""

    async def queues(self, queues: AsyncIterator[PreviewQueue]) -> None:
        """Several queues."""

    def usage(self, usage: Usage) -> None:
        """The caller's usage."""

    def progress(self) -> AbstractContextManager[Progress]:
        """The progress of a job, as a context manager."""

    def finished(self, job: PreviewJob) -> None:
        """The last state of a job that was followed."""

    def saved(self, directory: Path, *, files: Sequence[Path]) -> None:
        """Pages that were downloaded."""

    def forwarded(self, event: ForwardedEvent) -> None:
        """An event that was sent to a receiver, once."""

    def note(self, text: str) -> None:
        """A note to the user at the terminal."""

    def error(self, error: DocPreviewError, *, exit_code: ExitCode) -> None:
        """An error, and its remedy."""
