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
from functools import partial
from typing import TYPE_CHECKING, Literal

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.jobs.poller import Poller, WatchLimits
from docpreview_gateway.model.callers import ANONYMOUS, Caller
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.job_states import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.jobs.ports import CallbackTrust, JobShares, JobsTelemetry, LastSeen, PollTracing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import ResponseInfo
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

    def subscribe(
        self,
        bucket: Bucket,
        job_id: str,
        caller: Caller = ANONYMOUS,
        trace: Trace | None = None,
        response: ResponseInfo | None = None,
    ) -> Subscription:
        """A context in which a job is followed. The poller reads as the caller of its first subscription.

        `response` gets the facts of the poller: whether it ran before, and the cloud's id of its last request.
        """
        return Subscription(self, partial(self.join, bucket, job_id, caller, trace), trace, response)

    def told(self, bucket: Bucket, job: PreviewJob) -> bool:
        """Give those who follow the job here a state that somebody else has read; whether any took it as running."""
        poller = self._pollers.get((bucket.name, job.job_id))
        if poller is None or poller.is_over:
            return False
        was_running = poller.latest is not None
        poller.told(job)
        return was_running

    def saw(self, job: PreviewJob) -> None:
        """Give those who follow the job here a state that any call of this process has read."""
        if (poller := self._pollers.get((job.bucket, job.job_id))) is not None:
            poller.saw(job)

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
        else:
            poller.refresh()
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
            poller.stop()
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
        for poller in tuple(self._pollers.values()):
            poller.stop()
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
    """One subscriber's view of a job, while its context is open.

    Neither this nor its states are generators, each of which would take half a KiB in every watch.
    """

    __slots__ = ("_join", "_poller", "_response", "_trace", "_watching", "cache")

    def __init__(
        self,
        watching: Watching,
        join: Callable[[], tuple[Poller, bool]],
        trace: Trace | None,
        response: ResponseInfo | None,
    ) -> None:
        self._watching = watching
        self._join = join
        self._trace = trace
        self._response = response
        self._poller: Poller
        self.cache: Literal["miss", "coalesced"]

    async def __aenter__(self) -> Self:
        self._watching.check_open()
        self._poller, shared = self._join()
        del self._join  # it would be kept as long as the stream
        self._watching.count(+1)
        self.cache = "coalesced" if shared else "miss"
        if self._response is not None:
            self._response.cache = self.cache
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._response is not None:
            self._response.upstream_request_id = self.upstream_request_id
        self._watching.leave(self._poller, self._trace)
        self._watching.count(-1)

    @property
    def upstream_request_id(self) -> str:
        """The cloud's id of the poller's last request."""
        return self._poller.upstream_request_id

    def states(self) -> States:
        """The current state and each later one until the job has ended; None is a heartbeat."""
        return States(self._poller, self._watching.limits)

    async def ended(self, until: float) -> PreviewJob:
        """The job once it has ended, or its state at the instant `until`. The first poll is always awaited."""
        await self._poller.refreshed()
        while True:
            job = self._poller.latest
            if job is not None and job.state in TERMINAL:
                return job
            self._poller.raise_error()
            remaining = until - time.monotonic()
            if job is not None and remaining <= 0:
                return job
            await self._poller.changed(remaining if job is not None else None)


class States:
    """The states of a job, as `Subscription.states` gives them."""

    __slots__ = ("_end", "_heartbeat", "_is_told", "_poller", "_seen")

    def __init__(self, poller: Poller, limits: WatchLimits) -> None:
        self._poller = poller
        self._heartbeat = limits.heartbeat
        self._end = time.monotonic() + limits.stream
        self._seen = 0
        self._is_told = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PreviewJob | None:
        poller = self._poller
        if self._is_told:
            raise StopAsyncIteration
        if not self._seen:
            await poller.refreshed()
        while poller.version == self._seen:
            poller.raise_error()
            remaining = self._end - time.monotonic()
            if remaining <= 0:
                raise stream_limit()
            if not await poller.changed(min(remaining, self._heartbeat)) and time.monotonic() < self._end:
                return None
        self._seen = poller.version
        self._is_told = poller.is_over
        return poller.latest


def stream_limit() -> GatewayError:
    """The end of a stream that has been open for the longest time."""
    return _again(reasons.ERROR_REASON_WATCH_LIMIT_REACHED, "the stream has reached its time limit; watch again")


def _shutting_down() -> GatewayError:
    return _again(reasons.ERROR_REASON_SHUTTING_DOWN, "the gateway is stopping; try again")


def _again(reason: reasons.ErrorReason.ValueType, message: str) -> GatewayError:
    return GatewayError(reason, message, retry_after=RECONNECT_SECONDS)
