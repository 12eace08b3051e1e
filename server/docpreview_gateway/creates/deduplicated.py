"""Deduplication: a create equal to a recent one of the same caller returns the job of that one.

Best effort: when the object store, the cloud or the ledger is slow or fails, the create is sent. Concurrent equal
creates are deduplicated within a process; two replicas may both send theirs.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.creates import records
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

LOOKUP_SECONDS, LOOKUP_SHARE = 5.0, 0.25
"""Limits of the lookup before a create: seconds, and share of the time until the caller's deadline."""

WAIT_SHARE = 0.5
"""Share of the time until the caller's deadline for which a create waits for an equal one in this process."""


@dataclass(frozen=True, slots=True)
class _Lookup:
    """Result of a lookup: the job to return, or else the claimed record to fill in once the create has made a job."""

    job: PreviewJob | None = None
    claim: Record | None = None


class DeduplicatedCreates:
    """`Creates` that deduplicates for callers with `dedupe_seconds`. `owner` identifies this process in the ledger."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        inner: Creates,
        buckets: BucketRegistry,
        tags: ObjectTags,
        *,
        upstream: Upstream,
        ledger: RequestLedger,
        clock: Clock,
        telemetry: CreatesTelemetry,
        timing: Timing,
        owner: str,
    ) -> None:
        self._inner = inner
        self._buckets = buckets
        self._tags = tags
        self._upstream = upstream
        self._ledger = ledger
        self._clock = clock
        self._telemetry = telemetry
        self._timing = timing
        self._owner = owner
        self._in_flight: dict[str, asyncio.Future[None]] = {}
        self._background = BackgroundTasks()

    async def create(self, request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        """Submit a job, or return the job that rendered the same content to the same output location."""
        if call.caller.dedupe_seconds <= 0:
            return await self._inner.create(request, call)
        admitted = self._buckets.admit_create(request, call.caller)
        location = rendered.location_key(admitted.request, admitted.output)
        await self._wait_for(location, call)
        with self._in_flight_at(location):
            found = await self._lookup(location, request, admitted, call)
            if found.job is not None:
                call.response.cache = "hit"
                self._telemetry.deduped(call.caller.name)
                return found.job
            job = await self._inner.create(request, call)
            if found.claim is not None:
                await self._record_result(found.claim, job, call)
        return job

    async def drained(self) -> None:
        """Wait until all deduplication records are written."""
        await self._background.drain()

    async def _wait_for(self, location: str, call: Call) -> None:
        """Wait for a create in flight in this process with the same output location."""
        if (other := self._in_flight.get(location)) is not None:
            left = call.deadline - time.monotonic()
            await asyncio.wait((other,), timeout=WAIT_SHARE * left)

    @contextmanager
    def _in_flight_at(self, location: str) -> Iterator[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_flight[location] = done
        try:
            yield
        finally:
            done.set_result(None)
            if self._in_flight.get(location) is done:
                del self._in_flight[location]

    async def _lookup(self, location: str, request: CreatePreviewJobRequest, admitted: Admitted, call: Call) -> _Lookup:
        begin = time.monotonic()
        seconds = min(LOOKUP_SECONDS, LOOKUP_SHARE * (call.deadline - begin))
        # The last quarter is for the ledger: the record must be claimed even when the cloud does not answer in time.
        lookup = call._replace(deadline=begin + 0.75 * seconds, response=ResponseInfo())
        try:
            async with asyncio.timeout_at(begin + seconds):
                return await self._find(location, request, admitted, lookup)
        except (LedgerError, TimeoutError) as error:
            log.info("deduplication lookup failed", error=str(error) or "no answer in time")
            return _Lookup()

    async def _find(self, location: str, request: CreatePreviewJobRequest, admitted: Admitted, lookup: Call) -> _Lookup:
        secret = await self._ledger.secret()
        mine = self._record(request, lookup, secret) if request.request_id else None
        if mine is not None and (standing := await self._find_valid(mine)) is not None:
            # A known `request_id` decides, not the output location.
            return _Lookup(await self._job_of_id(standing, mine, admitted.bucket, lookup))
        found = await self._find_or_claim(location, admitted, secret, lookup)
        if found.job is None or mine is None:
            return found
        now = self._clock.now()
        reused = rendered.reused(mine, found.job, now=now, keep=self._timing.keep)
        standing = await self._ledger.begin(reused, now)
        return found if standing == reused else _Lookup(await self._job_of_id(standing, mine, admitted.bucket, lookup))

    def _record(self, request: CreatePreviewJobRequest, lookup: Call, secret: bytes) -> Record:
        now, timing = self._clock.now(), self._timing
        return records.new_record(
            request, caller=lookup.caller.name, secret=secret, owner=self._owner, now=now, timing=timing
        )

    async def _find_valid(self, mine: Record) -> Record | None:
        standing = await self._ledger.find(mine.key)
        return standing if standing is not None and self._clock.now() < standing.expires_at else None

    async def _job_of_id(self, standing: Record, mine: Record, bucket: Bucket, lookup: Call) -> PreviewJob | None:
        """The job that the id got by deduplication; None: its create was sent, so `IdempotentCreates` has its job."""
        if not rendered.is_reused(standing) or standing.fingerprint != mine.fingerprint:
            return None
        recorded = PreviewJob.FromString(standing.job)
        return await self._read(bucket, recorded.job_id, lookup) or recorded

    async def _find_or_claim(self, location: str, admitted: Admitted, secret: bytes, lookup: Call) -> _Lookup:
        """The job with an equal fingerprint, or a claim, which makes every earlier record of the location invalid."""
        fingerprint = await self._fingerprint(admitted, secret, lookup)
        now, seconds = self._clock.now(), lookup.caller.dedupe_seconds
        claim = rendered.claim(location, fingerprint, owner=self._owner, now=now, seconds=seconds)
        standing = await self._ledger.begin(claim, now)
        if standing != claim:
            if standing.job and standing.fingerprint == fingerprint and not lookup.no_cache:
                job = await self._read(admitted.bucket, PreviewJob.FromString(standing.job).job_id, lookup)
                if job is not None and rendered.is_usable(job):
                    return _Lookup(job)
            claim = rendered.reclaimed(standing, claim)
            if not await self._ledger.replace(standing, claim):
                return _Lookup()
        return _Lookup(claim=claim if fingerprint else None)

    async def _fingerprint(self, admitted: Admitted, secret: bytes, lookup: Call) -> bytes:
        """Fingerprint of the input; empty when the document's tag cannot be read."""
        request, bucket, output = admitted
        head = lookup._replace(deadline=(lookup.deadline + time.monotonic()) / 2, trace=None)
        try:
            tag = await self._tags.tag(bucket, request.input_object, head)
        except GatewayError as error:
            log.info("reading of a document's tag failed", bucket=bucket.name, error=error.message)
            return b""
        caller = lookup.caller.name
        return rendered.fingerprint(request, output, caller=caller, tag=tag, secret=secret) if tag else b""

    async def _read(self, bucket: Bucket, job_id: str, lookup: Call) -> PreviewJob | None:
        """The job, cached or not; None when it cannot be read in time."""
        own = lookup._replace(no_cache=False)
        try:
            async with asyncio.timeout_at(lookup.deadline):
                return await self._upstream(GetJob(bucket, job_id), own)
        except (GatewayError, TimeoutError):
            return None

    async def _record_result(self, claim: Record, job: PreviewJob, call: Call) -> None:
        """Record the job for later creates. A slow ledger does not delay the reply past the caller's deadline."""
        now, seconds = self._clock.now(), call.caller.dedupe_seconds
        filled = rendered.filled(claim, job, now=now, seconds=seconds)
        task = self._background.start(self._write(claim, filled), "write of a deduplication record")
        await asyncio.wait((task,), timeout=call.answer_by - time.monotonic())

    async def _write(self, claim: Record, filled: Record) -> None:
        try:
            await self._ledger.replace(claim, filled)
        except LedgerError as error:
            log.info("recording of a deduplicated create failed", error=str(error))
