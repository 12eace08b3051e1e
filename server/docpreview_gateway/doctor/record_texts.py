"""What `reconcile` and `store` print: findings, each with what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docpreview_gateway.creates.counters import CounterReport
    from docpreview_gateway.creates.reconciliation import Report
    from docpreview_gateway.doctor.records import Reconciled, StoreStatus

AGREES, FINDINGS, INCOMPLETE = 0, 1, 3
"""Exit codes: all agrees; there are findings; a bucket or the store could not be read, so there may be more."""

_ORPHAN = "--charge gives it a record and counts its pages; docs/runbooks/reconciliation-findings.md says how it arose"
_DOUBLED = "it is billed a second time: cancel it if it runs, and report it with the log lines of its create"
_MISCOUNTED = "pages that were charged stay charged: correct the caller's budget of this period if it matters"
_UNREADABLE = "its request_id is refused; docs/runbooks/records-failing.md says what may have damaged it"
_COUNTER = "pages of before a rebuild or an upgrade may be counted without records; else correct the caller's budget"
_UNREAD = "try again; `docpreview-gateway doctor` checks the way to the cloud"
_CUT = "the cloud's list did not end: reconcile a shorter time, with a later --since"


class Line(NamedTuple):
    """A finding on a bucket, or without one on the store.

    `kind`: orphan, taken_in, doubled, miscounted, unreadable, counter, incomplete, unread, or summary.
    """

    bucket: str
    kind: str
    job_id: str
    result: str
    remedy: str = ""


def time_of(text: str) -> float:
    """The Unix time of a day or an instant, in UTC unless it says otherwise. ValueError for any other text."""
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def lines(found: Reconciled) -> Iterator[Line]:
    """The findings on a bucket, and the summary."""
    bucket, report = found.bucket, found.report
    if report is None:
        yield Line(bucket, "unread", "", found.problem, _UNREAD)
        return
    for job_id in report.orphans:
        if job_id in report.taken_in:
            yield Line(bucket, "taken_in", job_id, "had no record, and has one now; its pages count")
        else:
            yield Line(bucket, "orphan", job_id, "is a job of this deployment without a record", _ORPHAN)
    for job_id in report.doubled:
        yield Line(bucket, "doubled", job_id, "is the second job of one create", _DOUBLED)
    for job in report.miscounted:
        yield Line(bucket, "miscounted", job.job_id, f"made {job.made} pages, {job.charged} were charged", _MISCOUNTED)
    for key in report.unreadable:
        yield Line(bucket, "unreadable", "", f"the record {key} of a create cannot be read", _UNREADABLE)
    if not report.complete:
        yield Line(bucket, "incomplete", "", "not all jobs were seen", _CUT)
    yield Line(bucket, "summary", "", _summary(report))


def exit_code(found: list[Line]) -> int:
    """The exit code for these findings. Jobs that were taken in are in order now."""
    kinds = {line.kind for line in found}
    if kinds & {"unread", "incomplete"}:
        return INCOMPLETE
    return FINDINGS if kinds & {"orphan", "doubled", "miscounted", "unreadable", "counter"} else AGREES


def counter_lines(report: CounterReport) -> Iterator[Line]:
    """The findings on the store as a whole."""
    for caller, day, counted, recorded in report.differences:
        text = (
            f"{caller} has {counted.used} used and {counted.held} reserved pages on {day}, "
            f"its records {recorded.used} and {recorded.held}"
        )
        yield Line("", "counter", "", text, _COUNTER)
    for key, why in report.unreadable.items():
        yield Line("", "unreadable", "", f"record {key}: {why.removeprefix(f'record {key}: ')}", _UNREADABLE)


def status_lines(status: StoreStatus) -> Iterator[str]:
    """The store's state in words."""
    state = status.state
    yield f"{'PROBLEM' if status.problem else 'ok     '}  {status.problem or f'{status.place}: the store is whole'}"
    yield f"         generation {state.generation or '-'}, change {state.seq}, day {state.day or '-'}"
    if state.cloud_mark:
        yield f"         complete up to {_utc(state.cloud_mark)} (the cloud's time)"
    if state.lost_since:
        yield f"         lost since {_utc(state.lost_since)} (the cloud's time)"
    if status.unreadable:
        yield f"PROBLEM  {len(status.unreadable)} records cannot be read; their creates are refused:"
        yield from (f"         {why}" for why in status.unreadable.values())
    if state.lost_since:
        yield (
            "         to do: nothing, if gateways run and ledger.on_loss is `rebuild`; else "
            "`docpreview-gateway store accept-loss`, and a repeated request_id may make a second job"
        )
    elif not state.generation:
        yield "         to do: start a gateway; it compares the store with what it knows and with the cloud's lists"


def _summary(report: Report) -> str:
    rest = f"{report.unrecorded} need no record, {report.forgotten} are older than ledger.retention_seconds"
    pages = f"{report.made.total()} pages made, {report.counted.total()} counted"
    return f"{report.jobs} jobs of this deployment ({rest}); {pages}"


def _utc(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
