"""The figures of the operator page, computed from two snapshots of the metrics: present values, and rates in between.

Every figure comes from a metric, so the page works alike for one process and for many workers.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BREAKERS = {0: "closed", 1: "half-open", 2: "open"}
OURS = ("Unknown", "Internal", "Unavailable", "DataLoss", "DeadlineExceeded")
"""Codes of failed calls, as alert rules and dashboards count them."""

_FAILURES = frozenset(
    {
        "UPSTREAM_INTERNAL",
        "UPSTREAM_UNAVAILABLE",
        "UPSTREAM_TIMEOUT",
        "UPSTREAM_UNREACHABLE",
        "UPSTREAM_BAD_RESPONSE",
        "CREATE_OUTCOME_UNKNOWN",
        "DEADLINE_EXCEEDED",
    }
)
_MOST_CALLERS = 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The samples of all metrics at a Unix time."""

    at: float
    samples: Mapping[str, list[tuple[Mapping[str, str], float]]]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        return sum(value for found, value in self.samples.get(name, ()) if labels.items() <= found.items())

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The same for each value of a label."""
        found: dict[str, float] = defaultdict(float)
        for given, value in self.samples.get(name, ()):
            if label in given and labels.items() <= given.items():
                found[given[label]] += value
        return dict(found)


def snapshot(at: float, samples: Iterable[tuple[str, Mapping[str, str], float]]) -> Snapshot:
    """A snapshot of samples with name, labels and value."""
    by_name: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
    for name, labels, value in samples:
        by_name[name].append((labels, value))
    return Snapshot(at, by_name)


@dataclass(frozen=True, slots=True)
class Host:
    """The host limiter of a bucket. `failed` is a share of the recent attempts, None when there were none."""

    bucket: str
    breaker: str
    in_flight: int
    limit: int
    waiting: int
    attempts: int
    failed: float | None
    worst: str


@dataclass(frozen=True, slots=True)
class CallerUse:
    """A caller's usage. `rate` is recent calls per second; `rate_limit` is None when there is none.

    `pages` has, by period, the pages that are used, reserved or leased, and the budget.
    """

    name: str
    rate: float
    rate_limit: float | None
    refused: int
    pages: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """Errors of one reason: recent ones, all since the start, their methods, and seconds since the last one."""

    reason: str
    recent: int
    total: int
    methods: str
    ago: float


@dataclass(frozen=True, slots=True)
class View:
    """The figures of the page. Rates and shares are of the last `seconds`; a share of nothing is None."""

    version: str
    runtime: str
    unready: str | None
    at: float
    uptime: float
    seconds: float
    workers: int | None
    calls: float
    failed: float | None
    saved: float | None
    answers: Mapping[str, int]
    watchers: int
    pollers: int
    unreconciled: int | None
    """None before the first round."""
    certificates: Mapping[str, float]
    refused_files: Sequence[str]
    records: str
    """What is wrong with the records of creates; empty: nothing."""
    records_lost: bool
    """Whether their store has lost some, which has a runbook of its own."""
    hosts: list[Host] = field(default_factory=list)
    callers: list[CallerUse] = field(default_factory=list)
    errors: list[ErrorKind] = field(default_factory=list)


def view(now: Snapshot, before: Snapshot, unready: str | None, records: str = "") -> View:
    """The figures at `now`; `before` is an earlier snapshot, or an empty one of the start.

    `unready` and `records` are what `/readyz?verbose` says of the process and of the records of creates.
    """
    seconds = max(1.0, now.at - before.at)
    codes = _increase(now, before, "grpc_server_handled_total", "grpc_code", grpc_type="unary")
    answers = _increase(now, before, "docpreview_responses_total", "source")
    starts = [value for _, value in now.samples.get("process_start_time_seconds", ())]
    build = next(iter(now.samples.get("docpreview_build_info", ())), ({}, 0.0))[0]
    ends = now.by("docpreview_certificate_expiry_timestamp_seconds", "certificate")
    return View(
        version=build.get("version", ""),
        runtime=f"Python {build.get('python', '?')}, gRPC {build.get('grpc', '?')}",
        unready=unready,
        at=now.at,
        uptime=now.at - min(starts, default=now.at),
        seconds=seconds,
        workers=int(now.value("docpreview_workers")) if "docpreview_workers" in now.samples else None,
        calls=sum(_increase(now, before, "grpc_server_handled_total", "grpc_code").values()) / seconds,
        failed=_share(sum(codes.get(code, 0) for code in OURS), sum(codes.values())),
        saved=_share(sum(answers.values()) - answers.get("miss", 0), sum(answers.values())),
        answers={source: int(count) for source, count in sorted(answers.items())},
        watchers=int(now.value("docpreview_watchers")),
        pollers=int(now.value("docpreview_pollers")),
        unreconciled=_known(now, "docpreview_ledger_unreconciled"),
        certificates={name: end - now.at for name, end in ends.items()},
        refused_files=[what for what, refused in now.by("docpreview_file_refused", "file").items() if refused],
        records=records,
        records_lost=now.value("docpreview_store_lost") > 0,
        hosts=_hosts(now, before),
        callers=_callers(now, before, seconds),
        errors=_errors(now, before),
    )


def _known(now: Snapshot, name: str) -> int | None:
    return int(now.value(name)) if name in now.samples else None


def _hosts(now: Snapshot, before: Snapshot) -> list[Host]:
    found = []
    for bucket, breaker in sorted(now.by("docpreview_upstream_breaker_state", "bucket").items()):
        outcomes = _increase(now, before, "docpreview_upstream_requests_total", "outcome", bucket=bucket)
        attempts = sum(outcomes.values())
        failures = {reason: count for reason, count in outcomes.items() if reason != "OK" and count}
        found.append(
            Host(
                bucket,
                BREAKERS.get(int(breaker), "?"),
                int(now.value("docpreview_upstream_in_flight", bucket=bucket)),
                int(now.value("docpreview_upstream_concurrency_limit", bucket=bucket)),
                int(now.value("docpreview_upstream_queued", bucket=bucket)),
                int(attempts),
                _share(sum(count for reason, count in failures.items() if reason in _FAILURES), attempts),
                max(failures, key=lambda reason: failures[reason], default=""),
            )
        )
    return found


def _callers(now: Snapshot, before: Snapshot, seconds: float) -> list[CallerUse]:
    calls = _increase(now, before, "docpreview_caller_calls_total", "caller")
    limits = now.by("docpreview_caller_limit", "caller", limit="rate")
    refused = _increase(now, before, "docpreview_limit_decisions_total", "caller", outcome="refused")
    names = sorted(calls, key=lambda name: (-calls[name], name))[:_MOST_CALLERS]
    return [
        CallerUse(name, calls[name] / seconds, limits.get(name), int(refused.get(name, 0)), _pages(now, name))
        for name in names
    ]


def _pages(now: Snapshot, caller: str) -> dict[str, tuple[int, int]]:
    left = now.by("docpreview_pages_left", "period", caller=caller)
    used = now.by("docpreview_pages_used", "period", caller=caller)
    reserved = now.by("docpreview_pages_reserved", "period", caller=caller)
    leased = now.by("docpreview_pages_leased", "period", caller=caller)
    taken = {period: int(sum(part.get(period, 0) for part in (used, reserved, leased))) for period in left}
    return {period: (taken[period], taken[period] + int(left[period])) for period in sorted(left)}


def _errors(now: Snapshot, before: Snapshot) -> list[ErrorKind]:
    last = now.by("docpreview_error_last_timestamp_seconds", "reason")
    recent = _increase(now, before, "docpreview_errors_total", "reason")
    return [
        ErrorKind(
            reason,
            int(recent.get(reason, 0)),
            int(now.value("docpreview_errors_total", reason=reason)),
            ", ".join(sorted(now.by("docpreview_errors_total", "grpc_method", reason=reason))),
            max(0.0, now.at - at),
        )
        for reason, at in sorted(last.items(), key=lambda item: -item[1])
    ]


def _increase(now: Snapshot, before: Snapshot, name: str, label: str, **labels: str) -> dict[str, float]:
    old = before.by(name, label, **labels)
    return {key: max(0.0, value - old.get(key, 0.0)) for key, value in now.by(name, label, **labels).items()}


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
