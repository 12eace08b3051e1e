"""What `reconcile` and `store` print: findings, each with what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.creates import secret_use
from docpreview_gateway.creates.outlook import ACCEPT, spoken

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from docpreview_gateway.creates.counters import CounterReport
    from docpreview_gateway.creates.reconciliation import Report
    from docpreview_gateway.doctor.records import Reconciled, StoreStatus

AGREES, FINDINGS, INCOMPLETE = 0, 1, 3
"""Exit codes: all agrees; there are findings; a bucket or the store could not be read, so there may be more."""

UNKNOWN_TIMES = 10.0
"""Times of a loss up to here are none."""

_ORPHAN = "--charge gives it a record and counts its pages; docs/runbooks/reconciliation-findings.md says how it arose"
_DOUBLED = "it is billed, and cannot be cancelled; docs/runbooks/reconciliation-findings.md says how it arose"
_MISCOUNTED = "pages that were charged stay charged: correct the caller's budget of this period if it matters"
_UNREADABLE = (
    "its request_id is refused, or makes another job if its secret was given up; docs/runbooks/records-failing.md says "
    "what may have damaged it"
)
_COUNTER = "pages of before a rebuild or an upgrade may be counted without records; else correct the caller's budget"
_UNREAD = "try again; `docpreview-gateway doctor` checks the ways to the cloud and to the store"
_BLIND = "nothing can be compared: the cloud does not echo user data, or the secret of these markers is not given"
_CUT = "the cloud's list did not end: reconcile a shorter time, with a later --since"


class Line(NamedTuple):
    """A finding on a bucket, or without one on the store.

    `kind`: orphan, taken_in, doubled, miscounted, unreadable, counter, incomplete, blind, unread, or summary.
    """

    bucket: str
    kind: str
    job_id: str
    result: str
    remedy: str = ""


def time_of(text: str, now: float) -> float:
    """The Unix time of a day or an instant before `now`, in UTC unless it says otherwise.

    ValueError with what is wrong with the text.
    """
    try:
        found = datetime.fromisoformat(text)
        since = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("is no day such as 2026-11-28, nor an instant such as 2026-11-28T06:00Z") from None
    if since > now:
        raise ValueError(f"is in the future, so there is nothing to compare: it is {_utc(now)} now")
    if since < 0:
        raise ValueError("is before 1970; the cloud keeps jobs for a month")
    return since


def lines(found: Reconciled) -> Iterator[Line]:
    """The findings on a bucket, and the summary."""
    bucket, report = found.bucket, found.report
    if report is None:
        yield Line(bucket, "unread", "", found.problem, _UNREAD)
        return
    yield from _of_jobs(bucket, report)
    for key in report.unreadable:
        yield Line(bucket, "unreadable", "", f"the record {key} of a create cannot be read", _UNREADABLE)
    if report.is_blind:
        yield Line(bucket, "blind", "", "jobs are on record, and the cloud shows no marker of ours at any job", _BLIND)
    if not report.complete:
        yield Line(bucket, "incomplete", "", "not all jobs were seen", _CUT)
    yield Line(bucket, "summary", "", _summary(report))


def _of_jobs(bucket: str, report: Report) -> Iterator[Line]:
    for job_id in report.orphans:
        if job_id in report.taken_in:
            yield Line(bucket, "taken_in", job_id, "had no record, and has one now; its pages count")
        else:
            yield Line(bucket, "orphan", job_id, "is a job of this deployment without a record", _ORPHAN)
    for doubled in report.doubled:
        whose = f" of {doubled.caller}" if doubled.caller else ""
        text = f"is a second job of the create{whose} that has {doubled.first}"
        yield Line(bucket, "doubled", doubled.job_id, text, _DOUBLED)
    for job in report.miscounted:
        yield Line(bucket, "miscounted", job.job_id, f"made {job.made} pages, {job.charged} were charged", _MISCOUNTED)


def exit_code(found: list[Line]) -> int:
    """The exit code for these findings. Jobs that were taken in are in order now."""
    kinds = {line.kind for line in found}
    if kinds & {"unread", "incomplete", "blind"}:
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


SLACK_SECONDS = 60.0
"""How much later than the end of its quarantine a rebuild is overdue: lists are read, and clocks differ."""


def words_of(status: StoreStatus) -> str:
    """The state of a store in words."""
    if status.kind == "foreign":
        why = secret_use.problem(status.missing).removesuffix(f": {secret_use.TO_DO}")
        return f"{why}. By every gateway without it {_refused(status)}"
    return {
        "whole": "the store is whole: creates are recorded in it",
        "new": "a gateway is just making the store: nothing is lost",
        "empty": "the store is empty: no gateway has used it yet, or all of it is lost and no gateway has noted that",
        "lost": f"the store has lost records. Until that is over {_refused(status)}",
    }[status.kind]


def _refused(status: StoreStatus) -> str:
    text = "creates with request_id are refused (LEDGER_UNAVAILABLE), and without one those of callers with a page"
    return f"{text} budget (LIMITER_UNAVAILABLE){_refused_too(status)}"


def _refused_too(status: StoreStatus) -> str:
    """Creates that are refused without an id or a budget, as their jobs would be taken for those of others."""
    if not status.exclusive:
        return ""
    return (
        f"; all creates in {', '.join(status.exclusive)} (LEDGER_UNAVAILABLE) unless the cloud shows whose jobs "
        "they are (buckets[].exclusive)"
    )


def remedy_of(status: StoreStatus) -> str:
    """What an operator does next; empty: nothing."""
    return {
        "whole": "",
        "new": "wait some seconds; should it stay so, start a gateway: it makes the store ready",
        "empty": "start a gateway: it compares the store with what it remembers and with the cloud's lists",
        "lost": _lost_remedy(status),
        "foreign": _young_secrets(status) + secret_use.TO_DO,
    }[status.kind]


def _lost_remedy(status: StoreStatus) -> str:
    outlook, since = status.outlook, status.state.lost_since
    if outlook.on_loss == "refuse":
        return f"decide: {ACCEPT} ends it (ledger.on_loss: refuse)"
    if outlook.on_loss == "accept":
        return "wait some seconds: running gateways end it (ledger.on_loss: accept)"
    is_known = since > UNKNOWN_TIMES
    if is_known and status.now > since + outlook.quarantine + SLACK_SECONDS:
        first = (
            "see why the gateways could not read the records back from the cloud's lists yet: their log says so, and "
            "docs/runbooks/store-lost.md what to do"
        )
    else:
        first = f"wait: running gateways read them back from the cloud's lists, in {spoken(outlook.quarantine)} or more"
    end = f"before {_utc(since + outlook.keep)}" if is_known else f"for {spoken(outlook.keep)}"
    return (
        f"{first}. Where the lists do not show whose the jobs are they do not go on {end} (ledger.retention_seconds; "
        f"later if they are restarted). Not to wait: {ACCEPT}"
    )


def _young_secrets(status: StoreStatus) -> str:
    """A warning of secrets that are in use, and hardly lost; empty: there are none."""
    young = secret_use.in_use(status.missing, status.now)
    if not young:
        return ""
    return f"other gateways seem to use it still ({secret_use.named(young)}; notes are some minutes behind): "


def status_lines(status: StoreStatus) -> Iterator[str]:
    """The store's state in words, its contents, and what to do next."""
    state, remedy = status.state, remedy_of(status)
    yield f"{'PROBLEM' if remedy else 'ok     '}  {status.place}: {words_of(status)}"
    if status.kind == "lost":
        yield f"         lost: noticed {_noticed(status)}"
    yield f"         records: {status.records:,}, of creates that are not forgotten yet (ledger.retention_seconds)"
    day = (
        f"to the day {state.day} (UTC)"
        if state.day
        else "to the days of their creates; the next one with a budget sets the day"
    )
    yield f"         pages are counted {day}"
    mark = f"up to {_utc(state.cloud_mark)} at least, by the cloud's clock" if state.cloud_mark else "not noted yet"
    yield f"         known to be complete: {mark}"
    yield f"         identity: generation {state.generation or '-'}, change {state.seq}"
    if remedy:
        yield f"         to do: {remedy}"
    if status.unreadable:
        yield (
            f"PROBLEM  {len(status.unreadable)} records cannot be read; creates with their request_id are refused, or "
            "make another job where their secret was given up:"
        )
        yield from (f"         {why}" for why in status.unreadable.values())
        yield "         to do: docs/runbooks/records-failing.md says what may have damaged them"


