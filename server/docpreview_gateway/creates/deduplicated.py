"""Already rendered: a create of what its caller had rendered a short while ago gets the job that is there.

A saving and no promise: whatever is slow, gone or unknown on the way to it means that the create is made. Equal creates
that replicas get at the same moment may both be made; those that one process gets wait for the first.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.creates import records as ledger
from docpreview_gateway.creates import rendered_records as rendered
from docpreview_gateway.creates.ports import LedgerError
from docpreview_gateway.model.call import ResponseInfo
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.storage.background import BackgroundTasks
from docpreview_gateway.upstream.operations import GetJob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.access.bucket_registry import Admitted, BucketRegistry
    from docpreview_gateway.creates.ports import Creates, CreatesTelemetry, RequestLedger
    from docpreview_gateway.creates.records import Record, Timing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call, Clock
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.upstream.ports import ObjectTags

log = structlog.get_logger("docpreview_gateway.dedupe")

LOOK_SECONDS, LOOK_SHARE = 5.0, 0.25
"""What a create is delayed by at most: so many seconds, and such a part of the time that its caller gives it."""

WAIT_SHARE = 0.5
"""The part of a caller's time that it waits for an equal create of this process to end."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look has brought: a job that stands for the create, or else the place that the create may now fill."""

    job: PreviewJob | None = None
    claim: Record | None = None


