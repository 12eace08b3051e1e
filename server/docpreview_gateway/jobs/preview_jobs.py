"""The methods of PreviewJobService, without gRPC."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import structlog

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import (
    BatchGetPreviewJobsResponse,
    WatchPreviewJobResponse,
    WatchPreviewJobsResponse,
)
from docpreview_gateway.access import visibility
from docpreview_gateway.jobs.many import followed
from docpreview_gateway.model.call import MAX_REPLY_BYTES, ResponseInfo
from docpreview_gateway.model.errors import GatewayError, cut
from docpreview_gateway.model.validation import MAX_BATCH, MAX_WAIT_SECONDS
from docpreview_gateway.upstream.operations import GetJob

log = structlog.get_logger("docpreview_gateway.jobs")

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from typing import TypeAlias

    from google.protobuf.duration_pb2 import Duration

    from docpreview.v1 import preview_job_service_pb2 as pb
    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.creates.ports import Creates
    from docpreview_gateway.jobs.job_lists import JobLists
    from docpreview_gateway.jobs.many import News
    from docpreview_gateway.jobs.page_urls import PageUrls
    from docpreview_gateway.jobs.watching import Subscription, Watching
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.operations import CachingUpstream

    Jobs: TypeAlias = dict[str, PreviewJob | None]
    RequestWithTtl: TypeAlias = (
        pb.GetPreviewJobRequest
        | pb.BatchGetPreviewJobsRequest
        | pb.WaitPreviewJobRequest
        | pb.WatchPreviewJobRequest
        | pb.WatchPreviewJobsRequest
    )

BATCH_CONCURRENCY = 10

WAIT_MARGIN = 0.2
"""Seconds before a call's deadline at which a wait ends, so that the reply still reaches the caller."""


