"""Metrics of the cloud, the cache, jobs and creates, in a registry that is handed in."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model.trace_context import exemplar
from docpreview_gateway.telemetry.plain_counter import PlainCounter

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from docpreview_gateway.model.circuit_breaker import State
    from docpreview_gateway.upstream.ports import Attempt, HostLoad, JobPages

_BUCKET = ("bucket",)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_JOB_SECONDS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_CLASSES = {
    r.ERROR_REASON_UNSPECIFIED: "ok",
    r.ERROR_REASON_UPSTREAM_THROTTLED: "throttled",
    r.ERROR_REASON_UPSTREAM_QUOTA: "throttled",
    r.ERROR_REASON_UPSTREAM_TIMEOUT: "timeout",
    r.ERROR_REASON_DEADLINE_EXCEEDED: "timeout",
    r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN: "unknown",
    r.ERROR_REASON_UPSTREAM_UNREACHABLE: "unreachable",
    r.ERROR_REASON_UPSTREAM_UNAVAILABLE: "failed",
    r.ERROR_REASON_UPSTREAM_INTERNAL: "failed",
    r.ERROR_REASON_UPSTREAM_BAD_RESPONSE: "failed",
    r.ERROR_REASON_INTERNAL: "failed",
    r.ERROR_REASON_UPSTREAM_CREDENTIALS: "denied",
    r.ERROR_REASON_UPSTREAM_ACCESS_DENIED: "denied",
    r.ERROR_REASON_CLOCK_SKEW: "denied",
}
"""What became of an attempt, in few words: its time has a histogram for each. All other errors are `refused`."""


class PrometheusJobs:
    """The ports `LedgerTelemetry`, `JobTelemetry` and `WatchTelemetry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(name, help_text, labels, registry=registry)

        self._ledger = counter("docpreview_ledger_events_total", "What happened to recorded creates.", ("event",))
        self._unreconciled = Gauge(
            "docpreview_ledger_unreconciled", "Creates of unknown outcome that nobody works on.", registry=registry
        )
        self._oldest_unreconciled = Gauge(
            "docpreview_ledger_oldest_unreconciled_seconds", "Since the oldest of them was sent.", registry=registry
        )
        self._reconciled_at = Gauge(
            "docpreview_ledger_reconciled_timestamp_seconds",
            "Unix time of the last round of settling that could read the ledger.",
            registry=registry,
        )
        self._jobs = counter("docpreview_jobs_ended_total", "Jobs that were seen to end, by their state.", ("state",))
        self._job_seconds = Histogram(
            "docpreview_job_seconds",
            "Time from a job's creation to its end, by the cloud's clock.",
            ("state",),
            registry=registry,
            buckets=_JOB_SECONDS,
        )
        self._pages = counter("docpreview_job_pages_total", "Pages of jobs that were seen to end.", ("outcome",))
        self._pollers = Gauge("docpreview_pollers", "Jobs that are polled now.", registry=registry)
        self._watchers = Gauge("docpreview_watchers", "Calls that wait for a job or watch one.", registry=registry)

    def ledger(self, event: str) -> None:
        """A recorded create came to a stage, or was looked for."""
        self._ledger.labels(event).inc()

    def unreconciled(self, count: int, oldest_sent_at: float | None, now: float) -> None:
        """A round of settling begins."""
        self._unreconciled.set(count)
        self._oldest_unreconciled.set(0.0 if oldest_sent_at is None else max(0.0, now - oldest_sent_at))
        self._reconciled_at.set(now)

    def job_ended(self, state: str, seconds: float | None, pages: JobPages) -> None:
        """A job was seen to end."""
        self._jobs.labels(state).inc()
        if seconds is not None:
            self._job_seconds.labels(state).observe(seconds)
        self._pages.labels("succeeded").inc(pages.succeeded)
        self._pages.labels("failed").inc(pages.failed)

    def watching(self, *, pollers: int, watchers: int) -> None:
        """The numbers now."""
        self._pollers.set(pollers)
        self._watchers.set(watchers)


class PrometheusTelemetry(PrometheusJobs):
    """Every port whose name ends in `Telemetry`, but those of calls and of limits."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)

        def counter(name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(name, help_text, labels, registry=registry)

        def gauge(name: str, help_text: str, labels: tuple[str, ...]) -> Gauge:
            return Gauge(name, help_text, labels, registry=registry)

        def histogram(name: str, help_text: str, labels: tuple[str, ...]) -> Histogram:
            return Histogram(name, help_text, labels, registry=registry, buckets=_SECONDS)

        self._attempts = PlainCounter(
            "docpreview_upstream_requests_total",
            "Attempts at the cloud by outcome: OK or the reason of the error.",
            ("bucket", "operation", "outcome"),
            registry,
        )
        self._attempt_seconds = cache(
            histogram(
                "docpreview_upstream_seconds", "Time of an attempt at the cloud.", ("operation", "outcome_class")
            ).labels
        )
        self._retries = counter(
            "docpreview_upstream_retries_total",
            "Attempts made again, and those that the budget refused.",
            ("operation", "outcome"),
        )
        self._shed = PlainCounter(
            "docpreview_upstream_shed_total", "Calls refused before they were sent.", ("bucket", "reason"), registry
        )
        self._breaker_changes = counter(
            "docpreview_upstream_breaker_changes_total", "Changes of a breaker's state.", ("bucket", "state")
        )
        self._breaker = gauge("docpreview_upstream_breaker", "0 closed, 1 half-open, 2 open.", _BUCKET)
        self._in_flight = gauge("docpreview_upstream_in_flight", "Calls under way to a bucket's host.", _BUCKET)
        self._limit = gauge("docpreview_upstream_limit", "Calls that may be under way at once.", _BUCKET)
        self._queued = gauge("docpreview_upstream_queued", "Calls that wait for their turn.", _BUCKET)
        self._lookups = PlainCounter("docpreview_cache_lookups_total", "Cache look-ups.", ("tier", "outcome"), registry)
        self._shared_reads = counter(
            "docpreview_shared_reads_total",
            "Single-flight reads of jobs across replicas: leader, follower, timeout or local (no single-flight).",
            ("outcome",),
        )
        self._cache_bytes = Gauge("docpreview_cache_bytes", "Bytes in the process's cache.", registry=registry)
        self._coalesced = counter(
            "docpreview_coalesced_reads_total", "Reads that joined an equal one under way.", ("operation",)
        )

    def upstream_attempt(self, attempt: Attempt, reason: ErrorReason.ValueType, seconds: float) -> None:
        """An attempt at the cloud ended."""
        outcome = ErrorReason.Name(reason).removeprefix("ERROR_REASON_") if reason else "OK"
        self._attempts.count(attempt.bucket, attempt.operation, outcome)
        observer = self._attempt_seconds(attempt.operation, _CLASSES.get(reason, "refused"))
        observer.observe(seconds, exemplar(attempt.trace))

    def retry(self, operation: str, outcome: str) -> None:
        """A retry was due."""
        self._retries.labels(operation, outcome).inc()

    def measure_host(self, bucket: str, load: Callable[[], HostLoad]) -> None:
        """Report how full the way to a bucket's host is whenever metrics are read."""
        self._in_flight.labels(bucket).set_function(lambda: load().in_flight)
        self._limit.labels(bucket).set_function(lambda: load().limit)
        self._queued.labels(bucket).set_function(lambda: load().queued)
        self._breaker.labels(bucket).set(0)

    def breaker(self, bucket: str, state: State) -> None:
        """A breaker changed its state."""
        self._breaker.labels(bucket).set(state.value)
        self._breaker_changes.labels(bucket, state.name.lower()).inc()

    def shed(self, bucket: str, why: str) -> None:
        """A call was refused at once."""
        self._shed.count(bucket, why)

    def cache_lookup(self, tier: str, outcome: str) -> None:
        """A tier was asked."""
        self._lookups.count(tier, outcome)

    def shared_read(self, outcome: str) -> None:
        """A read was made for all replicas, or by another, or by this one alone."""
        self._shared_reads.labels(outcome).inc()

    def measure_cache(self, size: Callable[[], int]) -> None:
        """Report the cache's size whenever metrics are read."""
        self._cache_bytes.set_function(size)

    def coalesced(self, operation: str) -> None:
        """A read joined an equal one."""
        self._coalesced.labels(operation).inc()
