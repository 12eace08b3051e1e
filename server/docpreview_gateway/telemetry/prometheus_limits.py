"""Metrics of callers' limits. Callers' names are those of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from docpreview_gateway.telemetry.plain_counter import PlainCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import CollectorRegistry, Metric

    from docpreview_gateway.model.callers import Caller


class PrometheusLimits(Collector):
    """The port `LimitsTelemetry`, and a collector of configured limits, registered by itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("caller", "limit", "outcome")
        self._decisions = PlainCounter(
            "docpreview_limit_decisions_total",
            "Decisions of limits: allowed, refused, shadowed or degraded.",
            labels,
            registry,
        )
        self._callers: Callable[[], Iterable[Caller]] = tuple
        registry.register(self)

    def limit(self, caller: str, limit: str, outcome: str) -> None:
        """Count a decision of a limit."""
        self._decisions.count(caller, limit, outcome)

    def measure_callers(self, callers: Callable[[], Iterable[Caller]]) -> None:
        """Report the configured limits of these callers, as they are at each scrape."""
        self._callers = callers

    def collect(self) -> Iterator[Metric]:
        """The configured limits, for the registry."""
        family = GaugeMetricFamily(
            "docpreview_caller_limit",
            "Configured limit of a caller: calls per second (rate), concurrent calls (concurrency), or pages of its "
            "budget (pages_day, pages_month).",
            labels=("caller", "limit"),
        )
        for caller in self._callers():
            for limit, bound in _bounds(caller).items():
                if bound is not None:
                    family.add_metric((caller.name, limit), bound)
        yield family


def _bounds(caller: Caller) -> dict[str, float | None]:
    budget = caller.budget
    return {
        "rate": None if caller.rate is None else caller.rate.per_second,
        "concurrency": caller.concurrency,
        "pages_day": None if budget is None else budget.per_day,
        "pages_month": None if budget is None else budget.per_month,
    }
