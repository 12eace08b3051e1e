"""How many calls the cloud is given at once: more while that works, fewer when it shows that it is too many."""

from __future__ import annotations

from dataclasses import dataclass

_CUT = 0.7
_SURE = 0.75
"""Share of a caller's time that its call may be expected to take: what is expected is not what is certain."""

_WEIGHT = 0.1
"""Of the latest call in the usual time of a call."""


@dataclass(frozen=True, slots=True)
class LimitBounds:
    """Calls at once: at the beginning, at least and at most; and how many may wait for their turn."""

    initial: int = 32
    lowest: int = 4
    highest: int = 100
    queue: int = 1000


class AdaptiveLimit:
    """Additive increase, multiplicative decrease. Times are of one clock that never goes back, in seconds."""

    def __init__(self, bounds: LimitBounds) -> None:
        self.value = bounds.initial
        self.usual_seconds = 0.0
        """The usual time of a call lately; 0 while there was none."""
        self._bounds = bounds
        self._successes = 0
        self._cut_at = float("-inf")

    def succeeded(self, seconds: float, *, in_flight: int) -> None:
        """A call was answered while so many were under way; the limit grows when about all of it was used."""
        self._learn(seconds)
        if 2 * in_flight < self.value:
            return
        self._successes += 1
        if self._successes >= self.value:
            self._successes = 0
            self.value = min(self._bounds.highest, self.value + 1)

    def overloaded(self, began: float, now: float) -> None:
        """A call was throttled or not answered in time. One that began before the last cut is no reason for another."""
        self._learn(now - began)
        if began >= self._cut_at:
            self._cut_at = now
            self._successes = 0
            self.value = max(self._bounds.lowest, int(self.value * _CUT))

    def given_up(self, seconds: float) -> None:
        """A caller left after so long: calls take at least that."""
        if seconds > self.usual_seconds:
            self._learn(seconds)

    def expected_wait(self, ahead: int) -> float:
        """Seconds until one is let in whom so many wait ahead of, when all places are taken."""
        return (ahead + 1) * self.usual_seconds / self.value

    def in_time(self, ahead: int, remaining: float) -> bool:
        """Whether a call that so many wait ahead of will in all likelihood be answered in the `remaining` seconds."""
        return self.expected_wait(ahead) + self.usual_seconds <= _SURE * remaining

    def _learn(self, seconds: float) -> None:
        known = self.usual_seconds
        self.usual_seconds = known + _WEIGHT * (seconds - known) if known else seconds
