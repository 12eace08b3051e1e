"""Metrics of waits and watches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PrometheusJobs:
    """The port `JobsTelemetry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._pollers = Gauge("docpreview_pollers", "Jobs being polled.", registry=registry)
        self._watchers = Gauge("docpreview_watchers", "Open waits and watches.", registry=registry)

    def watching(self, *, pollers: int, watchers: int) -> None:
        """Set the numbers of pollers and watchers."""
        self._pollers.set(pollers)
        self._watchers.set(watchers)
