"""The poller of one job: polls until it has ended, follows what others read, and holds the latest state."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.jobs.polling import FOLLOWER_JITTER, Schedule
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.job_states import TERMINAL
from docpreview_gateway.upstream.operations import GetJob
from docpreview_gateway.upstream.wire.refusals import is_transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.jobs.ports import CallbackTrust, LastSeen, PollTracing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.model.trace_context import Trace
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.upstream.ports import JobFeed


KNOWN_SECONDS = 10.0
"""While callbacks come, the first state that a watcher gets is at most so old."""


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """Durations of watches, in seconds, and their number."""

    heartbeat: float = 15.0
    """Longest time between two messages of a stream."""
    stream: float = 300.0
    """Longest lifetime of a stream."""
    poll: float = 10.0
    """Timeout of one poll."""
    jobs: int = 10_000
    """Most jobs that streams of many jobs follow together, not in seconds."""
    schedule: Schedule = field(default_factory=Schedule)


class Poller:
    """Polls one job until it has ended, and holds its latest state."""

    __slots__ = (
        "_bucket",
        "_callbacks",
        "_caller",
        "_feed",
        "_follows",
        "_is_reading",
        "_jitter",
        "_job_id",
        "_last_seen",
        "_limits",
        "_loop",
        "_refreshing",
        "_seen_at",
        "_times",
        "_tracing",
        "_upstream",
        "_waiting",
        "error",
        "key",
        "latest",
        "listeners",
        "subscribers",
        "task",
        "tried",
        "upstream_request_id",
        "version",
        "watcher_traces",
    )

    def __init__(  # noqa: PLR0913 - the first three vary, the rest is bound once by Watching
        self,
        bucket: Bucket,
        job_id: str,
        caller: Caller,
        *,
        upstream: Upstream,
        times: CloudTimes,
        limits: WatchLimits,
        jitter: Callable[[], float],
        feed: JobFeed | None,
        tracing: PollTracing | None,
        callbacks: CallbackTrust | None,
        last_seen: LastSeen | None,
    ) -> None:
        self.key = (bucket.name, job_id)
        self.subscribers = 0
        self.listeners: set[Callable[[], None]] = set()
        """Called at every change of what follows."""
        self.tried = False
        """Whether a poll has ended, with or without success."""
        self.watcher_traces: list[Trace] = []
        self.latest: PreviewJob | None = None
        self.version = 0
        self.error: Exception | None = None
        self.upstream_request_id = ""
        self._bucket = bucket
        self._job_id = job_id
        self._caller = caller
        self._upstream = upstream
        self._times = times
        self._limits = limits
        self._jitter = jitter
        self._feed = feed
        self._tracing = tracing
        self._callbacks = callbacks
        self._last_seen = last_seen
        self._follows = False
        self._is_reading = False
        self._seen_at = -KNOWN_SECONDS
        self._refreshing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[bool]] = set()
        self.task = self._loop.create_task(self._run(), name=f"poll {job_id}")

    async def changed(self, seconds: float | None) -> bool:
        """Wait at most `seconds` for a new state or the end. Returns whether there was one; None waits forever."""
        # Not asyncio.wait for one future of all, which takes 2 KiB in every watch.
        waiting: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.add(waiting)
        timer = None if seconds is None else self._loop.call_later(max(0.0, seconds), _end, waiting, False)  # noqa: FBT003
        try:
            return await waiting
        finally:
            self._waiting.discard(waiting)
            if timer is not None:
                timer.cancel()

    def raise_error(self) -> None:
        """Raise the error with which polling has ended, if it has."""
        if self.error is not None:
            # One error reaches many subscribers; each raises it with a traceback of its own.
            raise self.error.with_traceback(None)

    def end(self, error: Exception) -> None:
        """Stop polling and raise `error` in all subscriptions."""
        self.error, self.tried = error, True
        self.stop()
        self._wake()

    def told(self, job: PreviewJob) -> None:
        """Take a state that somebody else has read, and poll no more if it is the last one."""
        self._publish(job)
        if self.is_over:
            self.task.cancel()

    def saw(self, job: PreviewJob) -> None:
        """Take a state that a call of this process has read, as if a poll had; not the poller's own."""
        if not self._is_reading and not self.is_over:
            was_running = self.latest is not None
            self.told(job)
            if self.is_over and was_running and self._callbacks is not None:
                self._callbacks.polled(job)

    def refresh(self) -> None:
        """Read the job now, in the background, if its state is old: while callbacks come, polls are rare."""
        is_old = self._loop.time() - self._seen_at > KNOWN_SECONDS
        if is_old and self._is_called_back and not self.is_over and not self._is_reading and self._refreshing is None:
            self._refreshing = self._loop.create_task(self._refresh(), name=f"refresh {self._job_id}")

    async def refreshed(self) -> None:
        """Wait for the read that `refresh` has begun, if there is one."""
        if self._refreshing is not None:
            await asyncio.wait((self._refreshing,), timeout=self._limits.poll)

    def stop(self) -> None:
        """Poll no more."""
        self.task.cancel()
        if self._refreshing is not None:
            self._refreshing.cancel()

    async def _refresh(self) -> None:
        try:
            self._polled(await self._read(None))
        except GatewayError:
            # The next poll tells what is wrong.
            self._seen_at = self._loop.time()
        finally:
            self._refreshing = None
        if self.is_over:
            self.task.cancel()

    async def _run(self) -> None:
        failures = 0
        if (known := await self._known()) is not None:
            self._publish(known)
            _ = await self._follow(failures)
        while not self.is_over:
            try:
                job = await self._poll()
            except Exception as error:  # noqa: BLE001 - the subscribers must get any error
                failures += 1
                if failures >= self._limits.schedule.patience or not is_transient(error):
                    self.end(error)
                    return
                if not self.tried:
                    self.tried = True
                    self._tell()
            else:
                failures = 0
                self._polled(job)
            failures = await self._follow(failures)

    async def _known(self) -> PreviewJob | None:
        """The job as the caches have it, while its end is called back and no poll is due; None: it is to be read."""
        if self._last_seen is None or not self._callbacks_of(None):
            return None
        known = await self._last_seen(self._bucket, self._job_id, within=KNOWN_SECONDS)
        return known if known is not None and self._callbacks_of(known.queue_id) else None

    async def _follow(self, failures: int) -> int:
        """Take what others read, until the job has ended or this replica should poll. Returns the failures since."""
        while not self.is_over and (shared := await self._next(failures)) is not None:
            failures = 0
            self._publish(shared)
        return failures

    async def _next(self, failures: int) -> PreviewJob | None:
        """As `_shared`, for an interval. A long one ends soon after callbacks are not relied upon any more."""
        seconds = self._interval(failures)
        if not self._is_called_back:
            return await self._shared(seconds)
        end = self._loop.time() + seconds
        while self._is_called_back and (left := end - self._loop.time()) > 0:
            shared = await self._shared(min(left, self._limits.schedule.cap))
            if shared is not None:
                return shared
        return None

    @property
    def _is_called_back(self) -> bool:
        # Of a job that was never read the queue is not known.
        return self.latest is not None and self._callbacks_of(self.latest.queue_id)

    def _callbacks_of(self, queue_id: str | None) -> bool:
        if self._callbacks is None or (self._feed is not None and not self._feed.hears):
            # A callback may come to another replica, of which this one would not hear.
            return False
        return self._callbacks.works(self._bucket.name, queue_id)

    def _polled(self, job: PreviewJob) -> None:
        """Take a state that a poll has found. Its end is one that no callback told, unless it had ended before."""
        was_running = self.latest is not None
        self._publish(job)
        if self.is_over and was_running and self._callbacks is not None and not self._follows:
            self._callbacks.polled(job)

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.latest is not None and self.latest.state in TERMINAL

    async def _shared(self, seconds: float) -> PreviewJob | None:
        """The job as soon as another replica has read it; None after `seconds`, when this replica should poll."""
        if self._feed is None:
            await asyncio.sleep(seconds)
            return None
        job = await self._feed.next(self._bucket, self._job_id, seconds, self._missed)
        self._follows = job is not None
        return job

    async def _missed(self) -> PreviewJob | None:
        """The job if another replica has read its end before this one listened: only a rare poll would find it."""
        if self._last_seen is None or not self._is_called_back:
            return None
        job = await self._last_seen(self._bucket, self._job_id, within=self._limits.schedule.backstop)
        return job if job is not None and job.state in TERMINAL else None

    async def _poll(self) -> PreviewJob:
        if self._tracing is None:
            return await self._read(None)
        with self._tracing.poll(self._job_id, self.watcher_traces) as trace:
            return await self._read(trace)

    async def _read(self, trace: Trace | None) -> PreviewJob:
        # The first poll may be answered from a cache: watching a job that has ended costs no call to the cloud.
        deadline = time.monotonic() + self._limits.poll
        call = Call("", deadline, self._caller, no_cache=self.latest is not None, trace=trace)
        self._is_reading = True
        try:
            return await self._upstream(GetJob(self._bucket, self._job_id), call)
        finally:
            self._is_reading = False
            self.upstream_request_id = call.response.upstream_request_id
            self._follows = self._feed is not None and call.response.cache in {"hit", "coalesced"}

    def _publish(self, job: PreviewJob) -> None:
        self._seen_at = self._loop.time()
        if job != self.latest:
            self.tried = True
            self.latest = job
            self.version += 1
            self._wake()

    def _wake(self) -> None:
        for waiting in self._waiting:
            _end(waiting, True)  # noqa: FBT003
        self._tell()

    def _tell(self) -> None:
        for listener in tuple(self.listeners):
            listener()

    def _interval(self, failures: int) -> float:
        job = self.latest
        age = 0.0
        if job is not None and job.HasField("create_time"):
            age = self._times.now(self._bucket.ci_host) - job.create_time.seconds
        paused = job is not None and job.state == PreviewJob.STATE_PAUSED
        jitter = FOLLOWER_JITTER if self._follows else self._jitter()
        return self._limits.schedule.interval(
            max(0.0, age), failures=failures, paused=paused, called_back=self._is_called_back, jitter=jitter
        )


def _end(waiting: asyncio.Future[bool], changed: bool) -> None:  # noqa: FBT001 - the result
    if not waiting.done():
        waiting.set_result(changed)
