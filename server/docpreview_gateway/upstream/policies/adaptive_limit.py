"""An adaptive concurrency limit (AIMD): it grows with successes and is cut on throttling and timeouts."""

from __future__ import annotations

from dataclasses import dataclass

_DECREASE = 0.7
"""Factor of the limit at each cut."""

_SAFETY = 0.75
"""Share of the time until a call's deadline that wait and call may take by estimate, since estimates are uncertain."""

_WEIGHT = 0.1
"""Weight of the latest call in the moving average of latencies."""


@dataclass(frozen=True, slots=True)
class LimitBounds:
    """Concurrent calls to a host: the initial, lowest and highest limit; and the longest queue."""

    initial: int = 32
    lowest: int = 4
    highest: int = 100
    queue: int = 1000


class AdaptiveLimit:
    """The concurrency limit of one host. Instants are of one monotonic clock, in seconds."""

    def __init__(self, bounds: LimitBounds) -> None:
        self.value = bounds.initial
        self.latency = 0.0
        """Moving average of the duration of calls, in seconds; 0 before the first call."""
        self._bounds = bounds
        self._successes = 0
        self._cut_at = float("-inf")

    def succeeded(self, seconds: float, *, in_flight: int) -> None:
        """One of `in_flight` calls was answered. The limit grows only while at least half of it is used."""
        self._record_latency(seconds)
        if 2 * in_flight < self.value:
            return
        self._successes += 1
        if self._successes >= self.value:
            self._successes = 0
            self.value = min(self._bounds.highest, self.value + 1)

    def overloaded(self, began: float, now: float) -> None:
        """A call was throttled or timed out: cut the limit, but once only for calls that were in flight together."""
        self._record_latency(now - began)
        if began >= self._cut_at:
            self._cut_at = now
            self._successes = 0
            self.value = max(self._bounds.lowest, int(self.value * _DECREASE))

    def given_up(self, seconds: float) -> None:
        """A caller cancelled its call after `seconds`, a lower bound of the call's latency."""
        if seconds > self.latency:
            self._record_latency(seconds)

    def expected_wait(self, ahead: int) -> float:
        """Seconds until a call gets a permit that has `ahead` calls ahead of it, while all permits are taken."""
        return (ahead + 1) * self.latency / self.value

    def in_time(self, ahead: int, remaining: float) -> bool:
        """Whether a call with `ahead` calls ahead of it is likely to be answered within `remaining` seconds."""
        return self.expected_wait(ahead) + self.latency <= _SAFETY * remaining

    def _record_latency(self, seconds: float) -> None:
        average = self.latency
        self.latency = average + _WEIGHT * (seconds - average) if average else seconds
