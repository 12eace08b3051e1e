"""Metrics of the cloud's callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.telemetry.plain_counter import PlainCounter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PrometheusCallbacks:
    """The port `HintTelemetry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        text = "Callbacks of the cloud, and the jobs that they named, by what became of them."
        self._callbacks = PlainCounter("docpreview_callbacks", text, ("outcome",), registry)

    def callback(self, outcome: str) -> None:
        """Count a callback, or a job that it names."""
        self._callbacks.count(outcome)
