"""Page budgets: what a create is admitted for, what it is settled to, and the days and months in which both count."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.model.job_states import TERMINAL
from docpreview_gateway.model.validation import MAX_SINGLE_IMAGE_PAGES, selected_pages

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewOptions
    from docpreview_gateway.model.callers import PageBudget


class Periods(NamedTuple):
    """A day and a month of UTC, such as `2026-11-23` and `2026-11`."""

    day: str
    month: str


class Pages(NamedTuple):
    """Pages that were made, and those set aside for what has not ended."""

    used: int = 0
    reserved: int = 0


class PageCount(NamedTuple):
    """A caller's pages in the present day and month."""

    day: Pages = Pages()
    month: Pages = Pages()


@dataclass(frozen=True, slots=True)
class Reservation:
    """Pages set aside for a create. It counts in the periods in which it was made, whenever its job ends.

    `ledger_key` is that of the create's record, for one with `request_id`; `job_id` is known once there is a job.
    `made_at` is in Unix seconds.
    """

    id: str
    caller: str
    pages: int
    day: str
    month: str
    bucket: str
    made_at: float
    ledger_key: str = ""
    job_id: str = ""


Outcome = Literal["new", "known", "day", "month"]


class ReservationResult(NamedTuple):
    """What became of a reservation: it is new, or one of its id was there before, or a budget has no room for it."""

    outcome: Outcome
    pages: PageCount


def periods(now: float) -> Periods:
    """The day and the month of a Unix time."""
    moment = datetime.fromtimestamp(now, UTC)
    return Periods(moment.strftime("%Y-%m-%d"), moment.strftime("%Y-%m"))


def bounds(period: str) -> tuple[datetime, datetime]:
    """When a day or month begins, and when the next one does."""
    if period.count("-") == 1:
        start = datetime.strptime(period, "%Y-%m").replace(tzinfo=UTC)
        return start, (start + timedelta(days=31)).replace(day=1)
    start = datetime.strptime(period, "%Y-%m-%d").replace(tzinfo=UTC)
    return start, start + timedelta(days=1)


def asked(options: PreviewOptions, budget: PageBudget) -> int:
    """Pages that a create of valid options may make: those it names, or the estimate."""
    named = selected_pages(options)
    if named > 0:
        return named
    return min(budget.estimate, MAX_SINGLE_IMAGE_PAGES) if options.single_image else budget.estimate


def made(job: PreviewJob) -> int | None:
    """Pages that a job has made; None while it has not ended."""
    if job.state not in TERMINAL:
        return None
    result = job.result
    if job.state != PreviewJob.STATE_SUCCESS:
        return result.succeeded_page_count
    # The vendor does not say whether the total is that of the document or of the pages asked for.
    return result.succeeded_page_count or result.total_page_count


def refusing(pages: int, count: PageCount, budget: PageBudget) -> Literal["day", "month"] | None:
    """The budget that has no room for so many pages more. The month's is named first: it lasts longer."""
    if budget.per_month is not None and sum(count.month) + pages > budget.per_month:
        return "month"
    if budget.per_day is not None and sum(count.day) + pages > budget.per_day:
        return "day"
    return None
