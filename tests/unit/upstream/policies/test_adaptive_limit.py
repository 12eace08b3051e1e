"""The adaptive concurrency limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docpreview_gateway.upstream.policies.adaptive_limit import AdaptiveLimit, LimitBounds

BOUNDS = LimitBounds(initial=10, lowest=4, highest=12)


def test_successes_at_the_limit_raise_it() -> None:
    """By one for each round of successes, up to the bound."""
    limit = AdaptiveLimit(BOUNDS)
    for _ in range(9):
        limit.succeeded(0.1, in_flight=10)
    assert limit.value == 10
    limit.succeeded(0.1, in_flight=10)
    assert limit.value == 11
    for _ in range(1000):
        limit.succeeded(0.1, in_flight=10)
    assert limit.value == 12


def test_successes_below_half_of_the_limit_do_not_raise_it() -> None:
    """They do not show that the host can do more."""
    limit = AdaptiveLimit(BOUNDS)
    for _ in range(1000):
        limit.succeeded(0.1, in_flight=4)
    assert limit.value == 10


def test_overload_lowers_the_limit_once_a_round_and_not_below_its_bound() -> None:
    """By a factor of 0.7, once for all calls that were in flight together."""
    limit = AdaptiveLimit(BOUNDS)
    for _ in range(10):
        limit.overloaded(began=0.0, now=1.0)
    assert limit.value == 7
    limit.overloaded(began=1.5, now=2.0)
    assert limit.value == 4
    limit.overloaded(began=2.5, now=3.0)
    assert limit.value == 4


def test_the_expected_wait_follows_the_recent_time_of_calls() -> None:
    """By the moving average of latencies; 0 before the first call."""
    limit = AdaptiveLimit(BOUNDS)
    assert limit.expected_wait(100) == 0.0
    limit.succeeded(2.0, in_flight=1)
    assert limit.expected_wait(0) == pytest.approx(0.2)
    assert limit.expected_wait(9) == pytest.approx(2.0)


@pytest.mark.parametrize(("ahead", "remaining", "expected"), [(9, 5.4, True), (9, 5.3, False), (4, 5.3, True)])
def test_a_call_is_in_time_within_three_quarters_of_what_remains(
    ahead: int, remaining: float, *, expected: bool
) -> None:
    """Wait and call together take no more than three quarters of the time until the deadline."""
    limit = AdaptiveLimit(BOUNDS)
    limit.succeeded(2.0, in_flight=1)
    assert limit.in_time(ahead, remaining) == expected


def test_cancelled_calls_only_raise_the_latency() -> None:
    """The time until a cancellation is a lower bound of the latency."""
    limit = AdaptiveLimit(BOUNDS)
    limit.given_up(2.0)
    limit.given_up(0.1)
    assert limit.latency == 2.0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.floats(0, 10)), max_size=300))
def test_the_limit_never_leaves_its_bounds(events: list[tuple[bool, int, float]]) -> None:
    """For any sequence of successes and overloads."""
    limit = AdaptiveLimit(BOUNDS)
    for now, (good, in_flight, seconds) in enumerate(events):
        if good:
            limit.succeeded(seconds, in_flight=in_flight)
        else:
            limit.overloaded(now - seconds, now)
        assert BOUNDS.lowest <= limit.value <= BOUNDS.highest
