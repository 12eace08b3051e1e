"""Hints that jobs have ended: each makes the gateway read its job once, now.

A hint may be forged, repeated, late or about a job of somebody else. It costs at most one read of a job and second, and
nothing is kept of it: what is read is believed, and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal, Protocol

from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import GATEWAY
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.job_states import TERMINAL
from docpreview_gateway.storage.background import BackgroundTasks, loop_time
from docpreview_gateway.upstream.operations import GetJob
from docpreview_gateway.upstream.wire.refusals import is_transient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.callbacks.trust import Trust
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.upstream.cloud_clock import CloudTimes

READ_SECONDS = 10.0
AGAIN_SECONDS = 1.0
"""Between two reads of a job that hints ask for."""

AHEAD_SECONDS = (1.0, 2.0, 4.0)
"""Pauses before a job is read again that still ran, or could not be read: a callback may be ahead of the cloud."""

LATE_SECONDS = 30.0
"""A callback that comes longer after the end of its job is not one to rely upon, if it is no replay."""

MOST_AGAIN = 1_000
"""Jobs that are to be read again."""

MOST_READS = 64
"""Reads in flight; hints beyond are dropped, and polling finds what they told."""

MOST_REMEMBERED = 10_000
"""Jobs that were read in the last second."""

Outcome = Literal["read", "repeated", "full"]


class HintTelemetry(Protocol):
    """Counts hints."""

    def callback(self, outcome: str) -> None:
        """Count a callback, or a job that it names.

        `read`, `repeated`, `full`, `known` (ended before), `foreign` (no token of ours), `malformed`, `limited` (too
        many in a short time), or `failed`.
        """
        ...


class KnownJobs(Protocol):
    """The job API behind the caches."""

    async def __call__(self, operation: GetJob, call: Call) -> PreviewJob:
        """The job, read from the cloud."""
        ...

    async def last_seen(self, bucket: Bucket, job_id: str) -> PreviewJob | None:
        """The job as the caches have it, fresh or not; None: they do not."""
        ...


class Hints:
    """Reads the jobs that callbacks name. `read` fills the caches and tells the other replicas, `told` this one.

    `told` says whether the job was followed here. `trust` learns that the callback of a job has come, and so do the
    other replicas by `came`, given the names of the bucket and the job. `ended` is told the marker of a job that has
    ended. `times` has the clock by which a callback is late.
    """

    def __init__(  # noqa: PLR0913 - each is a collaborator, and wiring names them
        self,
        read: KnownJobs,
        telemetry: HintTelemetry,
        told: Callable[[Bucket, PreviewJob], bool],
        trust: Trust,
        ended: Callable[[str], Awaitable[None]],
        *,
        times: CloudTimes,
        came: Callable[[str, str], None] = lambda _bucket, _job_id: None,
    ) -> None:
        self._times = times
        self._came = came
        self._again: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._ended = ended
        self._read = read
        self._told = told
        self._trust = trust
        self._telemetry = telemetry
        self._tasks = BackgroundTasks()
        self._reading = 0
        self._read_at: dict[tuple[str, str], float] = {}

    def take(self, bucket: Bucket, job_id: str) -> Outcome:
        """Read a job in the background, unless it was read a moment ago, or too many are being read."""
        key, now = (bucket.name, job_id), time.monotonic()
        outcome: Outcome = "read"
        if now - self._read_at.get(key, -AGAIN_SECONDS) < AGAIN_SECONDS:
            outcome = "repeated"
        elif self._reading >= MOST_READS:
            outcome = "full"
        else:
            self._start(bucket, job_id, 0)
        self._telemetry.callback(outcome)
        return outcome

    async def drained(self) -> None:
        """Wait until no job is being read, and read none again."""
        await self._tasks.drain()
        for timer in self._again.values():
            timer.cancel()
        self._again.clear()

    def _start(self, bucket: Bucket, job_id: str, tries: int) -> None:
        key = (bucket.name, job_id)
        if (timer := self._again.pop(key, None)) is not None:
            timer.cancel()
        if self._reading >= MOST_READS:
            return
        self._remember(key, time.monotonic())
        self._reading += 1
        _ = self._tasks.start(self._job(bucket, job_id, tries), "read of a job that was called back")

    def _start_again(self, bucket: Bucket, job_id: str, tries: int) -> None:
        """Read a job again after a pause, `tries` times before; no more than a few times."""
        key = (bucket.name, job_id)
        if tries < len(AHEAD_SECONDS) and len(self._again) < MOST_AGAIN and key not in self._again:
            loop = asyncio.get_running_loop()
            self._again[key] = loop.call_later(AHEAD_SECONDS[tries], self._start, bucket, job_id, tries + 1)

    async def _job(self, bucket: Bucket, job_id: str, tries: int) -> None:
        try:
            known = await self._read.last_seen(bucket, job_id)
            if known is not None and known.state in TERMINAL:
                # It does not change any more, and a callback may come twice.
                self._telemetry.callback("known")
                _ = self._told(bucket, known)
                self._trust.came_late(bucket.name, job_id)
                return
            call = Call("", loop_time() + READ_SECONDS, GATEWAY, no_cache=True)
            job = await self._read(GetJob(bucket, job_id), call)
            followed = self._told(bucket, job)
            if job.state not in TERMINAL:
                self._start_again(bucket, job_id, tries)
                return
            self._learn(bucket, job, followed=followed)
            await self._ended(call.response.marker)
        except GatewayError as error:
            self._telemetry.callback("failed")
            if is_transient(error):
                self._start_again(bucket, job_id, tries)
        finally:
            self._reading -= 1

    def _learn(self, bucket: Bucket, job: PreviewJob, *, followed: bool) -> None:
        """Learn from an end that a callback told, unless it is an old one: that may be a replay."""
        ago = self._times.now(bucket.ci_host) - job.end_time.seconds if job.HasField("end_time") else 0.0
        if ago <= LATE_SECONDS:
            self._trust.called_back(bucket.name, job.job_id)
            self._came(bucket.name, job.job_id)
        elif followed:
            self._trust.missed(bucket.name)

    def _remember(self, key: tuple[str, str], now: float) -> None:
        self._read_at[key] = now
        if len(self._read_at) > MOST_REMEMBERED:
            self._read_at = {key: at for key, at in self._read_at.items() if now - at < AGAIN_SECONDS}
