"""The figures of the operator page, computed from two snapshots of the metrics: present values, and rates in between.

Every figure comes from a metric, so the page works alike for one process and for many workers.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from docpreview_gateway.model.circuit_breaker import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docpreview_gateway.telemetry.metrics_snapshot import Interval, Snapshot

OURS = ("Unknown", "Internal", "Unavailable", "DataLoss", "DeadlineExceeded")
"""Codes of failed calls, as alert rules and dashboards count them."""

BY_DESIGN = ("SHUTTING_DOWN", "WATCH_LIMIT_REACHED")
"""Reasons with which streams end without a failure."""

REFUSALS = ("UPSTREAM_CREDENTIALS", "UPSTREAM_ACCESS_DENIED", "CLOCK_SKEW")
"""Outcomes of requests whose signature or key the cloud rejects."""

_REQUESTS = "docpreview_upstream_requests_total"
_JOB_API = frozenset({"create", "get", "list_jobs", "list_queues"})
"""Operations of the job API; all others are the object store's, whose host has a limiter of its own."""

_FAILURES = frozenset(
    {
        "UPSTREAM_INTERNAL",
        "UPSTREAM_UNAVAILABLE",
        "UPSTREAM_TIMEOUT",
        "UPSTREAM_UNREACHABLE",
        "UPSTREAM_BAD_RESPONSE",
        "CREATE_OUTCOME_UNKNOWN",
        "DEADLINE_EXCEEDED",
        *REFUSALS,
    }
)
_MOST_CALLERS = 20


@dataclass(frozen=True, slots=True)
class Host:
    """The limiter of a bucket's host. `failed` is a share of the recent attempts, None when there were none.

    `bucket` is the bucket's name for the job API, and the host's for the object store.
    """

    bucket: str
    breaker: State
    in_flight: int
    limit: int
    waiting: int
    attempts: int
    failed: float | None
    worst: str


@dataclass(frozen=True, slots=True)
class CallerUse:
    """A caller's usage. `rate` is recent calls per second; `rate_limit` is None when there is none.

    `pages` has, by period, the pages that are used, reserved or leased, and the budget, which may be less.
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
class MethodUse:
    """Recent calls of a method. `p50` and `p99` are seconds; None for streams, and when no call ended."""

    name: str
    rate: float
    calls: int
    failed: int
    p50: float | None
    p99: float | None

    @property
    def share(self) -> float | None:
        """The share of failed calls; None when no call ended."""
        return _share(self.failed, self.calls)


@dataclass(frozen=True, slots=True)
class CallbackUse:
    """Callbacks of a bucket's jobs. `ends` and `called_back` are recent ends of jobs, and those that one told first.

    `ago` is seconds since the last one, None when none has come.
    """

    bucket: str
    works: bool
    ends: int
    called_back: int
    ago: float | None


@dataclass(frozen=True, slots=True)
class View:
    """The figures of the page. Rates and shares are of the last `seconds`; a share of nothing is None."""

    version: str
    runtime: str
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
    methods: list[MethodUse] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)
    callers: list[CallerUse] = field(default_factory=list)
    errors: list[ErrorKind] = field(default_factory=list)
    callback_address: str = ""
    """Empty: the cloud calls nobody."""
    callbacks: list[CallbackUse] = field(default_factory=list)


def view(span: Interval) -> View:
    """The figures of an interval, which begins at an earlier snapshot, or an empty one of the start."""
    now = span.now
    codes = span.increase("grpc_server_handled_total", "grpc_code", grpc_type="unary")
    answers = span.increase("docpreview_responses_total", "source")
    starts = [value for _, value in now.samples.get("process_start_time_seconds", ())]
    build = next(iter(now.samples.get("docpreview_build_info", ())), ({}, 0.0))[0]
    ends = now.by("docpreview_certificate_expiry_timestamp_seconds", "certificate")
    return View(
        version=build.get("version", ""),
        runtime=f"Python {build.get('python', '?')}, gRPC {build.get('grpc', '?')}",
        at=now.at,
        uptime=now.at - min(starts, default=now.at),
        seconds=span.seconds,
        workers=int(now.value("docpreview_workers")) if "docpreview_workers" in now.samples else None,
        calls=sum(span.increase("grpc_server_handled_total", "grpc_code").values()) / span.seconds,
        failed=_share(sum(codes.get(code, 0) for code in OURS), sum(codes.values())),
        saved=_share(sum(answers.values()) - answers.get("miss", 0), sum(answers.values())),
        answers={source: int(count) for source, count in sorted(answers.items())},
        watchers=int(now.value("docpreview_watchers")),
        pollers=int(now.value("docpreview_pollers")),
        unreconciled=_known(now, "docpreview_ledger_unreconciled"),
        certificates={name: end - now.at for name, end in ends.items()},
        methods=_methods(span),
        hosts=_hosts(span),
        callers=_callers(span),
        errors=_errors(span),
        callback_address=next(iter(now.by("docpreview_callbacks_address", "address")), ""),
        callbacks=_callbacks(span),
    )


def _methods(span: Interval) -> list[MethodUse]:
    handled, seconds = "grpc_server_handled_total", "grpc_server_handling_seconds"
    found = []
    for name, calls in span.increase(handled, "grpc_method").items():
        failed = sum(span.increase(handled, "grpc_code", grpc_method=name).get(code, 0) for code in OURS)
        is_stream = bool(span.now.by(handled, "grpc_code", grpc_method=name, grpc_type="server_stream"))
        if is_stream:
            reasons = span.increase("docpreview_errors_total", "reason", grpc_method=name)
            failed = max(0.0, failed - sum(reasons.get(reason, 0) for reason in BY_DESIGN))
        p50, p99 = (None if is_stream else span.quantile(q, seconds, grpc_method=name) for q in (0.5, 0.99))
        found.append(MethodUse(name, calls / span.seconds, int(calls), int(failed), p50, p99))
    return sorted((method for method in found if method.calls), key=lambda method: (-method.calls, method.name))


def _known(now: Snapshot, name: str) -> int | None:
    return int(now.value(name)) if name in now.samples else None


def _hosts(span: Interval) -> list[Host]:
    now, found = span.now, []
    for bucket, breaker in sorted(now.by("docpreview_upstream_breaker_state", "bucket").items()):
        outcomes = _outcomes(span, bucket)
        attempts = sum(outcomes.values())
        failures = {reason: count for reason, count in outcomes.items() if reason != "OK" and count}
        found.append(
            Host(
                bucket,
                State(int(breaker)),
                int(now.value("docpreview_upstream_in_flight", bucket=bucket)),
                int(now.value("docpreview_upstream_concurrency_limit", bucket=bucket)),
                int(now.value("docpreview_upstream_queued", bucket=bucket)),
                int(attempts),
                _share(sum(count for reason, count in failures.items() if reason in _FAILURES), attempts),
                max(failures, key=lambda reason: failures[reason], default=""),
            )
        )
    return found


def _outcomes(span: Interval, host: str) -> dict[str, float]:
    """New requests by outcome, of the job API for a bucket's name, of the object store for its host."""
    bucket, _, is_store = host.partition(".")
    found: dict[str, float] = defaultdict(float)
    for operation in span.now.by(_REQUESTS, "operation", bucket=bucket):
        if (operation not in _JOB_API) == bool(is_store):
            for outcome, count in span.increase(_REQUESTS, "outcome", bucket=bucket, operation=operation).items():
                found[outcome] += count
    return found


