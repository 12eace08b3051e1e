"""When the shared poller of a job looks at it again, and when it gives up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Fast while a job is young, slower with its age: a job is seen within about a tenth of the time that it took.

    `floor` and `cap` bound the interval, in seconds; `fraction` is the interval as a share of the job's age; `patience`
    is how many polls in a row may fail before the watchers are told.
    """

    floor: float = 0.5
    cap: float = 10.0
    fraction: float = 0.1
    patience: int = 5

    def interval(self, age: float, *, failures: int = 0, paused: bool = False, jitter: float = 0.5) -> float:
        """Seconds until the next poll of a job of `age` seconds; `jitter` in [0, 1) spreads it by +-20 %.

        Failed polls double the interval; the jobs of a paused queue are looked at as seldom as possible.
        """
        base = self.cap if paused else max(self.floor, age * self.fraction)
        return min(self.cap, base * 2.0 ** min(failures, 10)) * (0.8 + 0.4 * jitter)


FOLLOWS = 1.0
"""The jitter of who was told by another replica: it looks last, so the one that looked goes on to look for all."""
