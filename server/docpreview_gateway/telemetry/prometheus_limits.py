"""Metrics of callers' limits, in a registry that is handed in. Callers' names are those of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

from docpreview_gateway.telemetry.plain_counter import PlainCounter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from docpreview_gateway.creates.pages import Pages


class PrometheusLimits:
    """The ports `LimitTelemetry`, `BudgetTelemetry` and `DedupeTelemetry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("caller", "limit", "outcome")
        self._decisions = PlainCounter(
            "docpreview_limit_decisions_total",
            "Decisions of limits: allowed, refused, shadowed or degraded.",
            labels,
            registry,
        )
        spared = "Creates answered with the existing job of an equal create."
        self._deduped = Counter("docpreview_creates_deduped_total", spared, ("caller",), registry=registry)
        period = ("caller", "period")
        used = "Pages charged to a caller in the current period."
        self._used = Gauge("docpreview_pages_used", used, period, registry=registry)
        reserved = "Pages reserved for unfinished jobs of a caller."
        self._reserved = Gauge("docpreview_pages_reserved", reserved, period, registry=registry)
        left = "Pages left of a caller's budget in the current period."
        self._left = Gauge("docpreview_pages_left", left, period, registry=registry)

    def limit(self, caller: str, limit: str, outcome: str) -> None:
        """A call came to a limit."""
        self._decisions.count(caller, limit, outcome)

    def deduped(self, caller: str) -> None:
        """A create made no job."""
        self._deduped.labels(caller).inc()

    def pages(self, caller: str, period: str, pages: Pages, budget: int | None) -> None:
        """A caller's pages of the present period, as far as this process has heard."""
        self._used.labels(caller, period).set(pages.used)
        self._reserved.labels(caller, period).set(pages.reserved)
        if budget is not None:
            self._left.labels(caller, period).set(max(0, budget - sum(pages)))
