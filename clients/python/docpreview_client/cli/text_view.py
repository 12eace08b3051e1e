"""Output for people: tables, a progress bar, and errors with a remedy."""

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_queue_service_pb2 import PreviewQueue
from docpreview.v1.usage_service_pb2 import PageUsage, Usage
from docpreview_client import errors
from docpreview_client.cli import text as wire_text
from docpreview_client.cli.advice import advice, advice_on_failure
from docpreview_client.cli.exit_codes import ExitCode
from docpreview_client.cli.field_names import FieldNames
from docpreview_client.cli.text_progress import BarProgress, LineProgress
from docpreview_client.cli.views import ForwardedEvent, Progress

# Wide enough for any line: output to a pipe is never wrapped or cut.
_ENDLESS: Final = 100_000
_RESERVED: Final = (
    "Reserved: what jobs may make whose pages are not counted yet (they are soon after a job's end, within 5 minutes), "
    "and what the gateway keeps for its own outages."
)


class TextView:
    """Results on stdout; progress, notes and errors on stderr."""

    def __init__(self, names: FieldNames) -> None:
        """`names` are those of the command's options."""
        self._names = names
        self._out = _console(sys.stdout)
        self._err = _console(sys.stderr)

    def job(self, job: PreviewJob) -> None:
        """One line per known field, then the pages."""
        grid = Table.grid(padding=(0, 2))
        for name, value in _facts(job):
            grid.add_row(name, value)
        self._out.print(grid)
        self._print_pages(job)

    async def jobs(self, jobs: AsyncIterator[PreviewJob]) -> None:
        """A table of jobs."""
        table = _table("Job", "State", "Created", "Pages", "Input")
        async for job in jobs:
            table.add_row(
                wire_text.verbatim(job.job_id),
                wire_text.job_state(job),
                wire_text.time(job.create_time),
                wire_text.pages(job),
                wire_text.verbatim(job.input.object),
            )
        self._print_table(table, nothing="No jobs.")

    async def queues(self, queues: AsyncIterator[PreviewQueue]) -> None:
        """A table of queues."""
        table = _table("Queue", "Name", "State", "Max waiting", "Max concurrent", "Updated")
        async for queue in queues:
            table.add_row(
                wire_text.verbatim(queue.queue_id),
                wire_text.verbatim(queue.name),
                wire_text.queue_state(queue),
                str(queue.max_size),
                str(queue.max_concurrent),
                wire_text.time(queue.update_time),
            )
        self._print_table(table, nothing="No queues.")

    def usage(self, usage: Usage) -> None:
        """A line for the day and one for the month."""
        table = _table("Caller", "Period", "Used", "Reserved", "Budget", "Left", "Until")
        for name, period in (("day", usage.day), ("month", usage.month)):
            if period.HasField("end_time"):
                table.add_row(wire_text.verbatim(usage.caller), name, *_pages_of(period))
        self._print_table(table, nothing=f"The gateway does not count the pages of {wire_text.plain(usage.caller)}.")
        if usage.day.reserved_pages or usage.month.reserved_pages:
            self.note(_RESERVED)

    def progress(self) -> AbstractContextManager[Progress]:
        """A bar on a terminal, lines elsewhere."""
        return BarProgress(self._err) if self._err.is_terminal else LineProgress(self._err)

    def finished(self, job: PreviewJob) -> None:
        """The job with its pages or its failure."""
        self.job(job)

    def saved(self, directory: Path, *, files: Sequence[Path]) -> None:
        """The files, one per line, after a note with their directory."""
        self.note(f"{len(files)} file(s) in {directory}")
        for file in files:
            self._out.print(wire_text.verbatim(str(file)), soft_wrap=True)

    def forwarded(self, event: ForwardedEvent) -> None:
        """A line on stdout: job, state, and the status of the answer or why there is none."""
        state = PreviewJob.State.Name(event.job.state).removeprefix("STATE_")
        outcome = event.problem if event.status is None else str(event.status)
        self._out.print(wire_text.verbatim(f"{event.job.job_id} {state}: {outcome}"), soft_wrap=True)

    def note(self, text: str) -> None:
        """A line on stderr."""
        self._err.print(wire_text.verbatim(text))

    def error(self, error: errors.DocPreviewError, *, exit_code: ExitCode) -> None:
        """What happened, every bad field, and what to do."""
        del exit_code  # the shell gets it
        for line in _explanation(error, self._names):
            self._err.print(wire_text.verbatim(line), soft_wrap=True)

    def _print_pages(self, job: PreviewJob) -> None:
        """Addresses have lines of their own, never broken, so that they can be copied."""
        if not any(page.url for page in job.result.pages):
            self._print_table(_pages(job), nothing="")
            return
        for page in job.result.pages:
            for line in (f"{page.page_number}  {page.object}", page.url or "(no address)"):
                self._out.print(wire_text.verbatim(line), soft_wrap=True)

    def _print_table(self, table: Table, *, nothing: str) -> None:
        if table.row_count:
            self._out.print(table)
        elif nothing:
            self.note(nothing)


def _console(stream: TextIO) -> Console:
    return Console(file=stream, width=None if stream.isatty() else _ENDLESS, markup=False, highlight=False, emoji=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _facts(job: PreviewJob) -> tuple[tuple[str, Text], ...]:
    plain = (
        ("Bucket", job.bucket),
        ("Queue", job.queue_id),
        ("Created", wire_text.time(job.create_time)),
        ("Started", wire_text.time(job.start_time)),
        ("Ended", wire_text.time(job.end_time)),
        ("Input", wire_text.location(job.input)),
        ("Output", wire_text.location(job.output)),
        ("User data", job.user_data),
        ("Pages", wire_text.pages(job)),
        ("Failure", f"{job.failure.code} {job.failure.message}".strip()),
        ("What to do", advice_on_failure(job.failure.reason) if job.HasField("failure") else ""),
    )
    named = ((name, wire_text.verbatim(value)) for name, value in plain if value)
    return (("Job", wire_text.verbatim(job.job_id)), ("State", wire_text.job_state(job)), *named)


def _pages(job: PreviewJob) -> Table:
    table = _table("Page", "Object")
    for page in job.result.pages:
        table.add_row(str(page.page_number), wire_text.verbatim(page.object))
    return table


def _pages_of(period: PageUsage) -> tuple[str, ...]:
    limited = period.HasField("budget_pages")
    bounds = (str(period.budget_pages), str(period.left_pages)) if limited else ("-", "-")
    return (str(period.used_pages), str(period.reserved_pages), *bounds, wire_text.time(period.end_time))


def _explanation(error: errors.DocPreviewError, names: FieldNames) -> Iterator[str]:
    if isinstance(error, errors.PreviewUnfinished):
        if isinstance(error.cause, errors.DocPreviewError):
            yield from _explanation(error.cause, names)
        else:
            yield f"Error: {error.cause}"
        return
    yield f"Error: {names.sentence(error.message)} ({error.reason or error.code.name})"
    for field, description in error.field_violations:
        yield f"  {names.name(field)}: {names.sentence(description)}"
    yield from (f"  {subject}" for subject, _ in error.quota)
    if error.retry_delay is not None:
        yield f"Try again in {wire_text.span(error.retry_delay)}."
    yield advice(error)
    if error.request_id:
        yield f"Request id: {error.request_id}"
