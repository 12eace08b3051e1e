"""Metrics of callers' limits, in a registry that is handed in. Callers' names are those of the configuration."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import Counter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PrometheusLimits:
    """The port `LimitTelemetry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("caller", "limit", "outcome")
        decisions = Counter("docpreview_limit_decisions_total", "What limits decided.", labels, registry=registry)
        self._decisions = cache(decisions.labels)

    def limit(self, caller: str, limit: str, outcome: str) -> None:
        """A call came to a limit."""
        self._decisions(caller, limit, outcome).inc()
