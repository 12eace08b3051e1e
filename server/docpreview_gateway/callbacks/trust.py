"""Whether callbacks come: learned for each bucket from which came first when jobs ended, the callback or a poll."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

ENDS = 20
"""Ended jobs of a bucket that count: the last ones."""

LEAST = 5
"""Ended jobs before callbacks are relied upon."""

SHARE = 0.9
"""Share of them whose callback came first, from which on callbacks are relied upon."""

GRACE_SECONDS = 5.0
"""A poll may find the end a moment before its callback comes; only then the callback is missing."""

HOUR = 3600.0
"""How long an end counts: the way of callbacks may have changed since."""


class TrustTelemetry(Protocol):
    """Records what is learned."""

    def working(self, bucket: str, works: bool) -> None:  # noqa: FBT001 - a value to set
        """Record whether callbacks of a bucket's jobs come."""
        ...

    def found(self, bucket: str, *, by_callback: bool) -> None:
        """Record the end of a job by what has found it first."""
        ...


class Trust:
    """Learns, by a clock in seconds that is never set (`elapsed`)."""

    def __init__(self, elapsed: Callable[[], float], telemetry: TrustTelemetry) -> None:
        self._elapsed = elapsed
        self._telemetry = telemetry
        self._ends: dict[str, deque[tuple[float, str, bool]]] = {}
        """When each job ended, and whether its callback came first."""
        self._polled: dict[tuple[str, str], float] = {}
        """Jobs whose end a poll has found, and whose callback may still come."""
        self._works: dict[str, bool] = {}

    def works(self, bucket: str) -> bool:
        """Whether callbacks of the bucket's jobs come, as far as the last ends have shown."""
        self._settle()
        now = self._elapsed()
        ends = self._ends.get(bucket, deque())
        while ends and now - ends[0][0] > HOUR:
            ends.popleft()
        came = sum(came for _, _, came in ends)
        works = len(ends) >= LEAST and came >= SHARE * len(ends)
        if works != self._works.get(bucket, False):
            self._works[bucket] = works
            self._telemetry.working(bucket, works)
        return works

    def called_back(self, bucket: str, job_id: str) -> None:
        """A callback has told of a job, and a read has shown that it has ended."""
        self._polled.pop((bucket, job_id), None)
        self._note(bucket, job_id, self._elapsed(), came=True)

    def called_back_elsewhere(self, bucket: str, job_id: str) -> None:
        """A callback has told another replica of a job, which counts its end. It may have told this one before."""
        self._polled.pop((bucket, job_id), None)
        if not self._knows(bucket, job_id):
            self._keep(bucket, job_id, self._elapsed(), came=True)

    def missed(self, bucket: str, job_id: str) -> None:
        """The callback of a job that is followed here came so late that it is as good as none."""
        self._note(bucket, job_id, self._elapsed(), came=False)

    def came_late(self, bucket: str, job_id: str) -> None:
        """A callback has told of a job whose end was known: it has come all the same, if a poll was a moment faster."""
        if self._polled.pop((bucket, job_id), None) is not None:
            self._note(bucket, job_id, self._elapsed(), came=True)

    def polled(self, bucket: str, job_id: str) -> None:
        """A poll has found that a job has ended. Its callback may have told another replica meanwhile."""
        if not self._knows(bucket, job_id):
            self._polled[bucket, job_id] = self._elapsed()

    def _knows(self, bucket: str, job_id: str) -> bool:
        return any(job_id == other for _, other, _ in self._ends.get(bucket, ()))

    def _settle(self) -> None:
        """Count the ends whose callback has not come."""
        now = self._elapsed()
        for key, at in [*self._polled.items()]:
            if now - at < GRACE_SECONDS:
                break
            del self._polled[key]
            self._note(*key, at, came=False)

    def _note(self, bucket: str, job_id: str, at: float, *, came: bool) -> None:
        self._telemetry.found(bucket, by_callback=came)
        self._keep(bucket, job_id, at, came=came)

    def _keep(self, bucket: str, job_id: str, at: float, *, came: bool) -> None:
        self._ends.setdefault(bucket, deque(maxlen=ENDS)).append((at, job_id, came))
