"""Counts of a sliding window."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from docpreview_gateway.upstream.policies.sliding_window import Counts, SlidingCounts


def test_events_within_the_window_are_counted() -> None:
    """Calls and special events have counts of their own."""
    counts = SlidingCounts(10)
    counts.add(100.0, calls=2)
    counts.add(104.5, calls=1, special=1)
    assert counts.totals(104.5) == Counts(3, 1)


def test_counts_older_than_the_window_are_forgotten() -> None:
    """The window slides in steps of a tenth."""
    counts = SlidingCounts(10)
    counts.add(100.0, calls=2, special=2)
    counts.add(104.0, calls=1)
    assert counts.totals(109.9) == Counts(3, 2)
    assert counts.totals(110.0) == Counts(1, 0)
    assert counts.totals(1000.0) == Counts(0, 0)


def test_cleared_counts_are_zero() -> None:
    """`clear` resets the window."""
    counts = SlidingCounts(10)
    counts.add(1.0, calls=1, special=1)
    counts.clear()
    assert counts.totals(1.0) == Counts(0, 0)


@given(st.lists(st.floats(0, 100), max_size=50), st.floats(0, 100))
def test_any_moments_of_the_window_are_counted_and_older_ones_are_not(moments: list[float], end: float) -> None:
    """All events of the last nine tenths are counted, and none older than the window."""
    counts = SlidingCounts(10)
    earlier = sorted(moment for moment in moments if moment <= end)
    for moment in earlier:
        counts.add(moment, calls=1)
    found = counts.totals(end).calls
    assert sum(end - moment < 9 for moment in earlier) <= found <= sum(end - moment < 10.001 for moment in earlier)
