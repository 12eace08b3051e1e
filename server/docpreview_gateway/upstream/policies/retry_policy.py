"""Retry policy: which failed attempts are retried, the backoff, and the retry budget of a process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.model.errors import ReplyTooLarge, UpstreamError
from docpreview_gateway.model.sliding_window import SlidingCounts

if TYPE_CHECKING:
    from docpreview.v1.error_reason_pb2 import ErrorReason

READS: dict[ErrorReason.ValueType, int | None] = {
    r.ERROR_REASON_UPSTREAM_UNREACHABLE: None,
    r.ERROR_REASON_UPSTREAM_THROTTLED: None,
    r.ERROR_REASON_UPSTREAM_INTERNAL: None,
    r.ERROR_REASON_UPSTREAM_UNAVAILABLE: None,
    r.ERROR_REASON_UPSTREAM_TIMEOUT: None,
    r.ERROR_REASON_UPSTREAM_BAD_RESPONSE: 1,
}
"""Reasons after which a read is retried, with the largest number of retries; None: as many as the policy allows.

CLOCK_SKEW is missing because the client itself makes the second attempt, with a corrected signature and from the same
budget.
"""

CREATES: dict[ErrorReason.ValueType, int | None] = {
    r.ERROR_REASON_UPSTREAM_UNREACHABLE: None,
    r.ERROR_REASON_UPSTREAM_THROTTLED: None,
}
"""The same for creates: only reasons that prove that the create was not sent, or was refused before admission."""

_USABLE = 0.8
"""Share of a call's time in which a retry may begin; the rest is too short for an attempt."""

BUDGET_SECONDS = 10.0
"""Sliding window of the retry budget."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits and backoff of retries."""

    retries: int = 2
    """Largest number of retries of a call."""
    base: float = 0.1
    """Backoff before the first retry, in seconds; it doubles with each retry."""
    cap: float = 2.0
    """Longest backoff, in seconds."""
    share: float = 0.1
    """Largest number of retries of the process, as a share of its calls."""
    floor: int = 10
    """Retries in ten seconds that are allowed in addition, however few the calls."""

    def delay(self, error: UpstreamError, retries: int, *, repeatable: bool, jitter: float) -> float | None:
        """Seconds before the next retry of a call that had `retries` already; None: it must not be retried.

        Full jitter: `jitter` in [0, 1) is the share of the backoff that is waited. A longer `Retry-After` wins.
        """
        table = READS if repeatable else CREATES
        if error.reason not in table or isinstance(error, ReplyTooLarge):
            return None
        most = table[error.reason]
        if retries >= (self.retries if most is None else min(self.retries, most)):
            return None
        backoff = min(self.cap, self.base * 2.0**retries) * jitter
        return max(backoff, error.facts.asked_wait)


def latest_start(begin: float, until: float) -> float:
    """The last instant at which a retry may begin, for a call that began at `begin` and is wanted by `until`."""
    return begin + _USABLE * (until - begin)


class RetryBudget:
    """Bounds the retries of a process to a share of its calls, so that retries do not overload a failing cloud."""

    def __init__(self, share: float, floor: int) -> None:
        self._share = share
        self._floor = floor
        self._counts = SlidingCounts(BUDGET_SECONDS)

    def called(self, now: float) -> None:
        """Count a call."""
        self._counts.add(now, calls=1)

    def take(self, now: float) -> bool:
        """Take a retry from the budget. Returns False when the budget is spent."""
        calls, retries = self._counts.totals(now)
        if retries + 1 > self._floor + self._share * calls:
            return False
        self._counts.add(now, special=1)
        return True