class DeduplicatedCreates:
    """`Creates` before others, for callers whose policy wants it. `owner` names this process among all that share."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        inner: Creates,
        buckets: BucketRegistry,
        tags: ObjectTags,
        *,
        upstream: Upstream,
        records: RequestLedger,
        clock: Clock,
        telemetry: CreatesTelemetry,
        timing: Timing,
        owner: str,
    ) -> None:
        self._inner = inner
        self._buckets = buckets
        self._tags = tags
        self._upstream = upstream
        self._records = records
        self._clock = clock
        self._telemetry = telemetry
        self._timing = timing
        self._owner = owner
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._background = BackgroundTasks()

    async def create(self, request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        """Submit a job, or return the one that has rendered the same into the same place."""
        if call.caller.dedupe_seconds <= 0:
            return await self._inner.create(request, call)
        admitted = self._buckets.admit_create(request, call.caller)
        place = rendered.place(admitted.request, admitted.output)
        await self._wait_for(place, call)
        with self._working_on(place):
            found = await self._look(place, request, admitted, call)
            if found.job is not None:
                call.response.cache = "hit"
                self._telemetry.deduped(call.caller.name)
                return found.job
            job = await self._inner.create(request, call)
            if found.claim is not None:
                await self._remember(found.claim, job, call)
        return job

    async def drained(self) -> None:
        """Wait until all deduplication records are written."""
        await self._background.drain()

    async def _wait_for(self, place: str, call: Call) -> None:
        """For the create of this process, if there is one, that fills the same place."""
        if (other := self._under_way.get(place)) is not None:
            left = call.deadline - time.monotonic()
            await asyncio.wait((other,), timeout=WAIT_SHARE * left)

    @contextmanager
    def _working_on(self, place: str) -> Iterator[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way[place] = done
        try:
            yield
        finally:
            done.set_result(None)
            if self._under_way.get(place) is done:
                del self._under_way[place]

    async def _look(self, place: str, request: CreatePreviewJobRequest, admitted: Admitted, call: Call) -> _Found:
        begin = time.monotonic()
        seconds = min(LOOK_SECONDS, LOOK_SHARE * (call.deadline - begin))
        # The cloud gets the first three quarters: what it does not tell in time must still be written down.
        look = call._replace(deadline=begin + 0.75 * seconds, response=ResponseInfo())
        try:
            async with asyncio.timeout_at(begin + seconds):
                return await self._found(place, request, admitted, look)
        except (LedgerError, TimeoutError) as error:
            log.info("not known whether it was rendered", error=str(error) or "no answer in time")
            return _Found()

    async def _found(self, place: str, request: CreatePreviewJobRequest, admitted: Admitted, look: Call) -> _Found:
        secret = await self._records.secret()
        mine = self._record(request, look, secret) if request.request_id else None
        if mine is not None and (standing := await self._standing(mine)) is not None:
            # The id was used before, and decides.
            return _Found(await self._job_of_id(standing, mine, admitted.bucket, look))
        found = await self._claimed(place, admitted, secret, look)
        if found.job is None or mine is None:
            return found
        now = self._clock.now()
        borrowed = rendered.borrowed(mine, found.job, now=now, keep=self._timing.keep)
        standing = await self._records.begin(borrowed, now)
        return found if standing == borrowed else _Found(await self._job_of_id(standing, mine, admitted.bucket, look))

    def _record(self, request: CreatePreviewJobRequest, look: Call, secret: bytes) -> Record:
        now, timing = self._clock.now(), self._timing
        return ledger.new_record(
            request, caller=look.caller.name, secret=secret, owner=self._owner, now=now, timing=timing
        )

    async def _standing(self, mine: Record) -> Record | None:
        standing = await self._records.find(mine.key)
        return standing if standing is not None and self._clock.now() < standing.expires_at else None

    async def _job_of_id(self, standing: Record, mine: Record, bucket: Bucket, look: Call) -> PreviewJob | None:
        """The job that the id got without sending; None: those who sent it know it."""
        if not rendered.is_borrowed(standing) or standing.fingerprint != mine.fingerprint:
            return None
        kept = PreviewJob.FromString(standing.job)
        return await self._read(bucket, kept.job_id, look) or kept

    async def _claimed(self, place: str, admitted: Admitted, secret: bytes, look: Call) -> _Found:
        """The job that fills the place as it should be, or the place itself: from now on no other job fills it."""
        fingerprint = await self._fingerprint(admitted, secret, look)
        now, seconds = self._clock.now(), look.caller.dedupe_seconds
        claim = rendered.claim(place, fingerprint, owner=self._owner, now=now, seconds=seconds)
        standing = await self._records.begin(claim, now)
        if standing != claim:
            if standing.job and standing.fingerprint == fingerprint and not look.no_cache:
                job = await self._read(admitted.bucket, PreviewJob.FromString(standing.job).job_id, look)
                if job is not None and rendered.is_usable(job):
                    return _Found(job)
            claim = rendered.claimed_again(standing, claim)
            if not await self._records.replace(standing, claim):
                return _Found()
        return _Found(claim=claim if fingerprint else None)

    async def _fingerprint(self, admitted: Admitted, secret: bytes, look: Call) -> bytes:
        """Of what is to be rendered; empty when nobody can tell what is in the document now."""
        request, bucket, output = admitted
        head = look._replace(deadline=(look.deadline + time.monotonic()) / 2, trace=None)
        try:
            tag = await self._tags.tag(bucket, request.input_object, head)
        except GatewayError as error:
            log.info("not known what is in the document", bucket=bucket.name, error=error.message)
            return b""
        caller = look.caller.name
        return rendered.fingerprint(request, output, caller=caller, tag=tag, secret=secret) if tag else b""

    async def _read(self, bucket: Bucket, job_id: str, look: Call) -> PreviewJob | None:
        """The job as it is, kept or not; None when that cannot be told in time."""
        own = look._replace(no_cache=False)
        try:
            async with asyncio.timeout_at(look.deadline):
                return await self._upstream(GetJob(bucket, job_id), own)
        except (GatewayError, TimeoutError):
            return None

    async def _remember(self, claim: Record, job: PreviewJob, call: Call) -> None:
        """Fill in the job. A ledger that is slow keeps nobody from getting it."""
        now, seconds = self._clock.now(), call.caller.dedupe_seconds
        filled = rendered.filled(claim, job, now=now, seconds=seconds)
        task = self._background.start(self._write(claim, filled), "write of a deduplication record")
        await asyncio.wait((task,), timeout=call.answer_by - time.monotonic())

    async def _write(self, claim: Record, filled: Record) -> None:
        try:
            await self._records.replace(claim, filled)
        except LedgerError as error:
            log.info("rendered, and not remembered", error=str(error))
