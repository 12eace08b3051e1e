"""Metrics in a registry that is handed in. Names of RPC metrics are those of go-grpc-middleware."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from docpreview.v1.error_reason_pb2 import ErrorReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from docpreview_gateway.core.breaker import State
    from docpreview_gateway.ports import LaneLoad, Method

_RPC = ("grpc_type", "grpc_service", "grpc_method")
_BUCKET = ("bucket",)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class _Series(NamedTuple):
    """The series of one method."""

    started: Counter
    received: Counter
    sent: Counter
    seconds: Histogram
    handled: dict[str, Counter]
    """By name of the code, such as `NOT_FOUND`."""


class PrometheusTelemetry:
    """Every port whose name ends in `Telemetry`, but those of limits."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(name, help_text, labels, registry=registry)

        def gauge(name: str, help_text: str, labels: tuple[str, ...]) -> Gauge:
            return Gauge(name, help_text, labels, registry=registry)

        def histogram(name: str, help_text: str, labels: tuple[str, ...]) -> Histogram:
            return Histogram(name, help_text, labels, registry=registry, buckets=_SECONDS)

        self._started = counter("grpc_server_started_total", "RPCs that came in.", _RPC)
        self._handled = counter("grpc_server_handled_total", "RPCs that ended.", (*_RPC, "grpc_code"))
        self._received = counter("grpc_server_msg_received_total", "Messages that came in.", _RPC)
        self._sent = counter("grpc_server_msg_sent_total", "Messages that left.", _RPC)
        self._seconds = histogram("grpc_server_handling_seconds", "Time from request to end of an RPC.", _RPC)
        self._methods: dict[Method, _Series] = {}
        outcome = ("operation", "outcome")
        self._attempts = counter(
            "docpreview_upstream_requests_total",
            "Attempts at the cloud by outcome: OK or the reason of the error.",
            outcome,
        )
        self._attempt_seconds = histogram(
            "docpreview_upstream_seconds", "Time of an attempt at the cloud.", outcome[:1]
        )
        self._retries = counter(
            "docpreview_upstream_retries_total",
            "Attempts made again, and those that the budget refused.",
            ("operation", "outcome"),
        )
        self._shed = counter(
            "docpreview_upstream_shed_total", "Calls refused before they were sent.", ("bucket", "reason")
        )
        self._breaker_changes = counter(
            "docpreview_upstream_breaker_changes_total", "Changes of a breaker's state.", ("bucket", "state")
        )
        self._breaker = gauge("docpreview_upstream_breaker", "0 closed, 1 half-open, 2 open.", _BUCKET)
        self._in_flight = gauge("docpreview_upstream_in_flight", "Calls under way to a bucket's host.", _BUCKET)
        self._limit = gauge("docpreview_upstream_limit", "Calls that may be under way at once.", _BUCKET)
        self._queued = gauge("docpreview_upstream_queued", "Calls that wait for their turn.", _BUCKET)
        self._lookups = cache(counter("docpreview_cache_lookups_total", "Cache look-ups.", ("tier", "outcome")).labels)
        self._shared_reads = counter(
            "docpreview_shared_reads_total",
            "Reads of jobs that replicas could share: led, told by another, empty (told nothing) or alone.",
            ("outcome",),
        )
        self._cache_bytes = Gauge("docpreview_cache_bytes", "Bytes in the process's cache.", registry=registry)
        self._ledger = counter("docpreview_ledger_events_total", "What happened to recorded creates.", ("event",))
        self._pollers = Gauge("docpreview_pollers", "Jobs that are polled now.", registry=registry)
        self._watchers = Gauge("docpreview_watchers", "Calls that wait for a job or watch one.", registry=registry)

    def call_started(self, method: Method) -> None:
        """A call came in; each has exactly one request message."""
        series = self._series(method)
        series.started.inc()
        series.received.inc()

    def message_sent(self, method: Method) -> None:
        """A message of a reply left."""
        self._series(method).sent.inc()

    def call_ended(self, method: Method, code: str, seconds: float) -> None:
        """A call ended. `code` is written as Go's does it: `OK`, `NotFound`."""
        series = self._series(method)
        handled = series.handled.get(code)
        if handled is None:
            labels = (method.kind, method.service, method.name, _go_code(code))
            handled = series.handled[code] = self._handled.labels(*labels)
        handled.inc()
        series.seconds.observe(seconds)

    def upstream_attempt(self, operation: str, reason: ErrorReason.ValueType, seconds: float) -> None:
        """An attempt at the cloud ended."""
        outcome = ErrorReason.Name(reason).removeprefix("ERROR_REASON_") if reason else "OK"
        self._attempts.labels(operation, outcome).inc()
        self._attempt_seconds.labels(operation).observe(seconds)

    def retry(self, operation: str, outcome: str) -> None:
        """A retry was due."""
        self._retries.labels(operation, outcome).inc()

    def measure_lane(self, bucket: str, load: Callable[[], LaneLoad]) -> None:
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
        self._shed.labels(bucket, why).inc()

    def cache_lookup(self, tier: str, outcome: str) -> None:
        """A tier was asked."""
        self._lookups(tier, outcome).inc()

    def shared_read(self, outcome: str) -> None:
        """A read was made for all replicas, or by another, or by this one alone."""
        self._shared_reads.labels(outcome).inc()

    def measure_cache(self, size: Callable[[], int]) -> None:
        """Report the cache's size whenever metrics are read."""
        self._cache_bytes.set_function(size)

    def ledger(self, event: str) -> None:
        """A recorded create came to a stage, or was looked for."""
        self._ledger.labels(event).inc()

    def watching(self, *, pollers: int, watchers: int) -> None:
        """The numbers now."""
        self._pollers.set(pollers)
        self._watchers.set(watchers)

    def _series(self, method: Method) -> _Series:
        """Looking series up by their labels costs more than counting does, so each method's are kept."""
        series = self._methods.get(method)
        if series is None:
            labels = (method.kind, method.service, method.name)
            series = self._methods[method] = _Series(
                self._started.labels(*labels),
                self._received.labels(*labels),
                self._sent.labels(*labels),
                self._seconds.labels(*labels),
                {},
            )
        return series


_GO_CODES = {"OK": "OK", "CANCELLED": "Canceled"}


def _go_code(name: str) -> str:
    return _GO_CODES.get(name) or name.title().replace("_", "")
