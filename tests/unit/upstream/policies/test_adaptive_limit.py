"""How the number of calls at once follows what the cloud can do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docpreview_gateway.upstream.policies.adaptive_limit import AdaptiveLimit, LimitBounds

BOUNDS = LimitBounds(initial=10, lowest=4, highest=12)


def test_success_while_the_limit_is_used() -> None:
    """One more for each round of successes, up to the bound."""
    limit = AdaptiveLimit(BOUNDS)
    for _ in range(9):
        limit.succeeded(0.1, in_flight=10)
    assert limit.value == 10
    limit.succeeded(0.1, in_flight=10)
    assert limit.value == 11
    for _ in range(1000):
        limit.succeeded(0.1, in_flight=10)
    assert limit.value == 12


def test_success_while_there_is_little_to_do() -> None:
    """It tells nothing of what the cloud can do."""
    limit = AdaptiveLimit(BOUNDS)
    for _ in range(1000):
        limit.succeeded(0.1, in_flight=4)
    assert limit.value == 10


def test_overload_lowers_the_limit_once_a_round_and_not_below_its_bound() -> None:
    """0.7 of it, once for all calls that were under way, down to the bound."""
    limit = AdaptiveLimit(BOUNDS)
    for _ in range(10):
        limit.overloaded(began=0.0, now=1.0)
    assert limit.value == 7
    limit.overloaded(began=1.5, now=2.0)
    assert limit.value == 4
    limit.overloaded(began=2.5, now=3.0)
    assert limit.value == 4


def test_the_expected_wait_follows_the_recent_time_of_calls() -> None:
    """By the usual time of a call lately; unknown is none."""
    limit = AdaptiveLimit(BOUNDS)
    assert limit.expected_wait(100) == 0.0
    limit.succeeded(2.0, in_flight=1)
    assert limit.expected_wait(0) == pytest.approx(0.2)
    assert limit.expected_wait(9) == pytest.approx(2.0)


@pytest.mark.parametrize(("ahead", "remaining", "expected"), [(9, 5.4, True), (9, 5.3, False), (4, 5.3, True)])
def test_a_call_is_in_time_within_three_quarters_of_what_remains(
    ahead: int, remaining: float, *, expected: bool
) -> None:
    """When waiting and the call itself take no more than three quarters of the caller's time."""
    limit = AdaptiveLimit(BOUNDS)
    limit.succeeded(2.0, in_flight=1)
    assert limit.in_time(ahead, remaining) == expected


def test_callers_that_give_up() -> None:
    """Calls take at least as long as they waited, and not less because one was impatient."""
    limit = AdaptiveLimit(BOUNDS)
    limit.given_up(2.0)
    limit.given_up(0.1)
    assert limit.usual_seconds == 2.0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.floats(0, 10)), max_size=300))
def test_the_limit_never_leaves_its_bounds(events: list[tuple[bool, int, float]]) -> None:
    """The limit never leaves its bounds."""
    limit = AdaptiveLimit(BOUNDS)
    for now, (good, in_flight, seconds) in enumerate(events):
        if good:
            limit.succeeded(seconds, in_flight=in_flight)
        else:
            limit.overloaded(now - seconds, now)
        assert BOUNDS.lowest <= limit.value <= BOUNDS.highest
