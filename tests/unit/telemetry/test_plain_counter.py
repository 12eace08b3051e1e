"""Counting what every call counts."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from docpreview_gateway.telemetry.plain_counter import PlainCounter


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_each_combination_of_label_values_has_its_own_count(registry: CollectorRegistry) -> None:
    """Each combination of values has its own, under the name and the type that Prometheus's own counter would have."""
    tally = PlainCounter("looks_total", "Looks.", ("where", "found"), registry)
    for values in (("memory", "hit"), ("memory", "miss"), ("memory", "hit")):
        tally.count(*values)
    assert registry.get_sample_value("looks_total", {"where": "memory", "found": "hit"}) == 2
    assert registry.get_sample_value("looks_total", {"where": "memory", "found": "miss"}) == 1
    other = CollectorRegistry()
    counter = Counter("looks_total", "Looks.", ("where", "found"), registry=other)
    counter.labels("memory", "hit").inc(2)
    counter.labels("memory", "miss").inc()
    assert generate_latest(registry) == generate_latest(other)


def test_name_that_is_taken(registry: CollectorRegistry) -> None:
    """An error at once, as with any other metric."""
    PlainCounter("looks_total", "Looks.", (), registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Counter("looks_total", "Looks.", registry=registry)
