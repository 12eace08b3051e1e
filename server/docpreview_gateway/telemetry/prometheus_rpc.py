"""Metrics of calls, and of the running versions.

Names are those of go-grpc-middleware, so that its dashboards fit.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from docpreview_gateway.model.trace_context import exemplar
from docpreview_gateway.telemetry.plain_counter import PlainCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import CollectorRegistry, Metric

    from docpreview_gateway.model.call import Call, Method

disable_created_metrics()  # type: ignore[no-untyped-call]
"""Start times of counters would double the number of series."""

_RPC = ("grpc_type", "grpc_service", "grpc_method")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(slots=True)
class _Series:
    """The series of one method, and the calls that are not yet counted in them."""

    started: Counter
    received: Counter
    sent: Counter
    seconds: Histogram
    handled: Callable[[str], Counter]
    new_calls: int = 0
    new_messages: int = 0
    durations: deque[float] = field(default_factory=deque)
    """Durations of ended calls without a recorded trace."""


MAX_BUFFERED = 2000
"""Most durations of a method in the buffer."""


class PrometheusRpc:
    """The port `RpcTelemetry`.

    Calls are buffered, and counted when the metrics are read: to increment a dozen series for each call would cost a
    tenth of a cached Get. The buffers hold numbers only, because objects would cost garbage collection.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(name, help_text, labels, registry=registry)

        self._ended: dict[tuple[Method, str, str, str], int] = {}
        registry.register(self)  # before the series that `collect` updates: the registry reads in this order
        self._started = counter("grpc_server_started_total", "RPCs started on the server.", _RPC)
        self._handled = counter(
            "grpc_server_handled_total", "RPCs completed on the server, by status code.", (*_RPC, "grpc_code")
        )
        self._received = counter("grpc_server_msg_received_total", "Messages received from clients.", _RPC)
        self._sent = counter("grpc_server_msg_sent_total", "Messages sent to clients.", _RPC)
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Duration of an RPC, in seconds.",
            _RPC,
            registry=registry,
            buckets=_SECONDS,
        )
        self._methods: dict[Method, _Series] = {}
        self._build = Gauge(
            "docpreview_build_info", "1, for what is running.", ("version", "python", "grpc"), registry=registry
        )
        self._answers = cache(
            counter(
                "docpreview_responses_total",
                "Responses by source: miss (the cloud), hit, coalesced or stale.",
                ("grpc_method", "source"),
            ).labels
        )
        failed = "RPCs that ended with an error, by reason."
        self._errors = PlainCounter("docpreview_errors_total", failed, ("grpc_method", "reason"), registry)
        last = "Unix time of the last error with this reason."
        gauge = Gauge("docpreview_error_last_timestamp_seconds", last, ("reason",), registry=registry)
        self._last_error = cache(gauge.labels)
        self._caller_calls = cache(
            counter("docpreview_caller_calls_total", "Calls that ended, by caller.", ("caller", "grpc_code")).labels
        )

    def build(self, version: str, python: str, grpc: str) -> None:
        """Report the running versions."""
        self._build.labels(version, python, grpc).set(1)

    def call_started(self, method: Method, _call: Call) -> None:
        """Count a started call; each has one request message."""
        self._series(method).new_calls += 1

    def message_sent(self, method: Method) -> None:
        """Count a message of a stream."""
        self._series(method).new_messages += 1

    def call_ended(self, method: Method, call: Call, code: str, seconds: float) -> None:
        """Record an ended call. The series are updated in batches, at each scrape."""
        if call.response.reason:
            self._errors.count(method.name, call.response.reason)
            self._last_error(call.response.reason).set_to_current_time()
        alike = method, code, call.caller.name, call.response.cache
        self._ended[alike] = self._ended.get(alike, 0) + 1
        series = self._series(method)
        if call.trace is not None:
            series.seconds.observe(seconds, exemplar(call.trace))
            return
        series.durations.append(seconds)
        if len(series.durations) >= MAX_BUFFERED:
            self.collect()

    def collect(self) -> Iterable[Metric]:
        """No series: count the buffered calls, before the registry reads the series that are registered after this."""
        for series in list(self._methods.values()):
            calls, series.new_calls = series.new_calls, 0
            series.started.inc(calls)
            series.received.inc(calls)
            messages, series.new_messages = series.new_messages, 0
            series.sent.inc(messages)
            for seconds in _taken(series.durations):
                series.seconds.observe(seconds)
        ended, self._ended = self._ended, {}
        for (method, code, caller, source), times in ended.items():
            self._count_ended(method, code, times)
            self._caller_calls(caller, _go_code(code)).inc(times)
            if source:
                self._answers(method.name, source).inc(times)
        return ()

    def _count_ended(self, method: Method, code: str, times: int) -> None:
        series = self._series(method)
        series.handled(code).inc(times)
        if code == "OK" and method.kind == "unary":
            series.sent.inc(times)

    def _series(self, method: Method) -> _Series:
        """The series of a method, cached: to find series by labels costs more than to increment them."""
        series = self._methods.get(method)
        if series is None:
            labels = (method.kind, method.service, method.name)
            series = self._methods[method] = _Series(
                self._started.labels(*labels),
                self._received.labels(*labels),
                self._sent.labels(*labels),
                self._seconds.labels(*labels),
                cache(lambda code: self._handled.labels(*labels, _go_code(code))),
            )
        return series


_GO_CODES = {"OK": "OK", "CANCELLED": "Canceled"}


def _taken(items: deque[float]) -> Iterator[float]:
    """The present items, oldest first, each once even when another thread takes or adds some."""
    for _ in range(len(items)):
        try:
            yield items.popleft()
        except IndexError:
            return


@cache
def _go_code(name: str) -> str:
    return _GO_CODES.get(name) or name.title().replace("_", "")
