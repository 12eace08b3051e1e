"""Which failed attempts are made again, when, and how many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model.errors import ReplyTooLarge, UpstreamError, UpstreamFacts
from docpreview_gateway.upstream.policies.retry_policy import RetryBudget, RetryPolicy, latest_start

POLICY = RetryPolicy(retries=2, base=0.1, cap=2.0)
EVERY_REASON = [ErrorReason.Value(name) for name in ErrorReason.keys()]  # noqa: SIM118 - protobuf's enum
READS = {
    r.ERROR_REASON_UPSTREAM_UNREACHABLE: 2,
    r.ERROR_REASON_UPSTREAM_THROTTLED: 2,
    r.ERROR_REASON_UPSTREAM_INTERNAL: 2,
    r.ERROR_REASON_UPSTREAM_UNAVAILABLE: 2,
    r.ERROR_REASON_UPSTREAM_TIMEOUT: 2,
    r.ERROR_REASON_UPSTREAM_BAD_RESPONSE: 1,
}
CREATES = {r.ERROR_REASON_UPSTREAM_UNREACHABLE: 2, r.ERROR_REASON_UPSTREAM_THROTTLED: 2}


def retries(error: UpstreamError, *, create: bool) -> int:
    """How often a call that always fails like this is made again."""
    count = 0
    while POLICY.delay(error, count, repeatable=not create, jitter=0.5) is not None:
        count += 1
    return count


@pytest.mark.parametrize("reason", EVERY_REASON, ids=ErrorReason.Name)
def test_reads_retry_what_may_pass_and_creates_only_what_was_not_admitted(reason: ErrorReason.ValueType) -> None:
    """Reads again after what may pass; creates only when certainly nothing was admitted; all else never."""
    error = UpstreamError(reason, "no")
    assert retries(error, create=False) == READS.get(reason, 0)
    assert retries(error, create=True) == CREATES.get(reason, 0)


def test_reply_that_is_too_large() -> None:
    """It will be as large again: lists are asked for in smaller pages instead."""
    assert retries(ReplyTooLarge(), create=False) == 0


def test_a_policy_of_no_retries_makes_none() -> None:
    """A policy of none makes none."""
    error = UpstreamError(r.ERROR_REASON_UPSTREAM_BAD_RESPONSE, "no")
    assert RetryPolicy(retries=0).delay(error, 0, repeatable=True, jitter=0.5) is None


@pytest.mark.parametrize(
    ("made", "jitter", "asked", "expected"),
    [
        (0, 0.0, 0, 0.0),
        (0, 0.5, 0, 0.05),
        (1, 0.5, 0, 0.1),
        (2, 0.5, 0, 0.2),
        (9, 0.5, 0, 1.0),
        (0, 0.5, 3, 3.0),
        (9, 1.0, 1, 2.0),
    ],
)
def test_the_backoff_doubles_with_full_jitter_and_a_longer_retry_after_wins(
    made: int, jitter: float, asked: float, expected: float
) -> None:
    """Full jitter below a doubling backoff with a cap; a longer `Retry-After` wins."""
    error = UpstreamError(r.ERROR_REASON_UPSTREAM_THROTTLED, "slow down", facts=UpstreamFacts(asked_wait=asked))
    assert RetryPolicy(retries=10).delay(error, made, repeatable=True, jitter=jitter) == pytest.approx(expected)


def test_last_fifth_of_a_calls_time() -> None:
    """No attempt begins in it."""
    assert latest_start(100.0, 110.0) == pytest.approx(108.0)


class TestBudget:
    def test_a_budget_with_few_calls_allows_its_floor_and_no_more(self) -> None:
        """The floor is allowed however few calls there are, and not more."""
        budget = RetryBudget(0.1, 3)
        assert [budget.take(1.0) for _ in range(4)] == [True, True, True, False]

    def test_a_spent_budget_is_whole_again_after_ten_seconds(self) -> None:
        """Ten seconds later it is as at first."""
        budget = RetryBudget(0.1, 1)
        assert [budget.take(at) for at in (0.0, 9.0, 10.0)] == [True, False, True]

    def test_a_budget_with_many_calls_allows_a_tenth_on_top_of_its_floor(self) -> None:
        """A tenth of the calls on top of the floor."""
        budget = RetryBudget(0.1, 2)
        for _ in range(100):
            budget.called(5.0)
        assert sum(budget.take(5.0) for _ in range(100)) == 12

    @given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=200))
    def test_any_traffic_stays_within_the_retry_budget(self, traffic: list[tuple[float, bool]]) -> None:
        """Never more than the floor and a tenth of the calls in any eight seconds."""
        budget, made, calls = RetryBudget(0.1, 2), list[float](), list[float]()
        for at, retry in sorted(traffic):
            if retry and budget.take(at):
                made.append(at)
            elif not retry:
                budget.called(at)
                calls.append(at)
        for end in made:
            recent = sum(end - 8 < at <= end for at in made)
            assert recent <= 2 + 0.1 * sum(end - 10.001 < at <= end for at in calls)
