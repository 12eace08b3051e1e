"""One poller per job, shared by everybody who waits for it or watches it.

What another replica reads counts as a look, and who was told so waits a little longer than who looked. So one replica
polls for all, and when it is lost another does within one interval: there is no other agreement between them.

A poller lives as long as somebody listens: it starts with the first subscription and is cancelled with the last.
Subscribers get the latest state, not a queue of states, so a slow reader costs nothing and misses nothing that lasts.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.jobs.polling import FOLLOWS, Schedule
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import ANONYMOUS, Caller
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.job_states import TERMINAL
from docpreview_gateway.upstream.operations import GetJob
from docpreview_gateway.upstream.wire.refusals import RETRYABLE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from docpreview_gateway.jobs.ports import JobsTelemetry, PollTracing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.model.trace_context import Trace
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.upstream.ports import JobFeed

RECONNECT_SECONDS = 1.0
"""What a watcher is told to wait before it watches again elsewhere."""


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """Times of watches, in seconds: between heartbeats, of a whole stream, of one poll."""

    heartbeat: float = 15.0
    stream: float = 300.0
    poll: float = 10.0
    schedule: Schedule = field(default_factory=Schedule)


class Watching:
    """The pollers that run now, at most one per job. `jitter` gives numbers in [0, 1).

    `feed` tells what other replicas see; None: there are none, or they share nothing.
    """

    def __init__(  # noqa: PLR0913 - each is a collaborator, and wiring names them
        self,
        upstream: Upstream,
        clock: Clock,
        telemetry: JobsTelemetry,
        *,
        limits: WatchLimits,
        jitter: Callable[[], float],
        feed: JobFeed | None = None,
        tracing: PollTracing | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._limits = limits
        self._poller = partial(
            Poller, upstream=upstream, clock=clock, limits=limits, jitter=jitter, feed=feed, tracing=tracing
        )
        self._pollers: dict[tuple[str, str], Poller] = {}
        self._watchers = 0
        self._draining = False

    @asynccontextmanager
    async def subscribe(
        self, bucket: Bucket, job_id: str, caller: Caller = ANONYMOUS, trace: Trace | None = None
    ) -> AsyncIterator[Subscription]:
        """Listen to a job for as long as the context is open. Who comes first is the one that the poller waits as."""
        if self._draining:
            raise _shutting_down()
        key = (bucket.name, job_id)
        poller = self._pollers.get(key)
        shared = poller is not None
        if poller is None:
            poller = self._start(key, bucket, caller)
        poller.listeners += 1
        if trace is not None:
            poller.watchers.append(trace)
        self._count(+1)
        try:
            yield Subscription(poller, self._limits, shared=shared)
        finally:
            poller.listeners -= 1
            if trace is not None:
                poller.watchers.remove(trace)
            if not poller.listeners:
                poller.task.cancel()
                self._forget(key, poller)
            self._count(-1)

    def drain(self) -> None:
        """End every watch and wait with SHUTTING_DOWN, and refuse new ones."""
        self._draining = True
        for poller in self._pollers.values():
            poller.end(_shutting_down())

    async def close(self) -> None:
        """Stop what still polls."""
        tasks = [poller.task for poller in self._pollers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: tuple[str, str], bucket: Bucket, caller: Caller) -> Poller:
        poller = self._poller(bucket, key[1], caller)
        self._pollers[key] = poller
        poller.task.add_done_callback(lambda _task: self._forget(key, poller))
        return poller

    def _forget(self, key: tuple[str, str], poller: Poller) -> None:
        """A poller that ended must not be joined: the next subscriber starts a new one."""
        if self._pollers.get(key) is poller:
            del self._pollers[key]
            self._count(0)

    def _count(self, change: int) -> None:
        self._watchers += change
        self._telemetry.watching(pollers=len(self._pollers), watchers=self._watchers)


class Poller:
    """Looks at one job until it has ended, and keeps what it saw last."""

    def __init__(  # noqa: PLR0913 - the first three vary, the rest is bound once by Watching
        self,
        bucket: Bucket,
        job_id: str,
        caller: Caller,
        *,
        upstream: Upstream,
        clock: Clock,
        limits: WatchLimits,
        jitter: Callable[[], float],
        feed: JobFeed | None,
        tracing: PollTracing | None,
    ) -> None:
        self.listeners = 0
        self.watchers: list[Trace] = []
        self.latest: PreviewJob | None = None
        self.version = 0
        self.error: Exception | None = None
        self.upstream_request_id = ""
        self._bucket = bucket
        self._job_id = job_id
        self._caller = caller
        self._upstream = upstream
        self._clock = clock
        self._limits = limits
        self._jitter = jitter
        self._feed = feed
        self._tracing = tracing
        self._follows = False
        self._loop = asyncio.get_running_loop()
        self._changed = self._loop.create_future()
        self.task = self._loop.create_task(self._run(), name=f"poll {job_id}")

    async def changed(self, seconds: float | None) -> bool:
        """Wait until there is something new, at most `seconds`; whether there is."""
        done, _ = await asyncio.wait((self._changed,), timeout=seconds)
        return bool(done)

    def end(self, error: Exception) -> None:
        """Tell the listeners that nothing will follow."""
        self.error = error
        self.task.cancel()
        self._wake()

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                job = await self._look()
            except Exception as error:  # noqa: BLE001 - whatever it is, the listeners must hear of it
                failures += 1
                if failures >= self._limits.schedule.patience or getattr(error, "reason", None) not in RETRYABLE:
                    self.end(error)
                    return
            else:
                failures = 0
                self._publish(job)
            while not self._is_over and (told := await self._told(self._interval(failures))) is not None:
                failures = 0
                self._publish(told)
            if self._is_over:
                return

    @property
    def _is_over(self) -> bool:
        return self.latest is not None and self.latest.state in TERMINAL

    async def _told(self, seconds: float) -> PreviewJob | None:
        """The job as another replica reads it within so many seconds; None when it is our turn to look."""
        if self._feed is None:
            await asyncio.sleep(seconds)
            return None
        job = await self._feed.next(self._bucket, self._job_id, seconds)
        self._follows = job is not None
        return job

    async def _look(self) -> PreviewJob:
        if self._tracing is None:
            return await self._read(None)
        with self._tracing.poll(self._job_id, self.watchers) as trace:
            return await self._read(trace)

    async def _read(self, trace: Trace | None) -> PreviewJob:
        # The first look may be answered from a cache: a job that has ended costs its watchers nothing.
        deadline = time.monotonic() + self._limits.poll
        call = Call("", deadline, self._caller, no_cache=self.latest is not None, trace=trace)
        try:
            return await self._upstream(GetJob(self._bucket, self._job_id), call)
        finally:
            self.upstream_request_id = call.response.upstream_request_id
            self._follows = self._feed is not None and call.response.cache in {"hit", "coalesced"}

    def _publish(self, job: PreviewJob) -> None:
        if job != self.latest:
            self.latest = job
            self.version += 1
            self._wake()

    def _wake(self) -> None:
        self._changed.set_result(None)
        self._changed = self._loop.create_future()

    def _interval(self, failures: int) -> float:
        job = self.latest
        age = self._clock.now() - job.create_time.seconds if job is not None and job.HasField("create_time") else 0.0
        paused = job is not None and job.state == PreviewJob.STATE_PAUSED
        jitter = FOLLOWS if self._follows else self._jitter()
        return self._limits.schedule.interval(max(0.0, age), failures=failures, paused=paused, jitter=jitter)


class Subscription:
    """One listener's view of a job."""

    def __init__(self, poller: Poller, limits: WatchLimits, *, shared: bool) -> None:
        self._poller = poller
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self.cache: Literal["miss", "coalesced"] = "coalesced" if shared else "miss"

    @property
    def upstream_request_id(self) -> str:
        """The cloud's id of the poller's last request."""
        return self._poller.upstream_request_id

    async def states(self) -> AsyncGenerator[PreviewJob | None]:
        """The present state, then each later one, until the job has ended; None when nothing changed for a while."""
        end = time.monotonic() + self._limits.stream
        seen = 0
        while True:
            if self._poller.version != seen:
                seen, job = self._poller.version, self._poller.latest
                yield job
                if job is not None and job.state in TERMINAL:
                    return
                continue
            self._raise_if_over()
            remaining = end - time.monotonic()
            if remaining <= 0:
                raise _again(reasons.ERROR_REASON_WATCH_LIMIT_REACHED, "the stream has been open for long; watch again")
            changed = await self._poller.changed(min(remaining, self._limits.heartbeat))
            if not changed and time.monotonic() < end:
                yield None

    async def ended(self, until: float) -> PreviewJob:
        """The job when it has ended, or as it is at the instant `until`. The first poll is always waited for."""
        while True:
            job = self._poller.latest
            if job is not None and job.state in TERMINAL:
                return job
            self._raise_if_over()
            remaining = until - time.monotonic()
            if job is not None and remaining <= 0:
                return job
            await self._poller.changed(remaining if job is not None else None)

    def _raise_if_over(self) -> None:
        if self._poller.error is not None:
            # One error reaches many listeners; each raises it with a trace of its own.
            raise self._poller.error.with_traceback(None)


def _shutting_down() -> GatewayError:
    return _again(reasons.ERROR_REASON_SHUTTING_DOWN, "the gateway is stopping; try again")


def _again(reason: reasons.ErrorReason.ValueType, message: str) -> GatewayError:
    return GatewayError(reason, message, retry_after=RECONNECT_SECONDS)
