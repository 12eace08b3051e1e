"""Metrics of the way to the cloud: attempts, host limiters, cache, shared reads, and jobs that ended."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model.circuit_breaker import State
from docpreview_gateway.model.trace_context import exemplar
from docpreview_gateway.telemetry.plain_counter import PlainCounter

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

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
"""Classes of outcomes: each has a histogram of its attempts' times. All other errors are `refused`."""


class PrometheusUpstream:
    """The port `UpstreamTelemetry`. `event`, if there are traces, adds an event to the current span."""

    def __init__(self, registry: CollectorRegistry, event: Callable[..., None] | None = None) -> None:
        def counter(name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(name, help_text, labels, registry=registry)

        self._event = event
        self._attempts = PlainCounter(
            "docpreview_upstream_requests_total",
            "Requests to the cloud, by outcome: OK or the reason of the error.",
            ("bucket", "operation", "outcome"),
            registry,
        )
        self._attempt_seconds = cache(
            Histogram(
                "docpreview_upstream_request_duration_seconds",
                "Duration of a request to the cloud, in seconds.",
                ("operation", "outcome_class"),
                registry=registry,
                buckets=_SECONDS,
            ).labels
        )
        self._retries = counter(
            "docpreview_upstream_retries_total",
            "Attempts made again, and those that the budget refused.",
            ("operation", "outcome"),
        )
        shed = "Calls shed before they were sent to the cloud."
        self._shed = PlainCounter("docpreview_upstream_shed_total", shed, ("bucket", "reason"), registry)
        self._breaker_changes = counter(
            "docpreview_upstream_breaker_transitions_total",
            "Circuit breaker transitions, by new state.",
            ("bucket", "state"),
        )
        self._breaker, self._in_flight, self._limit, self._queued = _host_gauges(registry)
        self._lookups = PlainCounter(
            "docpreview_cache_lookups_total", "Cache lookups, by tier and outcome.", ("tier", "outcome"), registry
        )
        self._shared_reads = counter(
            "docpreview_shared_reads_total",
            "Single-flight reads of jobs across replicas: leader, follower, timeout or local (no single-flight).",
            ("outcome",),
        )
        self._cache_bytes = Gauge("docpreview_cache_bytes", "Size of the in-process cache.", registry=registry)
        joined = "Reads that joined an equal read in flight."
        self._cloud_failing = Gauge(
            "docpreview_cloud_failing",
            "Whether no create can succeed because no bucket of the cloud can be used (1).",
            registry=registry,
        )
        self._coalesced = counter("docpreview_coalesced_reads_total", joined, ("operation",))
        self._jobs, self._job_seconds, self._pages = _job_metrics(registry)

    def upstream_attempt(self, attempt: Attempt, reason: ErrorReason.ValueType, seconds: float) -> None:
        """Count an attempt and its duration; the trace is its exemplar."""
        outcome = ErrorReason.Name(reason).removeprefix("ERROR_REASON_") if reason else "OK"
        self._attempts.count(attempt.bucket, attempt.operation, outcome)
        observer = self._attempt_seconds(attempt.operation, _CLASSES.get(reason, "refused"))
        observer.observe(seconds, exemplar(attempt.trace))

    def retry(self, operation: str, outcome: str) -> None:
        """Count a retry, or one over the budget."""
        self._retries.labels(operation, outcome).inc()

    def measure_host(self, bucket: str, load: Callable[[], HostLoad]) -> None:
        """Read a host limiter's load at each scrape."""
        self._in_flight.labels(bucket).set_function(lambda: load().in_flight)
        self._limit.labels(bucket).set_function(lambda: load().limit)
        self._queued.labels(bucket).set_function(lambda: load().queued)
        self._breaker.labels(bucket).set(0)

    def measure_cloud(self, is_failing: Callable[[], bool]) -> None:
        """Show whether no bucket of the cloud can be used."""
        self._cloud_failing.set_function(lambda: float(is_failing()))

    def breaker(self, bucket: str, state: State) -> None:
        """Record a transition of a circuit breaker."""
        self._breaker.labels(bucket).set(state.value)
        self._breaker_changes.labels(bucket, state.word).inc()

    def shed(self, bucket: str, why: str) -> None:
        """Count a call that was not sent."""
        self._shed.count(bucket, why)

    def cache_lookup(self, tier: str, outcome: str, count: int = 1) -> None:
        """Count lookups in a cache tier."""
        self._lookups.count(tier, outcome, count=count)
        if self._event is not None:
            self._event("cache", tier=tier, outcome=outcome)

    def shared_read(self, outcome: str) -> None:
        """Count a single-flight read across replicas."""
        self._shared_reads.labels(outcome).inc()

    def measure_cache(self, size: Callable[[], int]) -> None:
        """Report the size of the cache whenever metrics are read."""
        self._cache_bytes.set_function(size)

    def coalesced(self, operation: str) -> None:
        """Count a read that joined another."""
        self._coalesced.labels(operation).inc()

    def job_ended(self, state: str, seconds: float | None, pages: JobPages) -> None:
        """Count an ended job, its duration and its pages."""
        self._jobs.labels(state).inc()
        if seconds is not None:
            self._job_seconds.labels(state).observe(seconds)
        self._pages.labels("succeeded").inc(pages.succeeded)
        self._pages.labels("failed").inc(pages.failed)


def _host_gauges(registry: CollectorRegistry) -> tuple[Gauge, Gauge, Gauge, Gauge]:
    """Of each bucket's host: breaker state, requests in flight, concurrency limit, queued calls."""
    states = ", ".join(f"{state.value} {state.word}" for state in State)
    helps = {
        "breaker_state": f"State of the circuit breaker: {states}.",
        "in_flight": "Requests in flight to a bucket's host.",
        "concurrency_limit": "Current concurrency limit of a bucket's host.",
        "queued": "Calls queued for a bucket's host.",
    }
    state, in_flight, limit, queued = (
        Gauge(f"docpreview_upstream_{name}", text, _BUCKET, registry=registry) for name, text in helps.items()
    )
    return state, in_flight, limit, queued


def _job_metrics(registry: CollectorRegistry) -> tuple[Counter, Histogram, Counter]:
    """Ended jobs by state, their durations, and their pages."""
    ended = "Jobs observed to finish, by final state."
    duration = "Time from creation to end of a job, by the cloud's clock."
    pages = "Pages of jobs observed to finish."
    return (
        Counter("docpreview_jobs_ended_total", ended, ("state",), registry=registry),
        Histogram("docpreview_job_duration_seconds", duration, ("state",), registry=registry, buckets=_JOB_SECONDS),
        Counter("docpreview_job_pages_total", pages, ("outcome",), registry=registry),
    )
