"""Metrics of callers' limits. Callers' names are those of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.telemetry.plain_counter import PlainCounter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PrometheusLimits:
    """The port `LimitsTelemetry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("caller", "limit", "outcome")
        self._decisions = PlainCounter(
            "docpreview_limit_decisions_total",
            "Decisions of limits: allowed, refused, shadowed or degraded.",
            labels,
            registry,
        )

    def limit(self, caller: str, limit: str, outcome: str) -> None:
        """Count a decision of a limit."""
        self._decisions.count(caller, limit, outcome)
