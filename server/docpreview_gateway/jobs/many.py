"""A stream of many jobs: the shared poller of each, and which of them have news for its reader.

The first reads do not come all at once: a job holds one of `PLACES` until its first read has been told, or has failed.
A job that has ended, with its pages, holds one until that is told; beyond `PLACES` of them it is let go, and read again
when the reader comes to it. So a slow reader takes no memory for pages, and no reader bursts the cloud.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.jobs.watching import Watching, stream_limit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.jobs.poller import Poller
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call

PLACES = 10
"""Most jobs of a stream that are read for the first time, or have ended and are not told yet."""


class News(NamedTuple):
    """What is new of a job: its state, or the error with which following it has ended."""

    job_id: str
    job: PreviewJob | None
    error: Exception | None

    def told(self) -> PreviewJob:
        """The job, or the error, raised with a traceback of its own: it reaches others too."""
        if self.job is None:
            raise self.error.with_traceback(None) if self.error is not None else AssertionError(self.job_id)
        return self.job


class _Followed:
    """A job that is followed: its poller, what the poller calls, and the version that was told last."""

    __slots__ = ("listener", "poller", "version")

    def __init__(self, poller: Poller, listener: Callable[[], None]) -> None:
        self.poller = poller
        self.listener = listener
        self.version = 0
        poller.listeners.add(listener)


@contextmanager
def followed(watching: Watching, bucket: Bucket, job_ids: Iterable[str], call: Call) -> Iterator[ManyJobs]:
    """Jobs of a bucket, followed while the context is open. An id that is given twice is followed once."""
    watching.check_open()
    many = ManyJobs(watching, bucket, job_ids, call)
    watching.take_places(call.caller, many.left)
    watching.count(+1)
    try:
        yield many
    finally:
        many.close()
        watching.count(-1)


class ManyJobs:
    """The jobs of a stream."""

    def __init__(self, watching: Watching, bucket: Bucket, job_ids: Iterable[str], call: Call) -> None:
        self._watching = watching
        self._bucket = bucket
        self._call = call
        self._waiting = deque(dict.fromkeys(job_ids))
        """Jobs that are not followed yet, or were let go."""
        self._followed: dict[str, _Followed] = {}
        self._placed: set[str] = set()
        """Jobs that hold a place."""
        self._news: dict[str, None] = {}
        """Jobs with news, in the order in which it came."""
        self._awake = asyncio.Event()

    @property
    def left(self) -> int:
        """Number of jobs whose end or error has not been told."""
        return len(self._waiting) + len(self._followed)

    async def events(self) -> AsyncGenerator[News | None]:
        """The latest of each job until all have ended; None is a heartbeat."""
        limits = self._watching.limits
        told = time.monotonic()
        end = told + limits.stream
        while self.left:
            self._watching.check_open()
            if (now := time.monotonic()) >= end:
                raise stream_limit()
            self._start()
            news = self._next()
            if news is None:
                if now - told < limits.heartbeat:
                    await self._wake(min(end, told + limits.heartbeat) - now)
                    continue
            elif news.error is not None or news.job is None or self._followed[news.job_id].poller.is_over:
                self.drop(news.job_id)
            yield news
            told = time.monotonic()
            # A handler that only writes could not be cancelled between two of gRPC's steps (ADR 20).
            await asyncio.sleep(0)

    def drop(self, job_id: str) -> None:
        """Follow a job no longer."""
        if job_id in self._followed:
            self._leave(job_id)
            self._watching.free_places(self._call.caller, 1)

    def close(self) -> None:
        """Follow no job any longer."""
        self._watching.free_places(self._call.caller, self.left)
        self._waiting.clear()
        for job_id in list(self._followed):
            self._leave(job_id)

    def _start(self) -> None:
        """Follow further jobs, as there are places."""
        while self._waiting and len(self._placed) < PLACES:
            job_id = self._waiting.popleft()
            poller, _ = self._watching.join(self._bucket, job_id, self._call.caller, self._call.trace)
            self._followed[job_id] = _Followed(poller, partial(self._notice, job_id))
            self._placed.add(job_id)
            if poller.tried:
                self._notice(job_id)

    def _leave(self, job_id: str) -> None:
        found = self._followed.pop(job_id)
        found.poller.listeners.discard(found.listener)
        self._watching.leave(found.poller, self._call.trace)
        self._placed.discard(job_id)
        self._news.pop(job_id, None)

    def _notice(self, job_id: str) -> None:
        """Take note that a job's poller has read, or has ended. Called by the poller."""
        found = self._followed[job_id]
        if found.poller.version == found.version and found.poller.error is None:
            # It failed for the first time, and tries again: that may take long.
            self._placed.discard(job_id)
        elif found.poller.is_over and job_id not in self._placed and len(self._placed) >= PLACES:
            self._leave(job_id)
            self._waiting.appendleft(job_id)
        else:
            if found.poller.is_over:
                self._placed.add(job_id)
            self._news[job_id] = None
        self._awake.set()

    def _next(self) -> News | None:
        """The next news; None: there is none."""
        if not self._news:
            return None
        job_id = next(iter(self._news))
        del self._news[job_id]
        self._placed.discard(job_id)
        found = self._followed[job_id]
        poller = found.poller
        if poller.version == found.version:
            return News(job_id, None, poller.error)
        if poller.error is not None:
            self._news[job_id] = None  # after its last state
        found.version = poller.version
        return News(job_id, poller.latest, None)

    async def _wake(self, seconds: float) -> None:
        """Wait for news, at most so long."""
        self._awake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._awake.wait()
        except TimeoutError:
            pass
