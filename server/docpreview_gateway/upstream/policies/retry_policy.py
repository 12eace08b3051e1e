"""Which failed attempts are made again, after how long, and how many of them a process may make at all."""

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
"""Reasons after which a read is made again, and how often at most; None: as often as the policy allows.

CLOCK_SKEW is not here: the client has signed once more already when it gives up with that.
"""

CREATES: dict[ErrorReason.ValueType, int | None] = {
    r.ERROR_REASON_UPSTREAM_UNREACHABLE: None,
    r.ERROR_REASON_UPSTREAM_THROTTLED: None,
}
"""As above for creates: only what certainly was not sent, or was refused before it was admitted."""

_USABLE = 0.8
"""Share of a call's time in which attempts may begin again; the rest is too short to be worth one."""

BUDGET_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `retries` of a call; backoff from `base` to `cap` seconds; retries are at most `share` of all calls.

    `floor` retries in ten seconds are allowed however few calls there are.
    """

    retries: int = 2
    base: float = 0.1
    cap: float = 2.0
    share: float = 0.1
    floor: int = 10

    def delay(self, error: UpstreamError, retries: int, *, repeatable: bool, jitter: float) -> float | None:
        """Seconds to wait before the call is made again after so many `retries`; None when it must not be.

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
    """The last instant at which an attempt may begin again of a call that began at `begin` and is wanted by `until`."""
    return begin + _USABLE * (until - begin)


class RetryBudget:
    """Keeps the retries of a process at a share of its calls, so that they cannot keep a struggling cloud down."""

    def __init__(self, share: float, floor: int) -> None:
        self._share = share
        self._floor = floor
        self._counts = SlidingCounts(BUDGET_SECONDS)

    def called(self, now: float) -> None:
        """A call came in."""
        self._counts.add(now, calls=1)

    def take(self, now: float) -> bool:
        """Whether a retry may be made; it counts as made if so."""
        calls, retries = self._counts.totals(now)
        if retries + 1 > self._floor + self._share * calls:
            return False
        self._counts.add(now, special=1)
        return True
