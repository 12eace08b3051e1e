"""One poller per job, shared by all calls that wait for the job or watch it, alone or among others (`many.py`).

A job that another replica has read counts as a poll. A replica that only follows waits a little longer than the one
that polled, so one replica polls for all; when it is lost, another one polls within an interval. Replicas elect no
leader for this.

A poller starts with the first subscription and is cancelled with the last. Subscribers get the latest state, not a
queue of states: a slow reader takes no memory, and skips only states that were replaced in the meantime.
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
from docpreview_gateway.jobs.polling import FOLLOWER_JITTER, Schedule
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import ANONYMOUS, Caller
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.job_states import TERMINAL
from docpreview_gateway.upstream.operations import GetJob
from docpreview_gateway.upstream.wire.refusals import is_transient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from docpreview_gateway.jobs.ports import CallbackTrust, JobShares, JobsTelemetry, PollTracing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.trace_context import Trace
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.upstream.ports import JobFeed

RECONNECT_SECONDS = 1.0
"""Seconds after which a disconnected watcher should watch again."""


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


class Watching:
    """The running pollers, at most one per job. `jitter` gives numbers in [0, 1).

    `feed` has the jobs that other replicas read; None: a single replica, or no shared state. `callbacks` knows whether
    the ends of jobs are called back; None: they are not. `shares` divides the jobs
    that streams of many jobs follow among callers; None: a caller may have all.
    """

    def __init__(  # noqa: PLR0913 - each is a collaborator, and wiring names them
        self,
        upstream: Upstream,
        times: CloudTimes,
        telemetry: JobsTelemetry,
        *,
        limits: WatchLimits,
        jitter: Callable[[], float],
        feed: JobFeed | None = None,
        tracing: PollTracing | None = None,
        shares: JobShares | None = None,
        callbacks: CallbackTrust | None = None,
    ) -> None:
        self._telemetry = telemetry
        self.limits = limits
        self._shares = shares
        self._free = limits.jobs
        self._poller = partial(
            Poller,
            upstream=upstream,
            times=times,
            limits=limits,
            jitter=jitter,
            feed=feed,
            tracing=tracing,
            callbacks=callbacks,
        )
        self._pollers: dict[tuple[str, str], Poller] = {}
        self._watchers = 0
        self.draining = False

    @asynccontextmanager
    async def subscribe(
        self, bucket: Bucket, job_id: str, caller: Caller = ANONYMOUS, trace: Trace | None = None
    ) -> AsyncIterator[Subscription]:
        """Subscribe to a job while the context is open. The poller reads as the caller of its first subscription."""
        self.check_open()
        poller, shared = self.join(bucket, job_id, caller, trace)
        self.count(+1)
        try:
            yield Subscription(poller, self.limits, shared=shared)
        finally:
            self.leave(poller, trace)
            self.count(-1)

    def told(self, bucket: Bucket, job: PreviewJob) -> None:
        """Give those who follow the job here this state of it, which somebody else has read."""
        poller = self._pollers.get((bucket.name, job.job_id))
        if poller is not None:
            poller.told(job)

    def follows(self, bucket: str, job_id: str) -> bool:
        """Whether somebody waits for the job or watches it here."""
        return (bucket, job_id) in self._pollers

    def check_open(self) -> None:
        """Raise SHUTTING_DOWN while the gateway stops."""
        if self.draining:
            raise _shutting_down()

    def join(self, bucket: Bucket, job_id: str, caller: Caller, trace: Trace | None) -> tuple[Poller, bool]:
        """The poller of a job, and whether it ran before. To be left."""
        key = (bucket.name, job_id)
        poller = self._pollers.get(key)
        shared = poller is not None
        if poller is None:
            poller = self._start(key, bucket, caller)
        poller.subscribers += 1
        if trace is not None:
            poller.watcher_traces.append(trace)
        return poller, shared

    def leave(self, poller: Poller, trace: Trace | None) -> None:
        """Leave a poller, which ends when nobody is left."""
        poller.subscribers -= 1
        if trace is not None:
            poller.watcher_traces.remove(trace)
        if not poller.subscribers:
            poller.task.cancel()
            self._forget(poller.key, poller)

    def take_places(self, caller: Caller, jobs: int) -> None:
        """Count so many jobs of a stream. OVERLOADED beyond `limits.jobs`, CONCURRENCY_LIMITED beyond the share."""
        if jobs > self._free:
            raise GatewayError(
                reasons.ERROR_REASON_OVERLOADED,
                f"the gateway has room for {self._free} more jobs in streams of WatchPreviewJobs; nothing was sent",
                retry_after=RECONNECT_SECONDS,
            )
        if self._shares is not None:
            self._shares.enter(caller.name, jobs)
        self._free -= jobs

    def free_places(self, caller: Caller, jobs: int) -> None:
        """Count so many jobs no longer."""
        self._free += jobs
        if self._shares is not None:
            self._shares.leave(caller.name, jobs)

    def drain(self) -> None:
        """End every watch and wait with SHUTTING_DOWN, and refuse new ones."""
        self.draining = True
        for poller in list(self._pollers.values()):
            poller.end(_shutting_down())

    async def close(self) -> None:
        """Stop all pollers."""
        tasks = [poller.task for poller in self._pollers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: tuple[str, str], bucket: Bucket, caller: Caller) -> Poller:
        poller = self._poller(bucket, key[1], caller)
        self._pollers[key] = poller
        poller.task.add_done_callback(lambda _task: self._forget(key, poller))
        self.count(0)
        return poller

    def _forget(self, key: tuple[str, str], poller: Poller) -> None:
        """Remove an ended poller, so that the next subscriber starts a new one."""
        if self._pollers.get(key) is poller:
            del self._pollers[key]
            self.count(0)

    def count(self, change: int) -> None:
        """Record that there are so many more calls that wait or watch."""
        self._watchers += change
        self._telemetry.watching(pollers=len(self._pollers), watchers=self._watchers)


class Poller:
    """Polls one job until it has ended, and holds its latest state."""

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
        self._follows = False
        self._loop = asyncio.get_running_loop()
        self._changed = self._loop.create_future()
        self.task = self._loop.create_task(self._run(), name=f"poll {job_id}")

    async def changed(self, seconds: float | None) -> bool:
        """Wait at most `seconds` for a new state or the end. Returns whether there was one; None waits forever."""
        done, _ = await asyncio.wait((self._changed,), timeout=seconds)
        return bool(done)

    def end(self, error: Exception) -> None:
        """Stop polling and raise `error` in all subscriptions."""
        self.error, self.tried = error, True
        self.task.cancel()
        self._wake()

    def told(self, job: PreviewJob) -> None:
        """Take a state that somebody else has read, and poll no more if it is the last one."""
        self._publish(job)
        if self.is_over:
            self.task.cancel()

    async def _run(self) -> None:
        failures = 0
        while True:
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
            while not self.is_over and (shared := await self._shared(self._interval(failures))) is not None:
                failures = 0
                self._publish(shared)
            if self.is_over:
                return

    def _polled(self, job: PreviewJob) -> None:
        """Take a state that a poll has found. Its end is one that no callback told, unless it had ended before."""
        was_running = self.latest is not None
        self._publish(job)
        if self.is_over and was_running and self._callbacks is not None and not self._follows:
            self._callbacks.polled(self._bucket.name, self._job_id)

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.latest is not None and self.latest.state in TERMINAL

    async def _shared(self, seconds: float) -> PreviewJob | None:
        """The job as soon as another replica has read it; None after `seconds`, when this replica should poll."""
        if self._feed is None:
            await asyncio.sleep(seconds)
            return None
        job = await self._feed.next(self._bucket, self._job_id, seconds)
        self._follows = job is not None
        return job

    async def _poll(self) -> PreviewJob:
        if self._tracing is None:
            return await self._read(None)
        with self._tracing.poll(self._job_id, self.watcher_traces) as trace:
            return await self._read(trace)

    async def _read(self, trace: Trace | None) -> PreviewJob:
        # The first poll may be answered from a cache: watching a job that has ended costs no call to the cloud.
        deadline = time.monotonic() + self._limits.poll
        call = Call("", deadline, self._caller, no_cache=self.latest is not None, trace=trace)
        try:
            return await self._upstream(GetJob(self._bucket, self._job_id), call)
        finally:
            self.upstream_request_id = call.response.upstream_request_id
            self._follows = self._feed is not None and call.response.cache in {"hit", "coalesced"}

    def _publish(self, job: PreviewJob) -> None:
        if job != self.latest:
            self.tried = True
            self.latest = job
            self.version += 1
            self._wake()

    def _wake(self) -> None:
        self._changed.set_result(None)
        self._changed = self._loop.create_future()
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
        called_back = self._callbacks is not None and self._callbacks.works(self._bucket.name)
        return self._limits.schedule.interval(
            max(0.0, age), failures=failures, paused=paused, called_back=called_back, jitter=jitter
        )


class Subscription:
    """One subscriber's view of a job."""

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
        """The current state and each later one until the job has ended; None is a heartbeat."""
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
                raise stream_limit()
            changed = await self._poller.changed(min(remaining, self._limits.heartbeat))
            if not changed and time.monotonic() < end:
                yield None

    async def ended(self, until: float) -> PreviewJob:
        """The job once it has ended, or its state at the instant `until`. The first poll is always awaited."""
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
            # One error reaches many subscribers; each raises it with a traceback of its own.
            raise self._poller.error.with_traceback(None)


def stream_limit() -> GatewayError:
    """The end of a stream that has been open for the longest time."""
    return _again(reasons.ERROR_REASON_WATCH_LIMIT_REACHED, "the stream has reached its time limit; watch again")


def _shutting_down() -> GatewayError:
    return _again(reasons.ERROR_REASON_SHUTTING_DOWN, "the gateway is stopping; try again")


def _again(reason: reasons.ErrorReason.ValueType, message: str) -> GatewayError:
    return GatewayError(reason, message, retry_after=RECONNECT_SECONDS)
