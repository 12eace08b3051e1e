"""Rules of page budgets: pages to reserve for a create, pages to charge for a job, and budget periods."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview_gateway.model.job_states import TERMINAL
from docpreview_gateway.model.validation import selected_pages

if TYPE_CHECKING:
    from docpreview_gateway.model.callers import PageBudget


class Periods(NamedTuple):
    """A day and its month (UTC), such as `2026-11-23` and `2026-11`."""

    day: str
    month: str


class Pages(NamedTuple):
    """Pages of ended jobs, and pages reserved for creates whose jobs have not ended."""

    used: int = 0
    reserved: int = 0


class PageCount(NamedTuple):
    """A caller's pages in one day and its month."""

    day: Pages = Pages()
    month: Pages = Pages()


class CallerPages(NamedTuple):
    """A caller's pages of the present day or month, as an operator sees them."""

    caller: str
    period: Literal["day", "month"]
    used: int
    reserved: int
    """Pages held for creates whose jobs have not ended, without those that are leased."""
    leased: int
    """Pages held for replicas, which may spend them while they cannot reach the store."""
    left: int | None
    """Pages of the budget that are neither; None: the period has no budget."""


def periods(day: str) -> Periods:
    """A day such as `2026-11-29`, and its month."""
    return Periods(day, day[:7])


def bounds(period: str) -> tuple[datetime, datetime]:
    """The beginning of a day or month, and of the next one."""
    if period.count("-") == 1:
        start = datetime.strptime(period, "%Y-%m").replace(tzinfo=UTC)
        return start, (start + timedelta(days=31)).replace(day=1)
    start = datetime.strptime(period, "%Y-%m-%d").replace(tzinfo=UTC)
    return start, start + timedelta(days=1)


def made(job: PreviewJob) -> int | None:
    """Pages that a job made; None until it has ended."""
    if job.state not in TERMINAL:
        return None
    result = job.result
    if job.state != PreviewJob.STATE_SUCCESS:
        return result.succeeded_page_count
    # The vendor does not say whether the total is that of the document or of the pages asked for.
    found = result.succeeded_page_count or result.total_page_count
    if job.options.single_image or job.options.target_format == PreviewOptions.TARGET_FORMAT_PDF:
        # One file with many pages, which may be counted as one.
        selected = selected_pages(job.options)
        found = max(found, min(result.total_page_count, selected) if selected > 0 else result.total_page_count)
    return found


def refusing(pages: int, count: PageCount, budget: PageBudget) -> Literal["day", "month"] | None:
    """The budget that `pages` more would exceed. The month comes first: its budget takes longer to renew."""
    if budget.per_month is not None and sum(count.month) + pages > budget.per_month:
        return "month"
    if budget.per_day is not None and sum(count.day) + pages > budget.per_day:
        return "day"
    return None
