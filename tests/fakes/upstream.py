"""The cloud's job API in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import ObjectLocation, Page, PreviewJob, PreviewResult
from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import PreviewQueue
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.operations import (
    CreateJob,
    GetJob,
    JobPage,
    ListJobs,
    ListQueues,
    Operation,
    QueuePage,
)
from docpreview_gateway.upstream.wire.user_data import split_user_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call


EPOCH = 1_700_000_000


class FakeUpstream:
    """A `CachingUpstream` in memory. Tests set `jobs`, `objects` and `failures` directly and read `asked`."""

    def __init__(self) -> None:
        self.jobs: dict[tuple[str, str], PreviewJob] = {}
        self.objects: set[tuple[str, str]] = set()
        self.asked: list[tuple[str, str]] = []
        """Operation and job id or bucket of every call."""
        self.callers: list[str] = []
        """The caller of every call."""
        self.failures: list[Exception] = []
        """Raised by the next calls, one each."""
        self.gate: asyncio.Event | None = None
        """Calls hang until it is set."""
        self.called = asyncio.Event()
        """Set at every call."""
        self.cancelled = 0
        """Calls that were cancelled while they hung."""
        self.cached: dict[tuple[str, str], PreviewJob] = {}
        """Jobs that `cached_get` returns."""
        self.shared_cached: dict[tuple[str, str], PreviewJob] = {}
        """Jobs that `find_shared` returns."""
        self.heard: Callable[[str], object] = lambda _host: None
        """Told the host of each shortest list, by which its time is asked for."""
        self.in_flight = 0
        self.most_in_flight = 0

    def add_job(self, bucket: str, job_id: str, state: PreviewJob.State.ValueType) -> PreviewJob:
        """Add a job without a create."""
        job = PreviewJob(bucket=bucket, job_id=job_id, state=state, queue_id=queue_id(bucket))
        job.create_time.seconds = EPOCH + len(self.jobs)
        self.jobs[bucket, job_id] = job
        return job

    def set_state(self, bucket: str, job_id: str, state: PreviewJob.State.ValueType) -> None:
        """Change the state of a job; messages returned before are left as they are."""
        changed = PreviewJob()
        changed.CopyFrom(self.jobs[bucket, job_id])
        changed.state = state
        self.jobs[bucket, job_id] = changed

    def cached_get(self, bucket: Bucket, job_id: str, call: Call) -> bytes | None:
        job = None if call.no_cache else self.cached.get((bucket.name, job_id))
        if job is not None:
            call.response.cache = "hit"
        return None if job is None else job.SerializeToString()

    def cached_many(self, bucket: Bucket, job_ids: Iterable[str], _call: Call) -> list[bytes] | None:
        found = [self.cached.get((bucket.name, job_id)) for job_id in job_ids]
        return None if None in found else [job.SerializeToString() for job in found if job is not None]

    async def find_shared(self, bucket: Bucket, job_ids: Iterable[str], _call: Call) -> dict[str, PreviewJob]:
        found = {job_id: self.shared_cached.get((bucket.name, job_id)) for job_id in job_ids}
        return {job_id: job for job_id, job in found.items() if job is not None}

    async def __call__(self, operation: Operation[Any], call: Call) -> Any:
        match operation:
            case CreateJob():
                return await self.create(operation, call)
            case GetJob():
                return await self.get(operation, call)
            case ListJobs():
                return await self.list_jobs(operation, call)
            case ListQueues():
                return await self.list_queues(operation, call)
        raise AssertionError(operation)

    async def create(self, operation: CreateJob, call: Call) -> PreviewJob:
        request, bucket, output = operation.request, operation.bucket, operation.output
        await self._enter("create", bucket.name, call)
        queue = request.queue_id or bucket.default_queue_id or queue_id(bucket.name)
        if queue != queue_id(bucket.name):
            raise UpstreamError(reasons.ERROR_REASON_QUEUE_NOT_FOUND, "no such queue")
        if (bucket.name, request.input_object) not in self.objects:
            raise UpstreamError(reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND, "no such document")
        job = self.add_job(bucket.name, f"d{len(self.jobs):032x}", PreviewJob.STATE_SUBMITTED)
        job.user_data = request.user_data
        job.input.CopyFrom(ObjectLocation(bucket=bucket.name, region=bucket.region, object=request.input_object))
        job.output.CopyFrom(ObjectLocation(bucket=output.name, region=output.region, object=request.output.object))
        job.options.CopyFrom(request.options)
        job.options.ClearField("password")
        return job

    def finish(self, bucket: str, job_id: str, *, pages: int = 1) -> None:
        """End a job as SUCCESS with this number of pages."""
        self.set_state(bucket, job_id, PreviewJob.STATE_SUCCESS)
        job = self.jobs[bucket, job_id]
        found = [Page(page_number=n, object=f"out/p-{n}.jpg") for n in range(1, pages + 1)]
        job.result.CopyFrom(PreviewResult(total_page_count=pages, succeeded_page_count=pages, pages=found))

    async def get(self, operation: GetJob, call: Call) -> PreviewJob:
        bucket, job_id = operation.bucket, operation.job_id
        await self._enter("get", job_id, call)
        job = self.jobs.get((bucket.name, job_id))
        if job is None:
            raise UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, f"no job {job_id} in bucket {bucket.name}")
        return job

    async def list_jobs(self, query: ListJobs, call: Call) -> JobPage:
        await self._enter("list_jobs", query.bucket.name, call)
        if query.size == 1:
            self.heard(query.bucket.ci_host)
        request = query.request
        if request.queue_id not in {"", queue_id(query.bucket.name)}:
            return JobPage((), "")
        found = [
            job
            for (bucket, _), job in self.jobs.items()
            if bucket == query.bucket.name and (not request.states or job.state in request.states)
        ]
        if request.order != ListPreviewJobsRequest.ORDER_OLDEST_FIRST:
            found.reverse()
        begin = int(query.cursor or 0)
        page = found[begin : begin + query.size]
        more = begin + query.size < len(found)
        markers = tuple(split_user_data(job.user_data)[1] for job in page)
        if not request.include_pages:
            page = [_without_pages(job) for job in page]
        return JobPage(tuple(page), str(begin + query.size) if more else "", markers)

    async def list_queues(self, query: ListQueues, call: Call) -> QueuePage:
        await self._enter("list_queues", query.bucket.name, call)
        own = queue_id(query.bucket.name)
        wanted = set(query.request.queue_ids) or {own}
        paused = query.request.state == PreviewQueue.STATE_PAUSED
        queues = [PreviewQueue(bucket=query.bucket.name, queue_id=own, state=PreviewQueue.STATE_ACTIVE)]
        shown = queues if own in wanted and not paused and query.number == 1 else []
        return QueuePage(tuple(shown), len(shown), tuple(sorted(wanted - {own})))

    async def _enter(self, operation: str, subject: str, call: Call) -> None:
        self.asked.append((operation, subject))
        self.callers.append(call.caller.name)
        self.called.set()
        call.response.cache = "miss"
        call.response.upstream_request_id = f"upstream-{len(self.asked)}"
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        if self.failures:
            raise self.failures.pop(0)


def queue_id(bucket: str) -> str:
    """The id of a bucket's only queue."""
    return f"p{bucket.partition('-')[0]}"


def _without_pages(job: PreviewJob) -> PreviewJob:
    shown = PreviewJob()
    shown.CopyFrom(job)
    shown.result.ClearField("pages")
    return shown