def _callers(span: Interval) -> list[CallerUse]:
    calls = span.increase("docpreview_caller_calls_total", "caller")
    limits = span.now.by("docpreview_caller_limit", "caller", limit="rate")
    refused = span.increase("docpreview_limit_decisions_total", "caller", outcome="refused")
    names = sorted(calls, key=lambda name: (-calls[name], name))[:_MOST_CALLERS]
    return [
        CallerUse(name, calls[name] / span.seconds, limits.get(name), int(refused.get(name, 0)), pages(span.now, name))
        for name in names
    ]


def pages(now: Snapshot, caller: str) -> dict[str, tuple[int, int]]:
    """By period with a budget, the pages of a caller that are used, reserved or leased, and the budget.

    None while they are not known. A budget that was lowered may be less than what is used.
    """
    limits = now.by("docpreview_caller_limit", "limit", caller=caller)
    used = now.by("docpreview_pages_used", "period", caller=caller)
    reserved = now.by("docpreview_pages_reserved", "period", caller=caller)
    leased = now.by("docpreview_pages_leased", "period", caller=caller)
    return {
        period: (int(sum(part.get(period, 0) for part in (used, reserved, leased))), int(limits[f"pages_{period}"]))
        for period in sorted(used)
        if f"pages_{period}" in limits
    }


def _errors(span: Interval) -> list[ErrorKind]:
    now = span.now
    last = now.by("docpreview_error_last_timestamp_seconds", "reason")
    recent = span.increase("docpreview_errors_total", "reason")
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


def _callbacks(span: Interval) -> list[CallbackUse]:
    name, now = "docpreview_callback_ends_total", span.now
    ends, came = span.increase(name, "bucket"), span.increase(name, "bucket", found="callback")
    works = now.by("docpreview_callbacks_working", "bucket")
    last = now.by("docpreview_callback_last_timestamp_seconds", "bucket")
    return [
        CallbackUse(
            bucket,
            bool(works.get(bucket)),
            int(ends.get(bucket, 0)),
            int(came.get(bucket, 0)),
            max(0.0, now.at - last[bucket]) if bucket in last else None,
        )
        for bucket in sorted(now.by(name, "bucket").keys() | works.keys())
    ]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