class PreviewJobs:
    """Creates, reads, waits for and watches jobs. Each method is the RPC of the same name."""

    def __init__(  # noqa: PLR0913 - each is a collaborator, and wiring names them
        self,
        upstream: CachingUpstream,
        buckets: BucketRegistry,
        creates: Creates,
        watching: Watching,
        page_urls: PageUrls,
        *,
        lists: JobLists,
    ) -> None:
        self._upstream = upstream
        self._buckets = buckets
        self._creates = creates
        self._watching = watching
        self._page_urls = page_urls
        self._lists = lists

    async def create(self, request: pb.CreatePreviewJobRequest, call: Call) -> PreviewJob:
        """Submit a job."""
        # The caller's own job and requests: they tell nothing about others.
        call.response.disclosed = True
        if (bucket := self._buckets.find(request.bucket)) is not None:
            call.response.bucket = bucket.name
        job = await self._creates.create(request, call)
        call.response.job_ids = (job.job_id,)
        return job

    async def get(self, request: pb.GetPreviewJobRequest, call: Call) -> PreviewJob:
        """One job."""
        bucket = self._buckets.admit(request, call)
        job = await self._get(bucket, request.job_id, call)
        return await self._page_urls.fill(job, _page_url_ttl(request), call.caller)

    def cached_get(self, request: pb.GetPreviewJobRequest, call: Call) -> bytes | None:
        """The reply of `get`, serialised, if it is cached in this process and needs no signing; None otherwise.

        The request is not validated: the id of a cached job is valid. Rejections are left to `get`.
        """
        bucket = self._readable(request, call)
        encoded = None if bucket is None else self._upstream.cached_get(bucket, request.job_id, call)
        if bucket is None or encoded is None or not _sees(bucket, (encoded,), call):
            return None
        call.response.bucket, call.response.job_ids = bucket.name, (request.job_id,)
        return encoded

    def cached_batch(self, request: pb.BatchGetPreviewJobsRequest, call: Call) -> bytes | None:
        """The reply of `batch_get`, likewise: the stored bytes of its jobs, one after the other."""
        bucket = self._readable(request, call)
        if bucket is None or not 1 <= len(request.job_ids) <= MAX_BATCH:
            return None
        encoded = self._upstream.cached_many(bucket, request.job_ids, call)
        if encoded is None or not _sees(bucket, encoded, call):
            return None
        call.response.bucket, call.response.job_ids = bucket.name, tuple(request.job_ids)
        return b"".join(part for job in encoded for part in (_JOB_TAG, _varint(len(job)), job))

    def _readable(self, request: pb.GetPreviewJobRequest | pb.BatchGetPreviewJobsRequest, call: Call) -> Bucket | None:
        """The bucket, if the caller may read jobs in it, and no address has to be signed; None: left to others."""
        bucket = self._buckets.find(request.bucket)
        rights = call.caller.rights
        if bucket is None or request.HasField("page_url_ttl"):
            return None
        if rights is None or rights.sees_all(bucket.name):
            call.response.disclosed = True
        elif not rights.of_bucket(bucket.name).allowed:
            return None
        return bucket

    async def batch_get(self, request: pb.BatchGetPreviewJobsRequest, call: Call) -> BatchGetPreviewJobsResponse:
        """Up to 100 jobs, BATCH_CONCURRENCY at a time. The first error other than JOB_NOT_FOUND ends the call.

        Each id whose job no cache has counts for the caller's rates, as a call that reads it would.
        """
        bucket = self._buckets.admit(request, call)
        found = await self._find_cached(bucket, request.job_ids, call)
        await call.charge_reads(sum(job is None for job in found.values()))
        await self._get_each(bucket, found, call)
        jobs = [job for job_id in request.job_ids if (job := found[job_id]) is not None]
        return BatchGetPreviewJobsResponse(
            jobs=await self._page_urls.fill_all(jobs, _page_url_ttl(request), call.caller),
            missing_job_ids=[job_id for job_id in request.job_ids if found[job_id] is None],
        )

    async def _get(self, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        """The job, if the caller may see it; otherwise the same error as for a job that does not exist."""
        if not visibility.may_hide(bucket, call):
            return await self._upstream(GetJob(bucket, job_id), call)
        with visibility.hidden_alike(bucket, job_id):
            job = await self._upstream(GetJob(bucket, job_id), call)
            visibility.check(job, bucket, call)
        return job

    def _subscribed(self, bucket: Bucket, job_id: str, call: Call) -> Subscription:
        return self._watching.subscribe(bucket, job_id, call.caller, call.trace, call.response)

    @staticmethod
    async def _check_visible(subscription: Subscription, bucket: Bucket, job_id: str, call: Call) -> None:
        """Check with the first poll, before any wait: the duration of a wait would reveal that the job exists."""
        if visibility.may_hide(bucket, call):
            with visibility.hidden_alike(bucket, job_id):
                visibility.check(await subscription.ended(0.0), bucket, call)

    async def _find_cached(self, bucket: Bucket, job_ids: Iterable[str], call: Call) -> Jobs:
        """The jobs, None for those that the cloud must be asked for. A hidden job costs as much as a missing one."""
        found: Jobs = dict.fromkeys(job_ids)
        if call.charge is None:
            return found  # what is cached makes no difference
        for job_id in found:
            if (encoded := self._upstream.cached_get(bucket, job_id, call)) is not None:
                found[job_id] = PreviewJob.FromString(encoded)
        missing = [job_id for job_id, job in found.items() if job is None]
        found |= await self._upstream.find_shared(bucket, missing, call)
        rights = call.caller.rights
        if rights is not None:
            found = {i: job if job and rights.sees(job, bucket.name) else None for i, job in found.items()}
        return found

    async def _get_each(self, bucket: Bucket, found: Jobs, call: Call) -> None:
        """Fill in the jobs that are not there yet."""
        permits = asyncio.Semaphore(BATCH_CONCURRENCY)

        async def get(job_id: str) -> None:
            async with permits:
                try:
                    found[job_id] = await self._get(bucket, job_id, call)
                except GatewayError as error:
                    if error.reason != reasons.ERROR_REASON_JOB_NOT_FOUND:
                        raise

        try:
            async with asyncio.TaskGroup() as group:
                for job_id in [job_id for job_id, job in found.items() if job is None]:
                    group.create_task(get(job_id))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def list_jobs(self, request: pb.ListPreviewJobsRequest, call: Call) -> pb.ListPreviewJobsResponse:
        """One page of jobs."""
        return await self._lists.page(request, self._buckets.admit(request, call), call)

    async def wait(self, request: pb.WaitPreviewJobRequest, call: Call) -> PreviewJob:
        """The job once it has ended, or its current state after the timeout."""
        bucket = self._buckets.admit(request, call)
        timeout = _seconds(request.timeout) if request.HasField("timeout") else MAX_WAIT_SECONDS
        until = min(time.monotonic() + timeout, call.deadline - WAIT_MARGIN)
        async with self._subscribed(bucket, request.job_id, call) as subscription:
            await self._check_visible(subscription, bucket, request.job_id, call)
            job = await subscription.ended(until)
        return await self._page_urls.fill(job, _page_url_ttl(request), call.caller)

    async def watch(self, request: pb.WatchPreviewJobRequest, call: Call) -> AsyncGenerator[WatchPreviewJobResponse]:
        """The job's current state and each later one, with heartbeats (empty messages) between them."""
        bucket = self._buckets.admit(request, call)
        ttl, job_id = _page_url_ttl(request), request.job_id
        del request  # it would be kept as long as the stream
        async with self._subscribed(bucket, job_id, call) as subscription:
            await self._check_visible(subscription, bucket, job_id, call)
            async for job in subscription.states():
                if job is None:
                    yield WatchPreviewJobResponse()
                else:
                    yield WatchPreviewJobResponse(job=await self._page_urls.fill(job, ttl, call.caller))

    async def watch_many(
        self, request: pb.WatchPreviewJobsRequest, call: Call
    ) -> AsyncGenerator[WatchPreviewJobsResponse]:
        """The current state of each job and each later one, errors of single jobs, and heartbeats between them.

        Ids whose job is not cached count for the caller's rates as in a batch.
        """
        bucket = self._buckets.admit(request, call)
        ttl = _page_url_ttl(request)
        with followed(self._watching, bucket, request.job_ids, call) as many:
            await call.charge_reads(self._count_uncached(bucket, request.job_ids, call))
            async with aclosing(many.events()) as events:
                async for news in events:
                    if news is None:
                        yield WatchPreviewJobsResponse(heartbeat=WatchPreviewJobsResponse.Heartbeat())
                        continue
                    event = await self._event(news, bucket, ttl, call)
                    if event.HasField("error"):
                        many.drop(news.job_id)
                    yield event

    def _count_uncached(self, bucket: Bucket, job_ids: Iterable[str], call: Call) -> int:
        """How many of the jobs this process has not in memory. A hidden job costs as much as a missing one."""
        if call.charge is None:
            return 0
        rights, count = call.caller.rights, 0
        # One cached job of many tells nothing of the stream.
        call = call._replace(response=ResponseInfo())
        for job_id in dict.fromkeys(job_ids):
            encoded = None
            with suppress(GatewayError):  # it would be refused now; the poller has more patience
                encoded = self._upstream.cached_get(bucket, job_id, call)
            if encoded is None or (rights and not rights.sees(PreviewJob.FromString(encoded), bucket.name)):
                count += 1
        return count

    async def _event(self, news: News, bucket: Bucket, ttl: Duration | None, call: Call) -> WatchPreviewJobsResponse:
        """What a stream of many jobs tells of one."""
        try:
            if not visibility.may_hide(bucket, call):
                job = news.told()
            else:
                with visibility.hidden_alike(bucket, news.job_id):
                    job = news.told()
                    visibility.check(job, bucket, call)
            event = WatchPreviewJobsResponse(job=await self._page_urls.fill(job, ttl, call.caller))
            if event.ByteSize() <= MAX_REPLY_BYTES:
                return event
            reason, message = reasons.ERROR_REASON_REPLY_TOO_LARGE, "the job is too large with addresses of its pages"
        except GatewayError as error:
            reason, message = error.reason, error.message
        except Exception:
            log.exception("unexpected error", request_id=call.request_id, job_id=news.job_id)
            reason, message = reasons.ERROR_REASON_INTERNAL, f"internal error; its request id is {call.request_id}"
        told = WatchPreviewJobsResponse.JobError(job_id=news.job_id, reason=reason, message=cut(message))
        return WatchPreviewJobsResponse(error=told)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _page_url_ttl(
    request: RequestWithTtl,
) -> Duration | None:
    return request.page_url_ttl if request.HasField("page_url_ttl") else None


def _sees(bucket: Bucket, encoded: Iterable[bytes], call: Call) -> bool:
    """Whether the caller may see all of these jobs."""
    rights = call.caller.rights
    if rights is None or rights.sees_all(bucket.name):
        return True
    return all(rights.sees(PreviewJob.FromString(job), bucket.name) for job in encoded)


_JOB_TAG = bytes([BatchGetPreviewJobsResponse.JOBS_FIELD_NUMBER << 3 | 2])
"""What a job begins with in the reply of `batch_get` (protobuf.dev, "Encoding": a field of a known length)."""


def _varint(number: int) -> bytes:
    """A number as protobuf writes lengths."""
    written = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
