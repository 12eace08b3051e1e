"""Hints that jobs have ended: each makes the gateway read its job once, now.

A hint may be forged, repeated, late or about a job of somebody else. It costs at most one read of a job and second, and
nothing is kept of it: what is read is believed, and nothing else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, Protocol

from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import GATEWAY
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.job_states import TERMINAL
from docpreview_gateway.storage.background import BackgroundTasks, loop_time
from docpreview_gateway.upstream.operations import GetJob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.callbacks.trust import Trust
    from docpreview_gateway.model.buckets import Bucket

READ_SECONDS = 10.0
AGAIN_SECONDS = 1.0
"""Between two reads of a job that hints ask for."""

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

    `trust` learns that the callback of a job has come, and `ended` is told the marker of a job that has ended.
    """

    def __init__(
        self,
        read: KnownJobs,
        telemetry: HintTelemetry,
        told: Callable[[Bucket, PreviewJob], None],
        trust: Trust,
        ended: Callable[[str], Awaitable[None]],
    ) -> None:
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
            self._remember(key, now)
            self._reading += 1
            _ = self._tasks.start(self._job(bucket, job_id), "read of a job that was called back")
        self._telemetry.callback(outcome)
        return outcome

    async def drained(self) -> None:
        """Wait until no job is being read."""
        await self._tasks.drain()

    async def _job(self, bucket: Bucket, job_id: str) -> None:
        try:
            known = await self._read.last_seen(bucket, job_id)
            if known is not None and known.state in TERMINAL:
                # It does not change any more, and a callback may come twice.
                self._telemetry.callback("known")
                self._trust.came_late(bucket.name, job_id)
                return
            call = Call("", loop_time() + READ_SECONDS, GATEWAY, no_cache=True)
            job = await self._read(GetJob(bucket, job_id), call)
            self._told(bucket, job)
            if job.state in TERMINAL:
                self._trust.called_back(bucket.name, job_id)
                await self._ended(call.response.marker)
        except GatewayError:
            self._telemetry.callback("failed")
        finally:
            self._reading -= 1

    def _remember(self, key: tuple[str, str], now: float) -> None:
        self._read_at[key] = now
        if len(self._read_at) > MOST_REMEMBERED:
            self._read_at = {key: at for key, at in self._read_at.items() if now - at < AGAIN_SECONDS}
