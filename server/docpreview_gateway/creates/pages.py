"""Rules of page budgets: pages to reserve for a create, pages to charge for a job, and budget periods."""

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


CLAIM_SIZE = 100
"""Reservations that a process claims in one command, at most."""

RETENTION_SECONDS = 32 * 86400
"""Seconds for which a store keeps a charged reservation: longer than the ledger keeps any `request_id`."""


class Periods(NamedTuple):
    """A day and a month (UTC), such as `2026-11-23` and `2026-11`."""

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


@dataclass(frozen=True, slots=True)
class Reservation:
    """Pages reserved for a create. It counts in the periods in which it was made, whenever its job ends."""

    id: str
    caller: str
    pages: int
    day: str
    month: str
    bucket: str
    made_at: float
    """Unix time in seconds."""
    ledger_key: str = ""
    """Key of the create's record in the ledger; empty: the create has no `request_id`."""
    job_id: str = ""
    """Empty until the job is known."""


Outcome = Literal["new", "known", "day", "month"]
"""Reserved; reserved or charged before under the same id; refused by the budget of the day or the month."""


class ReservationResult(NamedTuple):
    """Outcome of `PageQuotaStore.reserve`, and the caller's pages after it."""

    outcome: Outcome
    pages: PageCount


def periods(now: float) -> Periods:
    """The day and the month of a Unix time."""
    moment = datetime.fromtimestamp(now, UTC)
    return Periods(moment.strftime("%Y-%m-%d"), moment.strftime("%Y-%m"))


def bounds(period: str) -> tuple[datetime, datetime]:
    """The beginning of a day or month, and of the next one."""
    if period.count("-") == 1:
        start = datetime.strptime(period, "%Y-%m").replace(tzinfo=UTC)
        return start, (start + timedelta(days=31)).replace(day=1)
    start = datetime.strptime(period, "%Y-%m-%d").replace(tzinfo=UTC)
    return start, start + timedelta(days=1)


def asked(options: PreviewOptions, budget: PageBudget) -> int:
    """Pages that a create with valid options may make: the number it selects, or the budget's estimate."""
    selected = selected_pages(options)
    if selected > 0:
        return selected
    return min(budget.estimate, MAX_SINGLE_IMAGE_PAGES) if options.single_image else budget.estimate


def made(job: PreviewJob) -> int | None:
    """Pages that a job made; None until it has ended."""
    if job.state not in TERMINAL:
        return None
    result = job.result
    if job.state != PreviewJob.STATE_SUCCESS:
        return result.succeeded_page_count
    # The vendor does not say whether the total is that of the document or of the pages asked for.
    return result.succeeded_page_count or result.total_page_count


def refusing(pages: int, count: PageCount, budget: PageBudget) -> Literal["day", "month"] | None:
    """The budget that `pages` more would exceed. The month comes first: its budget takes longer to renew."""
    if budget.per_month is not None and sum(count.month) + pages > budget.per_month:
        return "month"
    if budget.per_day is not None and sum(count.day) + pages > budget.per_day:
        return "day"
    return None
