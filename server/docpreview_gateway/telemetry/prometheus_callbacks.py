"""Metrics of the cloud's callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Gauge
from prometheus_client.registry import Collector

from docpreview_gateway.telemetry.plain_counter import PlainCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry, Metric


class PrometheusCallbacks:
    """The ports `HintTelemetry` and `TrustTelemetry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._before = _BeforeScrape()
        registry.register(self._before)
        text = "Callbacks of the cloud, and the jobs that they named, by what became of them."
        self._callbacks = PlainCounter("docpreview_callbacks", text, ("outcome",), registry)
        text = "Ends of jobs that were found here, by what found them first: a callback or a poll."
        self._ends = PlainCounter("docpreview_callback_ends", text, ("bucket", "queue", "found"), registry)
        working = "1 while the callbacks of a queue's jobs come, so that polls are rare."
        self._working = Gauge("docpreview_callbacks_working", working, ("bucket", "queue"), registry=registry)
        last = "When a callback has last told of the end of a job, before a poll did (Unix time)."
        self._last = Gauge("docpreview_callback_last_timestamp_seconds", last, ("bucket", "queue"), registry=registry)
        address = "1, with the address that the cloud calls, but for its unguessable end."
        self._address = Gauge("docpreview_callbacks_address", address, ("address",), registry=registry)

    def settle_by(self, settle: Callable[[], None]) -> None:
        """Have this called before each scrape."""
        self._before.settle = settle

    def address(self, address: str) -> None:
        """Record the address that the cloud calls, without its token."""
        self._address.labels(address).set(1)

    def working(self, bucket: str, queue_id: str, works: bool) -> None:  # noqa: FBT001 - as the port
        """Set whether callbacks of a queue come. Its counters are there from then on: `increase` sees no first one."""
        for found in ("callback", "poll"):
            self._ends.count(bucket, queue_id, found, count=0)
        self._working.labels(bucket, queue_id).set(works)

    def found(self, bucket: str, queue_id: str, *, by_callback: bool) -> None:
        """Count the end of a job by what has found it."""
        self._ends.count(bucket, queue_id, "callback" if by_callback else "poll")
        if by_callback:
            self._last.labels(bucket, queue_id).set_to_current_time()

    def callback(self, outcome: str) -> None:
        """Count a callback, or a job that it names."""
        self._callbacks.count(outcome)


class _BeforeScrape(Collector):
    """No metric, but what is done before those that were registered later are collected."""

    def __init__(self) -> None:
        self.settle: Callable[[], None] = lambda: None

    def describe(self) -> Iterable[Metric]:
        """None."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """None."""
        self.settle()
        return ()
