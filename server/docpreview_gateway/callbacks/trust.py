"""Whether callbacks come: learned from which came first when jobs ended, the callback or a poll.

For each queue of a bucket apart: one that was not told whom to call, or tells somebody else, is polled.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeAlias

import structlog

from docpreview.v1.preview_job_pb2 import PreviewJob

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()

ENDS = 20
"""Ended jobs of a queue that count: the last ones."""

LEAST = 5
"""Ended jobs before callbacks are relied upon."""

SHARE = 0.9
"""Share of them whose callback came first, from which on callbacks are relied upon."""

_Queue: TypeAlias = tuple[str, str]
"""A bucket's name, and the id of one of its queues."""

_TOLD = frozenset({PreviewJob.STATE_SUCCESS, PreviewJob.STATE_FAILED})
"""What the cloud calls back about. That Cancel has no callback says nothing of callbacks."""

GRACE_SECONDS = 5.0
"""A poll may find the end a moment before its callback comes; only then the callback is missing."""

HOUR = 3600.0
"""How long an end counts: the way of callbacks may have changed since."""


class TrustTelemetry(Protocol):
    """Records what is learned."""

    def working(self, bucket: str, queue_id: str, works: bool) -> None:  # noqa: FBT001 - a value to set
        """Record whether callbacks of a queue's jobs come."""
        ...

    def found(self, bucket: str, queue_id: str, *, by_callback: bool) -> None:
        """Record the end of a job by what has found it first."""
        ...


class Trust:
    """Learns, by a clock in seconds that is never set (`elapsed`)."""

    def __init__(self, elapsed: Callable[[], float], telemetry: TrustTelemetry) -> None:
        self._elapsed = elapsed
        self._telemetry = telemetry
        self._ends: dict[_Queue, deque[tuple[float, str, bool]]] = {}
        """When each job ended, and whether its callback came first."""
        self._polled: dict[tuple[str, str], tuple[float, str]] = {}
        """Jobs whose end a poll has found, and whose callback may still come: when, and their queues."""
        self._works: dict[_Queue, bool] = {}

    def works(self, bucket: str, queue_id: str | None = None) -> bool:
        """Whether callbacks of the queue's jobs come, as far as the last ends have shown.

        Without a queue: whether those of any queue of the bucket come.
        """
        self._settle()
        if queue_id is not None:
            return self._comes((bucket, queue_id))
        # All are looked at, which records what has changed.
        return any([self._comes(queue) for queue in [*self._ends] if queue[0] == bucket])  # noqa: C419

    def _comes(self, queue: _Queue) -> bool:
        now = self._elapsed()
        ends = self._ends.get(queue, deque())
        while ends and now - ends[0][0] > HOUR:
            ends.popleft()
        came = sum(came for _, _, came in ends)
        works = len(ends) >= LEAST and came >= SHARE * len(ends)
        before = self._works.get(queue)
        if works != before:
            self._works[queue] = works
            if works:
                log.info("callbacks of a queue are relied upon", bucket=queue[0], queue=queue[1])
            elif before:
                log.info("callbacks of a queue are not relied upon any more", bucket=queue[0], queue=queue[1])
            self._telemetry.working(*queue, works)
        return works

    def called_back(self, job: PreviewJob) -> None:
        """A callback has told of a job, and a read has shown that it has ended."""
        self._polled.pop((job.bucket, job.job_id), None)
        self._note((job.bucket, job.queue_id), job.job_id, self._elapsed(), came=True)

    def called_back_elsewhere(self, bucket: str, job_id: str, queue_id: str) -> None:
        """A callback has told another replica of a job, which counts its end. It may have told this one before."""
        self._polled.pop((bucket, job_id), None)
        queue = bucket, queue_id
        if not self._knows(queue, job_id):
            self._keep(queue, job_id, self._elapsed(), came=True)

    def missed(self, job: PreviewJob) -> None:
        """The callback of a job that is followed here came so late that it is as good as none."""
        self._note((job.bucket, job.queue_id), job.job_id, self._elapsed(), came=False)

    def came_late(self, bucket: str, job_id: str) -> None:
        """A callback has told of a job whose end was known: it has come all the same, if a poll was a moment faster."""
        if (polled := self._polled.pop((bucket, job_id), None)) is not None:
            self._note((bucket, polled[1]), job_id, self._elapsed(), came=True)

    def polled(self, job: PreviewJob) -> None:
        """A poll has found that a job has ended. Its callback may have told another replica meanwhile."""
        queue = job.bucket, job.queue_id
        if job.state in _TOLD and not self._knows(queue, job.job_id):
            self._polled[job.bucket, job.job_id] = self._elapsed(), job.queue_id

    def _knows(self, queue: _Queue, job_id: str) -> bool:
        return any(job_id == other for _, other, _ in self._ends.get(queue, ()))

    def settle(self) -> None:
        """Record what is known by now: a miss shows when its callback has not come, and an end counts for an hour."""
        self._settle()
        for queue in [*self._works]:
            _ = self._comes(queue)

    def _settle(self) -> None:
        """Count the ends whose callback has not come."""
        now = self._elapsed()
        for key, (at, queue_id) in [*self._polled.items()]:
            if now - at < GRACE_SECONDS:
                break
            del self._polled[key]
            self._note((key[0], queue_id), key[1], at, came=False)

    def _note(self, queue: _Queue, job_id: str, at: float, *, came: bool) -> None:
        self._telemetry.found(*queue, by_callback=came)
        self._keep(queue, job_id, at, came=came)

    def _keep(self, queue: _Queue, job_id: str, at: float, *, came: bool) -> None:
        self._ends.setdefault(queue, deque(maxlen=ENDS)).append((at, job_id, came))
