"""A counter for hot paths: an increment costs a dictionary look-up, without the lock and checks of Prometheus's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import CollectorRegistry


class PlainCounter:
    """A counter with labels, registered like any other. Not safe for increments from several threads."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._family = name, help_text, labels
        self._counts: dict[tuple[str, ...], int] = {}
        registry.register(self)

    def count(self, *labels: str, count: int = 1) -> None:
        """Increment the series with these label values by `count`."""
        self._counts[labels] = self._counts.get(labels, 0) + count

    def describe(self) -> Iterable[CounterMetricFamily]:
        """The family without samples, by which the registry refuses a second metric of this name."""
        name, help_text, labels = self._family
        return [CounterMetricFamily(name, help_text, labels=labels)]

    def collect(self) -> Iterable[CounterMetricFamily]:
        """The family with its samples, for the registry."""
        (family,) = self.describe()
        for labels, count in list(self._counts.items()):
            family.add_metric(labels, count)
        return [family]
