"""Snapshots of metrics, and what happened between two of them."""

from __future__ import annotations

import pytest

from docpreview_gateway.telemetry.metrics_snapshot import Interval, Snapshot, snapshot


def latencies(at: float, **counts: float) -> Snapshot:
    bounds = {"tenth": "0.1", "second": "1.0", "all": "+Inf"}
    return snapshot(at, [("d_bucket", {"le": bounds[name], "method": "Get"}, count) for name, count in counts.items()])


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.25, 0.05),  # half of the first bucket's 50
        (0.5, 0.1),
        (0.75, 0.55),  # half of the second bucket's 50
        (1.0, 1.0),
    ],
)
def test_a_quantile_is_linear_within_its_bucket(share: float, expected: float) -> None:
    """As histogram_quantile() of Prometheus estimates it."""
    span = Interval(Snapshot(0.0, {}), latencies(10.0, tenth=50, second=100, all=100))
    assert span.quantile(share, "d", method="Get") == pytest.approx(expected)


def test_a_quantile_above_the_highest_bound_is_this_bound() -> None:
    span = Interval(Snapshot(0.0, {}), latencies(10.0, tenth=1, second=1, all=100))
    assert span.quantile(0.99, "d") == 1.0


def test_a_quantile_is_of_the_new_observations_only() -> None:
    """A hundred slow ones before the interval."""
    span = Interval(latencies(0.0, tenth=0, second=100, all=100), latencies(10.0, tenth=10, second=110, all=110))
    assert span.quantile(0.5, "d") == pytest.approx(0.05)


def test_there_is_no_quantile_of_nothing() -> None:
    same = latencies(0.0, tenth=1, second=1, all=1)
    assert Interval(same, same).quantile(0.5, "d") is None
    assert Interval(same, same).quantile(0.5, "unknown") is None


def test_a_counter_that_began_again_has_not_decreased() -> None:
    before, now = (snapshot(at, [("c_total", {"code": "OK"}, count)]) for at, count in ((0.0, 100.0), (10.0, 3.0)))
    assert Interval(before, now).increase("c_total", "code") == {"OK": 0.0}
