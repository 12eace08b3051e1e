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
from functools import partial
from typing import TYPE_CHECKING, Literal

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.jobs.poller import Poller, WatchLimits
from docpreview_gateway.model.callers import ANONYMOUS, Caller
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.job_states import TERMINAL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.jobs.ports import CallbackTrust, JobShares, JobsTelemetry, LastSeen, PollTracing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.trace_context import Trace
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.upstream.ports import JobFeed

RECONNECT_SECONDS = 1.0
"""Seconds after which a disconnected watcher should watch again."""


class Watching:
    """The running pollers, at most one per job. `jitter` gives numbers in [0, 1).

    `feed` has the jobs that other replicas read; None: a single replica, or no shared state. `callbacks` knows whether
    the ends of jobs are called back; None: they are not. `last_seen` has a job as the caches do, without a read; None:
    it is not asked. `shares` divides the jobs that streams of many jobs follow among callers; None: a caller may have
    all.
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
        last_seen: LastSeen | None = None,
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
            last_seen=last_seen,
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

    def told(self, bucket: Bucket, job: PreviewJob) -> bool:
        """Give those who follow the job here a state that somebody else has read; whether any took it as running."""
        poller = self._pollers.get((bucket.name, job.job_id))
        if poller is None or poller.is_over:
            return False
        was_running = poller.latest is not None
        poller.told(job)
        return was_running

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
