"""Retry policy: retryable reasons, backoff, and the retry budget."""

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
    """Number of retries of a call that always fails with this error."""
    count = 0
    while POLICY.delay(error, count, repeatable=not create, jitter=0.5) is not None:
        count += 1
    return count


@pytest.mark.parametrize("reason", EVERY_REASON, ids=ErrorReason.Name)
def test_reads_are_retried_after_transient_errors_and_creates_only_if_not_admitted(
    reason: ErrorReason.ValueType,
) -> None:
    """Reads are retried after transient errors, creates only after errors that prove that nothing was admitted."""
    error = UpstreamError(reason, "no")
    assert retries(error, create=False) == READS.get(reason, 0)
    assert retries(error, create=True) == CREATES.get(reason, 0)


def test_a_reply_that_is_too_large_is_not_retried() -> None:
    """It would be as large again; lists are requested in smaller pages instead."""
    assert retries(ReplyTooLarge(), create=False) == 0


def test_a_policy_of_no_retries_makes_none() -> None:
    """`retries` of 0 disables retries."""
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
    """The jitter is a share of the capped backoff."""
    error = UpstreamError(r.ERROR_REASON_UPSTREAM_THROTTLED, "slow down", facts=UpstreamFacts(asked_wait=asked))
    assert RetryPolicy(retries=10).delay(error, made, repeatable=True, jitter=jitter) == pytest.approx(expected)


def test_no_retry_begins_in_the_last_fifth_of_a_calls_time() -> None:
    """An attempt would have too little time."""
    assert latest_start(100.0, 110.0) == pytest.approx(108.0)


class TestBudget:
    def test_a_budget_with_few_calls_allows_its_floor_and_no_more(self) -> None:
        """The floor does not depend on the number of calls."""
        budget = RetryBudget(0.1, 3)
        assert [budget.take(1.0) for _ in range(4)] == [True, True, True, False]

    def test_a_spent_budget_is_whole_again_after_ten_seconds(self) -> None:
        """The window slides past all earlier retries."""
        budget = RetryBudget(0.1, 1)
        assert [budget.take(at) for at in (0.0, 9.0, 10.0)] == [True, False, True]

    def test_a_budget_with_many_calls_allows_a_tenth_on_top_of_its_floor(self) -> None:
        """The share is of the calls within the window."""
        budget = RetryBudget(0.1, 2)
        for _ in range(100):
            budget.called(5.0)
        assert sum(budget.take(5.0) for _ in range(100)) == 12

    @given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=200))
    def test_any_traffic_stays_within_the_retry_budget(self, traffic: list[tuple[float, bool]]) -> None:
        """In any eight seconds there are at most the floor and a tenth of the calls."""
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
