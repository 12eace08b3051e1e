"""Middleware: cached answers, in the process and, when there is one, in a cache shared by all replicas.

Rights are checked before: every read has passed the bucket registry.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.call import SharedRead
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.upstream.operations import CreateJob, GetJob, ListJobs
from docpreview_gateway.upstream.policies import cache_entries
from docpreview_gateway.upstream.policies.cache_entries import Entry
from docpreview_gateway.upstream.wire.refusals import is_transient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call, Clock
    from docpreview_gateway.upstream.operations import JobPage, Operation, Upstream
    from docpreview_gateway.upstream.policies.freshness import Freshness
    from docpreview_gateway.upstream.ports import MemoryCache, SharedCache, UpstreamTelemetry

CREATED_RECENTLY = 5.0
"""Seconds after a create in which a missing job is read again: the cloud may show new jobs with a delay."""

REREAD_AFTER = 0.3
"""Seconds before such a second read."""


@dataclass(frozen=True, slots=True)
class CachedList:
    """A page of a list and when it was read, in Unix seconds."""

    page: JobPage
    read_at: float


class Cached:
    """An `Upstream` that reads from `memory`, then from `shared` (None: there is none), then from the cloud.

    A call with `no_cache` reads from the cloud, and its result is cached. While the cloud fails, a stale copy is
    answered if it is not older than `freshness.stale` allows. `check_admission` raises the error with which a read of a
    job that is not in memory would be rejected immediately.
    """

    def __init__(  # noqa: PLR0913 - each is a collaborator, and wiring names them
        self,
        inner: Upstream,
        memory: MemoryCache,
        shared: SharedCache | None,
        *,
        freshness: Freshness,
        clock: Clock,
        telemetry: UpstreamTelemetry,
        check_admission: Callable[[Bucket, str, Call], None] = lambda _bucket, _job_id, _call: None,
    ) -> None:
        self._inner = inner
        self._memory = memory
        self._shared = shared
        self._freshness = freshness
        self._clock = clock
        self._telemetry = telemetry
        self._check_admission = check_admission
        self._lists: dict[str, dict[tuple[object, ...], CachedList]] = {}
        self._created: dict[str, float] = {}

    async def __call__(self, operation: Operation[Any], call: Call) -> Any:  # noqa: ANN401 - depends on the operation
        """The result, from a cache if possible. Queues are not cached: they are rarely listed."""
        if isinstance(operation, GetJob):
            return await self._get(operation, call)
        if isinstance(operation, ListJobs):
            return await self._list_jobs(operation, call)
        if isinstance(operation, CreateJob):
            return await self._create(operation, call)
        return await self._inner(operation, call)

    def cached_get(self, bucket: Bucket, job_id: str, call: Call) -> bytes | None:
        """The fresh job from memory, serialised. A hit is counted here, a miss by the `GetJob` that follows.

        Admission is checked here because a rejection must be cheap: when ten times more calls arrive than the cloud can
        answer, nine tenths of the work is to reject.
        """
        key = cache_entries.job_key(bucket, job_id)
        envelope = self._memory.get(key)
        if envelope is None:
            self._check_admission(bucket, job_id, call)
            return None
        job = None if call.no_cache else cache_entries.fresh_job(key, envelope, self._clock.now())
        if job is not None:
            self._telemetry.cache_lookup("memory", "hit")
            call.response.cache = "hit"
        return job

    def cached_many(self, bucket: Bucket, job_ids: Iterable[str], call: Call) -> list[bytes] | None:
        """The fresh jobs from memory, serialised, in this order; None when one of them is missing there.

        Hits are counted here if all are there, else nothing is: the reads that follow count theirs.
        """
        if call.no_cache:
            return None
        now, found = self._clock.now(), list[bytes]()
        for job_id in job_ids:
            key = cache_entries.job_key(bucket, job_id)
            envelope = self._memory.get(key)
            job = None if envelope is None else cache_entries.fresh_job(key, envelope, now)
            if job is None:
                return None
            found.append(job)
        self._telemetry.cache_lookup("memory", "hit", len(found))
        call.response.cache = "hit"
        return found

    async def find_shared(self, bucket: Bucket, job_ids: Iterable[str], call: Call) -> dict[str, PreviewJob]:
        """Those of the jobs that the shared cache has, fresh; none without one.

        A hit is counted here, a miss by the `GetJob` that follows.
        """
        if self._shared is None or call.no_cache:
            return {}
        keys = {job_id: cache_entries.job_key(bucket, job_id) for job_id in job_ids}
        envelopes = await asyncio.gather(*map(self._shared.get, keys.values()))
        found = {}
        for (job_id, key), envelope in zip(keys.items(), envelopes, strict=True):
            entry = self._decoded(key, envelope)
            if envelope is None or entry is None or entry.job is None or self._clock.now() >= entry.fresh_until:
                continue
            found[job_id] = entry.job
            self._memory.set(key, envelope)
            self._telemetry.cache_lookup("shared", "hit")
            call.response.cache = "hit"
        return found

    async def last_seen(self, bucket: Bucket, job_id: str, *, within: float = math.inf) -> PreviewJob | None:
        """The job as the caches have it, fresh or not, if it was read in the last seconds (`within`); None: not so.

        The cloud is not asked.
        """
        key = cache_entries.job_key(bucket, job_id)
        entry = self._decoded(key, self._memory.get(key))
        if self._shared is not None and (entry is None or self._clock.now() >= entry.fresh_until):
            other = self._decoded(key, await self._shared.get(key))
            if entry is None or (other is not None and other.read_at > entry.read_at):
                entry = other
        return None if entry is None or self._clock.now() - entry.read_at > within else entry.job

    def forget_lists(self, bucket: str) -> None:
        """Drop the cached lists of the bucket of this name: a job was created in it."""
        self._lists.pop(bucket, None)

    async def _create(self, operation: CreateJob, call: Call) -> PreviewJob:
        try:
            job = await self._inner(operation, call)
        finally:
            # Also when the outcome is unknown: the job may exist.
            self.forget_lists(operation.bucket.name)
        now = self._clock.now()
        key = cache_entries.job_key(operation.bucket, job.job_id)
        self._created = {key: at for key, at in self._created.items() if 0 <= now - at < CREATED_RECENTLY}
        self._created[key] = now
        await self._store(key, job, spent=0.0)
        return job

    async def _get(self, operation: GetJob, call: Call) -> PreviewJob:
        key = cache_entries.job_key(operation.bucket, operation.job_id)
        read = SharedRead(wanted_by=call.deadline)
        cached = None if call.no_cache else await self._find(key, read)
        if cached is not None and self._clock.now() < cached.fresh_until:
            call.response.cache = "hit"
            return _answer(cached, operation)
        try:
            job = await self._read(key, operation, call._replace(shared_read=read))
        except GatewayError as error:
            if cached is None or not self._may_serve_stale(cached, error):
                raise
            call.response.cache = "stale"
            self._telemetry.cache_lookup("memory", "stale")
            return _answer(cached, operation)
        await self._store(key, job, spent=read.waited)
        return job

    async def _list_jobs(self, operation: ListJobs, call: Call) -> JobPage:
        """Lists are cached for a second or two, in this process only."""
        key = operation.key
        lists = self._lists.setdefault(operation.bucket.name, {})
        now = self._clock.now()
        cached = lists.get(key)
        if cached is not None and not call.no_cache and self._is_fresh(cached, now):
            call.response.cache = "hit"
            self._telemetry.cache_lookup("lists", "hit")
            return cached.page
        self._telemetry.cache_lookup("lists", "miss")
        page = await self._inner(operation, call)
        for old in [old for old, entry in lists.items() if not self._is_fresh(entry, now)]:
            del lists[old]
        # When a create dropped the bucket's lists in the meantime, `lists` is no longer used and this page is lost.
        lists[key] = CachedList(page, now)
        return page

    async def _read(self, key: str, operation: GetJob, call: Call) -> PreviewJob:
        try:
            return await self._inner(operation, call)
        except UpstreamError as error:
            if error.reason != reasons.ERROR_REASON_JOB_NOT_FOUND:
                raise
        if 0 <= self._clock.now() - self._created.get(key, 0.0) < CREATED_RECENTLY:
            await asyncio.sleep(REREAD_AFTER)
            return await self._inner(operation, call)
        await self._store(key, None, spent=call.shared_read.waited if call.shared_read else 0.0)
        raise cache_entries.missing(operation.bucket, operation.job_id)

    async def _find(self, key: str, read: SharedRead) -> Entry | None:
        """The newest cached entry, fresh or not. One from the shared cache is copied into memory."""
        entry = self._decoded(key, self._memory.get(key))
        if entry is not None and self._clock.now() < entry.fresh_until:
            self._telemetry.cache_lookup("memory", "hit")
            return entry
        self._telemetry.cache_lookup("memory", "miss")
        if self._shared is None:
            return entry
        begin = time.monotonic()
        envelope = await self._shared.get(key)
        read.waited = time.monotonic() - begin
        # Another read may have ended in the meantime.
        entry = self._decoded(key, self._memory.get(key)) or entry
        other = self._decoded(key, envelope)
        self._telemetry.cache_lookup("shared", "miss" if other is None else "hit")
        if envelope is None or other is None or (entry is not None and entry.read_at > other.read_at):
            return entry
        self._memory.set(key, envelope)
        return other

    async def _store(self, key: str, job: PreviewJob | None, *, spent: float) -> None:
        now = self._clock.now()
        fresh = self._freshness.missing if job is None else self._freshness.of_job(job, now)
        envelope = cache_entries.encode(key, Entry(job, now, now + fresh))
        self._memory.set(key, envelope)
        if self._shared is not None and fresh > 0:
            seconds = fresh + (0.0 if job is None else self._freshness.stale)
            await self._shared.set(key, envelope, seconds, spent=spent)

    def _may_serve_stale(self, cached: Entry, error: GatewayError) -> bool:
        """Whether to answer with a stale copy instead of this error: a job, not too old, and a transient error."""
        is_recent = self._clock.now() < cached.fresh_until + self._freshness.stale
        return cached.job is not None and is_transient(error) and is_recent

    def _decoded(self, key: str, envelope: bytes | None) -> Entry | None:
        """The entry, fresh or not; None without one, and for one that says that it was read hours from now."""
        entry = cache_entries.decode(key, envelope) if envelope else None
        is_ahead = entry is not None and entry.read_at - cache_entries.AHEAD_SECONDS > self._clock.now()
        return None if is_ahead else entry

    def _is_fresh(self, cached: CachedList, now: float) -> bool:
        """Whether a list is fresh; not if the clock was set back since it was read."""
        return 0 <= now - cached.read_at < self._freshness.listing


def _answer(cached: Entry, operation: GetJob) -> PreviewJob:
    if cached.job is None:
        raise cache_entries.missing(operation.bucket, operation.job_id)
    return cached.job
