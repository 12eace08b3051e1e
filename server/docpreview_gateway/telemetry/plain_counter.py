"""A counter for what every call counts: one more costs a look-up, where Prometheus's own asks for a lock and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import CollectorRegistry


class PlainCounter:
    """A counter with labels in a registry. One thread counts; whoever reads the registry reads it like any other."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._family = name, help_text, labels
        self._counts: dict[tuple[str, ...], int] = {}
        registry.register(self)

    def count(self, *labels: str) -> None:
        """One more, with these values of the labels."""
        self._counts[labels] = self._counts.get(labels, 0) + 1

    def describe(self) -> Iterable[CounterMetricFamily]:
        """For the registry: the name, which nobody else may take."""
        name, help_text, labels = self._family
        return [CounterMetricFamily(name, help_text, labels=labels)]

    def collect(self) -> Iterable[CounterMetricFamily]:
        """For the registry: the counts."""
        (family,) = self.describe()
        for labels, count in list(self._counts.items()):
            family.add_metric(labels, count)
        return [family]
