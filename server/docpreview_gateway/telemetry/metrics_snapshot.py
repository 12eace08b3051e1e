"""Snapshots of the metrics, and what happened between two of them."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The samples of all metrics at a Unix time."""

    at: float
    samples: Mapping[str, list[tuple[Mapping[str, str], float]]]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        return sum(value for found, value in self.samples.get(name, ()) if labels.items() <= found.items())

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The same for each value of a label."""
        found: dict[str, float] = defaultdict(float)
        for given, value in self.samples.get(name, ()):
            if label in given and labels.items() <= given.items():
                found[given[label]] += value
        return dict(found)


def snapshot(at: float, samples: Iterable[tuple[str, Mapping[str, str], float]]) -> Snapshot:
    """A snapshot of samples with name, labels and value."""
    by_name: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
    for name, labels, value in samples:
        by_name[name].append((labels, value))
    return Snapshot(at, by_name)


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened between two snapshots."""

    before: Snapshot
    now: Snapshot

    @property
    def seconds(self) -> float:
        """Its length, at least 1."""
        return max(1.0, self.now.at - self.before.at)

    def increase(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The increase of a counter for each value of a label; one that began again has none below 0."""
        old = self.before.by(name, label, **labels)
        return {key: max(0.0, value - old.get(key, 0.0)) for key, value in self.now.by(name, label, **labels).items()}

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """The quantile `share` (0 to 1) of a histogram's new observations, as Prometheus has it; None without any.

        Linear within a bucket; the highest finite bound when it is in the last bucket.
        """
        counts = sorted((float(le), count) for le, count in self.increase(f"{name}_bucket", "le", **labels).items())
        if not counts or not counts[-1][1]:
            return None
        wanted = share * counts[-1][1]
        lower, below = 0.0, 0.0
        for bound, count in counts:
            if count >= wanted and count > below:
                return lower if math.isinf(bound) else lower + (bound - lower) * (wanted - below) / (count - below)
            lower, below = bound, count
        return lower
