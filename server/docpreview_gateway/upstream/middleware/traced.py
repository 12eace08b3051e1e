"""A span around each attempt of any `PreviewUpstream`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.upstream.ports import Attempt

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.ports import JobPage, JobQuery, PreviewUpstream, QueuePage, QueueQuery, Tracing


class TracedUpstream:
    """Passes every call on, within a span of `tracing`."""

    def __init__(self, inner: PreviewUpstream, tracing: Tracing) -> None:
        self._inner = inner
        self._tracing = tracing

    async def create(self, request: CreatePreviewJobRequest, bucket: Bucket, output: Bucket, call: Call) -> PreviewJob:
        """As the port says."""
        with self._tracing.attempt(Attempt(bucket.name, "create", call.trace), call):
            return await self._inner.create(request, bucket, output, call)

    async def get(self, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        """As the port says."""
        with self._tracing.attempt(Attempt(bucket.name, "get", call.trace), call):
            return await self._inner.get(bucket, job_id, call)

    async def list_jobs(self, query: JobQuery, call: Call) -> JobPage:
        """As the port says."""
        with self._tracing.attempt(Attempt(query.bucket.name, "list_jobs", call.trace), call):
            return await self._inner.list_jobs(query, call)

    async def list_queues(self, query: QueueQuery, call: Call) -> QueuePage:
        """As the port says."""
        with self._tracing.attempt(Attempt(query.bucket.name, "list_queues", call.trace), call):
            return await self._inner.list_queues(query, call)
