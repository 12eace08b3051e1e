"""Progress of a job on a terminal.

The number of pages is known only at the job's end: until then the bar pulses. As the contract requires, the vendor's
total page count is not used: a bar is full when all attempted pages have succeeded.
"""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client.cli import text


class BarProgress:
    """A spinner, the state, a bar by pages and the time, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[pages]}", markup=False),
            TimeElapsedColumn(),
            console=console,
        )
        self._converting = self._progress.add_task("asking", total=None, pages="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the bar as it is."""
        self._progress.stop()

    def uploading(self, name: str) -> None:
        """Shows the name."""
        self._progress.update(self._converting, description=f"UPLOADING {text.plain(name)}")

    def changed(self, job: PreviewJob) -> None:
        """Shows the state, and the pages once they are known."""
        self._progress.update(self._converting, description=text.job_state(job).plain)
        if job.state == PreviewJob.STATE_SUCCESS:
            self._show_pages(job.result.succeeded_page_count, job.result.failed_page_count)

    def downloaded(self, done: int, *, total: int) -> None:
        """Shows how many pages are on disk, in a bar of their own."""
        if done == 0:
            self._downloading = self._progress.add_task("DOWNLOAD", total=total, pages="")
        self._progress.update(self._downloading, completed=done, pages=f"{done}/{total} files")

    def _show_pages(self, succeeded: int, failed: int) -> None:
        tried = succeeded + failed
        # A bar with a total of 0 would continue to pulse.
        self._progress.update(
            self._converting, total=tried or 1, completed=succeeded if tried else 1, pages=f"{succeeded}/{tried} pages"
        )


class LineProgress:
    """A line for each state, where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves nothing behind."""

    def uploading(self, name: str) -> None:
        """The name."""
        self._console.print(text.verbatim(f"Uploading {name}"))

    def changed(self, job: PreviewJob) -> None:
        """The job's id and state."""
        self._console.print(text.verbatim(f"{job.job_id} {text.job_state(job).plain}"))

    def downloaded(self, done: int, *, total: int) -> None:
        """A line at the end."""
        if done == total:
            self._console.print(f"{done} of {total} files downloaded")
