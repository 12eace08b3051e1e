"""Hints that jobs have ended: each makes the gateway read its job once, now.

A hint may be forged, repeated, late or about a job of somebody else. It costs at most one read of a job and second, and
nothing is kept of it: what is read is believed, and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from docpreview_gateway.limits.gcra import Rates, rule
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import GATEWAY, Rate
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
"""Reads in flight."""

MOST_WAITING = 1_000
"""Jobs that nobody follows and that wait to be read; hints beyond are dropped."""

MOST_REMEMBERED = 10_000
"""Jobs that were read in the last second."""

OF_OTHERS = Rate(50, 1000)
"""Most hints about jobs that nobody follows: who knows an address may invent names of jobs, and each costs a read."""

_OF_OTHERS = (rule("others", "rate", OF_OTHERS),)

Outcome = Literal["read", "repeated", "limited"]


class _Hint(NamedTuple):
    """A job to be read, after `tries` reads. One that another worker has `heard` of is counted and learned there."""

    bucket: Bucket
    job_id: str
    tries: int
    heard: bool


class HintTelemetry(Protocol):
    """Counts hints."""

    def callback(self, outcome: str) -> None:
        """Count a callback, or a job that it names.

        `read`, `failed` (the read), `known` (ended before), `repeated`, `limited` (too many), `foreign` (no token of
        ours), or `malformed`.
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

    `told` says whether the job was followed here, `follows` whether it is: such jobs are read first, others at a
    limited rate. `trust` learns that the callback of a job has come, and so do the
    other replicas by `came`, given the names of the bucket, the job and its queue. `ended` is told the marker of a job
    that has ended. `times` has the clock by which a callback is late.
    """

    def __init__(  # noqa: PLR0913 - each is a collaborator, and wiring names them
        self,
        read: KnownJobs,
        telemetry: HintTelemetry,
        told: Callable[[Bucket, PreviewJob], bool],
        trust: Trust,
        ended: Callable[[str], Awaitable[None]],
        *,
        follows: Callable[[str, str], bool],
        times: CloudTimes,
        came: Callable[[str, str, str], None] = lambda _bucket, _job_id, _queue_id: None,
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
        self._follows = follows
        self._rates = Rates()
        self._first: dict[tuple[str, str], _Hint] = {}
        """Jobs to be read that are followed here, the oldest first."""
        self._waiting: dict[tuple[str, str], _Hint] = {}
        """The other ones, likewise."""
        self._read_at: dict[tuple[str, str], float] = {}

    def take(self, bucket: Bucket, job_id: str, *, heard: bool = False) -> Outcome:
        """Read a job in the background, unless it was read a moment ago, waits to be read, or too many are told.

        Another worker that was called back has `heard` it.
        """
        key, now = (bucket.name, job_id), time.monotonic()
        outcome: Outcome = "read"
        if self._waits(key) or now - self._read_at.get(key, -AGAIN_SECONDS) < AGAIN_SECONDS:
            outcome = "repeated"
        elif not self._follows(*key) and self._is_over_rate(now):
            outcome = "limited"
        else:
            self._start(_Hint(bucket, job_id, 0, heard))
        if outcome != "read" and not heard:
            # What became of a read is counted when it has ended.
            self._telemetry.callback(outcome)
        return outcome

    async def drained(self) -> None:
        """Wait until no job is being read. Those that wait for it are not read any more, and none is read again."""
        self._first.clear()
        self._waiting.clear()
        await self._tasks.drain()
        for timer in self._again.values():
            timer.cancel()
        self._again.clear()

    def _waits(self, key: tuple[str, str]) -> bool:
        return key in self._first or key in self._waiting

    def _is_over_rate(self, now: float) -> bool:
        return len(self._waiting) >= MOST_WAITING or self._rates.take(_OF_OTHERS, now) is not None

    def _start(self, hint: _Hint) -> None:
        """Read a job as soon as fewer than MOST_READS are being read, those that are followed first."""
        key = (hint.bucket.name, hint.job_id)
        if (timer := self._again.pop(key, None)) is not None:
            timer.cancel()
        (self._first if self._follows(*key) else self._waiting)[key] = hint
        self._read_waiting()

    def _read_waiting(self) -> None:
        while self._reading < MOST_READS and (hints := self._first or self._waiting):
            key = next(iter(hints))
            hint = hints.pop(key)
            self._remember(key, time.monotonic())
            self._reading += 1
            _ = self._tasks.start(self._job(hint), "read of a job that was called back")

    def _start_again(self, hint: _Hint) -> None:
        """Read a job again after a pause; no more than a few times."""
        key = (hint.bucket.name, hint.job_id)
        if hint.tries < len(AHEAD_SECONDS) and len(self._again) < MOST_AGAIN and key not in self._again:
            again = hint._replace(tries=hint.tries + 1)
            loop = asyncio.get_running_loop()
            self._again[key] = loop.call_later(AHEAD_SECONDS[hint.tries], self._start, again)

    async def _job(self, hint: _Hint) -> None:
        bucket, job_id = hint.bucket, hint.job_id
        outcome = "read"
        try:
            known = await self._read.last_seen(bucket, job_id)
            if known is not None and known.state in TERMINAL:
                # It does not change any more, and a callback may come twice.
                outcome = "known"
                self._learn_known(hint, known)
                return
            call = Call("", loop_time() + READ_SECONDS, GATEWAY, no_cache=True)
            job = await self._read(GetJob(bucket, job_id), call)
            followed = self._told(bucket, job)
            if job.state not in TERMINAL:
                self._start_again(hint)
                return
            self._learn(hint, job, followed=followed)
            await self._ended(call.response.marker)
        except GatewayError as error:
            outcome = "failed"
            if is_transient(error):
                self._start_again(hint)
        finally:
            if hint.tries == 0 and not hint.heard:
                self._telemetry.callback(outcome)
            self._reading -= 1
            self._read_waiting()

    def _learn_known(self, hint: _Hint, job: PreviewJob) -> None:
        """Learn from the callback of a job whose end was known."""
        _ = self._told(hint.bucket, job)
        if hint.heard:
            self._trust.called_back_elsewhere(job.bucket, job.job_id, job.queue_id)
            return
        self._trust.came_late(hint.bucket.name, hint.job_id)
        if self._is_recent(hint.bucket, job):
            # A poll of another replica may have been a moment faster.
            self._came(hint.bucket.name, hint.job_id, job.queue_id)

    def _learn(self, hint: _Hint, job: PreviewJob, *, followed: bool) -> None:
        """Learn from an end that a callback told, unless it is an old one: that may be a replay."""
        if not self._is_recent(hint.bucket, job):
            if followed:
                self._trust.missed(job)
        elif hint.heard:
            self._trust.called_back_elsewhere(hint.bucket.name, hint.job_id, job.queue_id)
        else:
            self._trust.called_back(job)
            self._came(hint.bucket.name, job.job_id, job.queue_id)

    def _is_recent(self, bucket: Bucket, job: PreviewJob) -> bool:
        """Whether a job has ended so lately that a callback of it is no replay, by the cloud's clock."""
        ago = self._times.now(bucket.ci_host) - job.end_time.seconds if job.HasField("end_time") else 0.0
        return ago <= LATE_SECONDS

    def _remember(self, key: tuple[str, str], now: float) -> None:
        self._read_at[key] = now
        if len(self._read_at) > MOST_REMEMBERED:
            self._read_at = {key: at for key, at in self._read_at.items() if now - at < AGAIN_SECONDS}
