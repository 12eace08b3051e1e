"""Poll intervals of the poller of a job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Poll intervals that grow with a job's age, so that its end is seen within about a tenth of the time it took."""

    floor: float = 0.5
    """Shortest interval, in seconds."""
    cap: float = 10.0
    """Longest interval, in seconds."""
    fraction: float = 0.1
    """The interval as a share of the job's age."""
    backstop: float = 60.0
    """The interval while the ends of jobs are called back: a poll finds what no callback tells."""
    patience: int = 5
    """Consecutive failed polls after which the watchers get the error."""

    def interval(
        self,
        age: float,
        *,
        failures: int = 0,
        paused: bool = False,
        called_back: bool = False,
        jitter: float = 0.5,
    ) -> float:
        """Seconds until the next poll of a job of `age` seconds; `jitter` in [0, 1] spreads it by +-20 %.

        Each consecutive failure doubles the interval; the jobs of a paused queue are polled at the longest one.
        """
        if called_back:
            return max(self.cap, self.backstop) * (0.8 + 0.4 * jitter)
        base = self.cap if paused else max(self.floor, age * self.fraction)
        return min(self.cap, base * 2.0 ** min(failures, 10)) * (0.8 + 0.4 * jitter)


FOLLOWER_JITTER = 1.0
"""The largest jitter, for a follower of another replica's polls: the replica that polled last polls first again."""
