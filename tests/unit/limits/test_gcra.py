"""GCRA with explicit instants: long-run rate, burst, and wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docpreview_gateway.limits.gcra import Rates, debt, divided, rule, rules_of
from docpreview_gateway.model.callers import Caller, Rate

FAST = rule("fast", "rate", Rate(10, 5))
SLOW = rule("slow", "method_rate", Rate(1, 1))


def test_a_burst_is_admitted_and_the_next_call_gets_its_wait() -> None:
    """After that wait it is admitted."""
    rates = Rates()
    assert [rates.take((FAST,), 100.0) for _ in range(5)] == [None] * 5
    refusal = rates.take((FAST,), 100.0)
    assert refusal is not None
    assert refusal.wait == pytest.approx(0.1)
    assert rates.take((FAST,), 100.0 + refusal.wait) is None


def test_a_rejected_call_is_charged_to_none_of_its_rules() -> None:
    """The refusal has the rule with the longer wait."""
    rates = Rates()
    assert rates.take((FAST, SLOW), 0.0) is None
    for _ in range(50):
        refusal = rates.take((FAST, SLOW), 0.0)
        assert refusal is not None
        assert refusal.rule == SLOW
        assert refusal.wait == pytest.approx(1.0)
    assert [rates.take((FAST,), 0.0) for _ in range(4)] == [None] * 4


def test_each_caller_gets_its_own_rate_at_three_times_its_limit() -> None:
    """For a minute, within 5 %, whatever the others do."""
    rates = Rates()
    limits = {f"c{n}": rule(f"c{n}", "rate", Rate(10 * n, n)) for n in range(1, 6)}
    for name, found in limits.items():
        per_second = 1 / found.interval
        moments = [n / (3 * per_second) for n in range(int(3 * per_second * 60))]
        passed = sum(rates.take((found,), moment) is None for moment in moments)
        assert passed == pytest.approx(60 * per_second, rel=0.05), name


def test_divided_rules_admit_the_whole_rate_together() -> None:
    """Four processes with a quarter each."""
    parts = [Rates() for _ in range(4)]
    quarter = divided(rule("a", "rate", Rate(100, 8)), 4)
    moments = [n / 300 for n in range(300 * 60)]
    passed = sum(parts[n % 4].take((quarter,), moment) is None for n, moment in enumerate(moments))
    assert passed == pytest.approx(6000, rel=0.01)


@given(
    per_second=st.floats(0.1, 1000),
    burst=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
)
def test_any_arrivals_stay_within_burst_and_rate_and_are_admitted_after_the_wait(
    per_second: float, burst: int, gaps: list[float]
) -> None:
    """For any rate, burst and gaps."""
    rates, found, now, passed = Rates(), rule("a", "rate", Rate(per_second, burst)), 0.0, 0
    for gap in gaps:
        now += gap
        refusal = rates.take((found,), now)
        passed += refusal is None
        assert passed <= burst + now * per_second + 1e-6
        if refusal is not None:
            now += refusal.wait
            passed += 1
            assert rates.take((found,), now) is None


def test_a_caller_has_a_rule_for_all_calls_then_one_for_the_method() -> None:
    """None for a limit that is not set."""
    caller = Caller("a", rate=Rate(10, 1), method_rates={"GetPreviewJob": Rate(1, 1)})
    assert [found.kind for found in rules_of(caller, "GetPreviewJob")] == ["rate", "method_rate"]
    assert [found.kind for found in rules_of(caller, "WatchPreviewJob")] == ["rate"]
    assert rules_of(Caller("b"), "GetPreviewJob") == ()


def test_a_debt_is_charged_at_once_and_delays_the_next_call() -> None:
    """However large: the rate in the long run is kept."""
    rates = Rates()
    assert rates.take((FAST,), 0.0) is None
    assert rates.take((debt(FAST, 99),), 0.0) is None
    refusal = rates.take((FAST,), 0.0)
    assert refusal is not None
    assert refusal.wait == pytest.approx(10.0 - FAST.tolerance)
    assert rates.take((debt(FAST, 10),), 0.0) is None
    assert rates.take((FAST,), 11.0 - FAST.tolerance) is None


def test_a_share_of_a_debt_is_never_refused() -> None:
    """When processes divide a rate."""
    rates = Rates()
    for _ in range(3):
        assert rates.take((divided(debt(SLOW, 100), 4),), 0.0) is None
    refusal = rates.take((divided(SLOW, 4),), 0.0)
    assert refusal is not None
    assert refusal.wait == pytest.approx(1200.0)
