"""The errors of creates, as callers get them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.creates import pages
from docpreview_gateway.model.errors import GatewayError, LimitReached, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.creates.ports import Begun, StoreError
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.model.callers import Caller, PageBudget

log = structlog.get_logger("docpreview_gateway.creates")

MOST_CANDIDATES = 10


def reused() -> GatewayError:
    """The id was used with another request."""
    return GatewayError(
        reasons.ERROR_REASON_REQUEST_ID_REUSED,
        "request_id was used before with other fields (document, output, options or webhook); repeat it with the "
        "same ones to get its job, or use a new request_id for a new job",
    )


def in_progress() -> GatewayError:
    """The create is under way elsewhere."""
    return GatewayError(
        reasons.ERROR_REASON_CREATE_IN_PROGRESS,
        "a create with this request_id is in flight; repeating it is safe and gets its job",
        retry_after=1.0,
    )


def occupied() -> GatewayError:
    """Another create of the output place is under way, from whose job this one's could not be told."""
    return GatewayError(
        reasons.ERROR_REASON_CREATE_IN_PROGRESS,
        "another create with this output is in flight, and their jobs could not be told apart; nothing was sent, "
        "and repeating it is safe",
        retry_after=1.0,
    )


def unknown(wait: float, *, has_id: bool) -> UpstreamError:
    """The create was sent, and in `wait` seconds a list can tell at the earliest what became of it."""
    text = (
        "repeating it with the same request_id is safe"
        if has_id
        else f"without request_id repeating it is not: a list is proof in {wait:.0f} seconds at the earliest"
    )
    return UpstreamError(
        reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN,
        f"the create was sent and its outcome is unknown; {text}",
        retry_after=wait,
    )


def ambiguous(candidates: Iterable[PreviewJob], caller: Caller) -> GatewayError:
    """Several jobs may be the create's, and no list will ever tell."""
    rights = caller.rights
    seen = [job.job_id for job in candidates if rights is None or rights.sees(job, job.bucket)]
    which = f" (candidates: {', '.join(seen[:MOST_CANDIDATES])})" if seen else ""
    return GatewayError(
        reasons.ERROR_REASON_CREATE_OUTCOME_AMBIGUOUS,
        f"the create was sent, and its job cannot be told from others of the same document and output{which}; "
        "a new request_id makes a new job",
    )


def not_sent() -> GatewayError:
    """The call ended before anything of the create was sent."""
    return GatewayError(
        reasons.ERROR_REASON_DEADLINE_EXCEEDED, "the deadline passed before the create was sent; nothing was sent"
    )


def not_recordable(error: StoreError, *, has_id: bool = True) -> GatewayError:
    """The create cannot be recorded, and has an id or a webhook, or its job would be taken for another create's.

    The store tells the log why, once.
    """
    log.debug("a create cannot be recorded", error=str(error))
    return GatewayError(
        reasons.ERROR_REASON_LEDGER_UNAVAILABLE,
        "creates with request_id or webhook are not possible now, because they cannot be recorded; nothing was sent"
        if has_id
        else "creates in this bucket are not possible now, with request_id or without: they cannot be recorded, and "
        "the cloud is not known to show whose jobs they are; nothing was sent",
        retry_after=error.wait,
    )


def not_countable(error: StoreError) -> GatewayError:
    """The caller's pages cannot be counted. The store tells the log why, once."""
    log.debug("pages cannot be counted", error=str(error))
    return GatewayError(
        reasons.ERROR_REASON_LIMITER_UNAVAILABLE,
        "the caller's pages cannot be counted now; nothing was sent",
        retry_after=error.wait,
    )


def budget(begun: Begun, record: Record, limits: PageBudget, now: float) -> LimitReached:
    """The budget of the day or the month has too few pages."""
    by_period = {"month": limits.per_month, "day": limits.per_day}
    too_small = [name for name, most in by_period.items() if most is not None and record.asked > most]
    # One that never fits is told so, also while the other budget would refuse it only for now.
    period = too_small[0] if too_small else begun.outcome
    month = period == "month"
    limit = by_period[period] or 0
    left = max(0, limit - sum(begun.pages.month if month else begun.pages.day))
    subject = f"caller:{record.caller}:pages_per_{period}"
    if too_small:
        return LimitReached(
            reasons.ERROR_REASON_PAGE_BUDGET_TOO_SMALL,
            f"the create may make {record.asked} pages, and {record.caller} has a budget of {limit} in a {period}: "
            "it never fits. Select fewer pages with page_ranges, or ask for a larger budget",
            subject=subject,
            retry_after=None,
        )
    _, end = pages.bounds(record.month if month else record.day)
    return LimitReached(
        reasons.ERROR_REASON_PAGE_BUDGET_EXHAUSTED,
        f"the create may make {record.asked} pages, and {record.caller} has {left} of {limit} left in this "
        f"{period} (UTC): select fewer pages with page_ranges, or ask for a larger budget",
        subject=subject,
        retry_after=max(1.0, end.timestamp() - now),
    )
