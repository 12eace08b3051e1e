"""Answers that were given before, in the process and, when there is one, in a cache shared by all replicas.

Rights are not this layer's affair: every read passed the bucket register before it came here.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.upstream.policies import cache_entries
from docpreview_gateway.upstream.policies.cache_entries import Entry
from docpreview_gateway.upstream.wire.refusals import RETRYABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call, Clock
    from docpreview_gateway.upstream.policies.freshness import Freshness
    from docpreview_gateway.upstream.ports import (
        CacheTelemetry,
        JobPage,
        JobQuery,
        MemoryCache,
        PreviewUpstream,
        QueuePage,
        QueueQuery,
        SharedCache,
    )

CREATED_RECENTLY = 5.0
"""Seconds after a create in which a missing job is asked for once more: the cloud may need a moment to show it."""

REREAD_AFTER = 0.3


@dataclass(frozen=True, slots=True)
class CachedList:
    """A page of a list and until when it is fresh, in Unix seconds."""

    page: JobPage
    fresh_until: float


class CachedUpstream:
    """`PreviewUpstream` that reads from `memory`, then from `shared` (None: there is none), then from the cloud.

    A call with `no_cache` reads through, and what it read is kept. When the cloud fails for a while, a copy that is not
    older than `freshness.stale` allows is answered instead. `check_admission` raises at once
    what a read of a job that is not in memory would raise for lack of capacity.
    """

    def __init__(  # noqa: PLR0913 - each is a collaborator, and wiring names them
        self,
        inner: PreviewUpstream,
        memory: MemoryCache,
        shared: SharedCache | None,
        *,
        freshness: Freshness,
        clock: Clock,
        telemetry: CacheTelemetry,
        check_admission: Callable[[Bucket, str, Call], None] = lambda _bucket, _job_id, _call: None,
    ) -> None:
        self._inner = inner
        self._memory = memory
        self._shared = shared
        self._freshness = freshness
        self._clock = clock
        self._telemetry = telemetry
        self._check_admission = check_admission
        self._lists: dict[str, dict[bytes, CachedList]] = {}
        self._created: dict[str, float] = {}

    async def create(self, request: CreatePreviewJobRequest, bucket: Bucket, output: Bucket, call: Call) -> PreviewJob:
        """As the port says. The new job is kept, and the bucket's lists are dropped."""
        try:
            job = await self._inner.create(request, bucket, output, call)
        finally:
            # Also when the outcome is unknown: the job may be there.
            self.forget_lists(bucket.name)
        now = self._clock.now()
        self._created = {key: at for key, at in self._created.items() if now - at < CREATED_RECENTLY}
        self._created[cache_entries.job_key(bucket, job.job_id)] = now
        await self._keep(cache_entries.job_key(bucket, job.job_id), job, call)
        return job

    def cached_get(self, bucket: Bucket, job_id: str, call: Call) -> bytes | None:
        """As the port says. What is counted as a look-up is a hit; a miss is counted by the `get` that follows it.

        Refusing comes first here because it must be cheap: where ten times more calls come than the cloud can answer,
        nine tenths of the work is to refuse.
        """
        key = cache_entries.job_key(bucket, job_id)
        envelope = self._memory.get(key)
        if envelope is None:
            self._check_admission(bucket, job_id, call)
            return None
        job = None if call.no_cache else cache_entries.fresh_job(key, envelope, self._clock.now())
        if job is not None:
            self._telemetry.cache_lookup("memory", "hit")
            call.cache = "hit"
        return job

    async def get(self, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        """As the port says."""
        key = cache_entries.job_key(bucket, job_id)
        call.shared_wait = 0.0
        kept = None if call.no_cache else await self._find(key, call)
        if kept is not None and self._clock.now() < kept.fresh_until:
            call.cache = "hit"
            return _answer(kept, bucket, job_id)
        try:
            job = await self._read(key, bucket, job_id, call)
        except GatewayError as error:
            if kept is None or not self._may_stand_in(kept, error):
                raise
            call.cache = "stale"
            self._telemetry.cache_lookup("memory", "stale")
            return _answer(kept, bucket, job_id)
        await self._keep(key, job, call)
        return job

    async def list_jobs(self, query: JobQuery, call: Call) -> JobPage:
        """As the port says. Lists are kept for a second or two and in this process only."""
        key = b"%d %s " % (query.size, query.cursor.encode()) + query.request.SerializeToString(deterministic=True)
        lists = self._lists.setdefault(query.bucket.name, {})
        now = self._clock.now()
        kept = lists.get(key)
        if kept is not None and not call.no_cache and now < kept.fresh_until:
            call.cache = "hit"
            self._telemetry.cache_lookup("lists", "hit")
            return kept.page
        self._telemetry.cache_lookup("lists", "miss")
        page = await self._inner.list_jobs(query, call)
        for old in [old for old, entry in lists.items() if entry.fresh_until <= now]:
            del lists[old]
        # A create that came meanwhile has dropped this bucket's lists, and this page is one of those.
        lists[key] = CachedList(page, now + self._freshness.listing)
        return page

    def forget_lists(self, bucket: str) -> None:
        """A job was created in the bucket of this name."""
        self._lists.pop(bucket, None)

    async def list_queues(self, query: QueueQuery, call: Call) -> QueuePage:
        """As the port says; queues change by hand and are asked for rarely."""
        return await self._inner.list_queues(query, call)

    async def _read(self, key: str, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        try:
            return await self._inner.get(bucket, job_id, call)
        except UpstreamError as error:
            if error.reason != reasons.ERROR_REASON_JOB_NOT_FOUND:
                raise
        if self._clock.now() - self._created.get(key, 0.0) < CREATED_RECENTLY:
            await asyncio.sleep(REREAD_AFTER)
            return await self._inner.get(bucket, job_id, call)
        await self._keep(key, None, call)
        raise cache_entries.missing(bucket, job_id)

    async def _find(self, key: str, call: Call) -> Entry | None:
        """The newest kept entry, fresh or not. One from the shared cache is taken into memory."""
        entry = _decoded(key, self._memory.get(key))
        if entry is not None and self._clock.now() < entry.fresh_until:
            self._telemetry.cache_lookup("memory", "hit")
            return entry
        self._telemetry.cache_lookup("memory", "miss")
        if self._shared is None:
            return entry
        begun = time.monotonic()
        envelope = await self._shared.get(key)
        call.shared_wait = time.monotonic() - begun
        # Somebody else's read may have ended meanwhile.
        entry = _decoded(key, self._memory.get(key)) or entry
        other = _decoded(key, envelope)
        self._telemetry.cache_lookup("shared", "miss" if other is None else "hit")
        if envelope is None or other is None or (entry is not None and entry.read_at > other.read_at):
            return entry
        self._memory.set(key, envelope)
        return other

    async def _keep(self, key: str, job: PreviewJob | None, call: Call) -> None:
        now = self._clock.now()
        fresh = self._freshness.missing if job is None else self._freshness.of_job(job, now)
        envelope = cache_entries.encode(key, Entry(job, now, now + fresh))
        self._memory.set(key, envelope)
        if self._shared is not None and fresh > 0:
            seconds = fresh + (0.0 if job is None else self._freshness.stale)
            await self._shared.set(key, envelope, seconds, spent=call.shared_wait)

    def _may_stand_in(self, kept: Entry, error: GatewayError) -> bool:
        """Whether an old copy is better than this error: it is a job, not too old, and the error may pass."""
        young = self._clock.now() < kept.fresh_until + self._freshness.stale
        return kept.job is not None and error.reason in RETRYABLE and young


def _decoded(key: str, envelope: bytes | None) -> Entry | None:
    return cache_entries.decode(key, envelope) if envelope else None


def _answer(kept: Entry, bucket: Bucket, job_id: str) -> PreviewJob:
    if kept.job is None:
        raise cache_entries.missing(bucket, job_id)
    return kept.job