def accepted_lines(before: StoreStatus, budgets: Sequence[str]) -> Iterator[str]:
    """What was accepted; `budgets` are the callers with a page budget."""
    if before.kind in {"whole", "new"}:
        yield f"{before.place}: nothing is noted as lost, and nothing was changed"
        return
    if before.kind == "foreign":
        yield f"accepted: {before.place}: what was recorded with a secret that is missing here is lost"
    elif before.kind == "empty":
        yield f"accepted: {before.place}: the empty store is used as it is"
    else:
        yield f"accepted: {before.place}: the loss that was noticed {_noticed(before)} is over"
    complete = f"after {_utc(before.state.cloud_mark)}" if before.state.cloud_mark else "at any time"
    yield f"         kept: {before.records:,} records. Lost for good: those that are missing, of creates {complete}"
    yield "         a request_id without its record makes, and bills, a second job when its create is repeated"
    yield "         used pages may count from 0 again, so callers may exceed their budgets by them"
    if young := _young_secrets(before):
        yield f"         PROBLEM: {young}they bring it back with their next record, and creates are refused here again"
        yield "         to do: give all gateways the same ledger.key_file, and run this again if they are refused"
    counted = f": {', '.join(budgets)}" if budgets else ": there are none"
    yield (
        "         refused until now: creates with request_id (LEDGER_UNAVAILABLE), and without one those of callers "
        f"with a page budget (LIMITER_UNAVAILABLE){counted}{_refused_too(before)}; other creates and all reads went on"
    )
    yield "         running gateways take creates again within seconds"
    yield (
        "         to do: `docpreview-gateway reconcile --since DAY --charge` gives jobs of lost records that are "
        "younger than ledger.retention_seconds their records again, and counts their pages, if the cloud shows whose "
        "they are; all others stay uncounted"
    )


def _noticed(status: StoreStatus) -> str:
    """When a loss was noticed: in the first seconds of the epoch, if no gateway had heard the cloud's clock."""
    since = status.state.lost_since
    return f"at {_utc(since)} by the cloud's clock" if since > UNKNOWN_TIMES else "before the cloud's clock was known"


def _summary(report: Report) -> str:
    rest = f"{report.unrecorded} need no record, {report.forgotten} are older than ledger.retention_seconds"
    return f"{report.jobs} jobs of this deployment ({rest}); {_pages(report)}"


def _pages(report: Report) -> str:
    """The pages of all jobs, those that are counted, and where the difference comes from."""
    counted, loose = report.counted.total(), sum(report.uncounted.values())
    wrong = report.made.total() - counted
    others = report.pages - report.made.total() - loose
    parts = (
        (loose, "of jobs without a record and second jobs"),
        (others, "of jobs without a page budget, forgotten ones, and those that are not charged yet"),
        (wrong, "by wrong charges"),
    )
    words = ", ".join(f"{pages} {what}" for pages, what in parts if pages)
    return f"{report.pages} pages made, {counted} counted" + (
        f", {report.pages - counted} not: {words}" if words else ""
    )


def _utc(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
