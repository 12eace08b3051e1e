"""Metrics of the cloud's callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Gauge

from docpreview_gateway.telemetry.plain_counter import PlainCounter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PrometheusCallbacks:
    """The port `HintTelemetry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        text = "Callbacks of the cloud, and the jobs that they named, by what became of them."
        self._callbacks = PlainCounter("docpreview_callbacks", text, ("outcome",), registry)
        working = "1 while the callbacks of a bucket's jobs come, so that polls are rare."
        self._working = Gauge("docpreview_callbacks_working", working, ("bucket",), registry=registry)

    def working(self, bucket: str, works: bool) -> None:  # noqa: FBT001 - as the port
        """Set whether callbacks of a bucket come."""
        self._working.labels(bucket).set(works)

    def callback(self, outcome: str) -> None:
        """Count a callback, or a job that it names."""
        self._callbacks.count(outcome)
