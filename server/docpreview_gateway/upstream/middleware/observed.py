"""Telemetry around any `PreviewUpstream`: operation, outcome and time of every call."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.upstream.ports import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.job_ends import JobEnds
    from docpreview_gateway.upstream.ports import (
        JobPage,
        JobQuery,
        PreviewUpstream,
        QueuePage,
        QueueQuery,
        UpstreamTelemetry,
    )


class ObservedUpstream:
    """Passes every call on and tells `telemetry` how it ended. Cancelled calls are nobody's outcome and not told.

    `ends` is shown every job that the cloud tells of.
    """

    def __init__(self, inner: PreviewUpstream, telemetry: UpstreamTelemetry, ends: JobEnds) -> None:
        self._inner = inner
        self._telemetry = telemetry
        self._ends = ends

    async def create(self, request: CreatePreviewJobRequest, bucket: Bucket, output: Bucket, call: Call) -> PreviewJob:
        """As the port says."""
        with observed(Attempt(bucket.name, "create", call.trace), self._telemetry):
            job = await self._inner.create(request, bucket, output, call)
        self._ends.saw(job)
        return job

    async def get(self, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        """As the port says."""
        with observed(Attempt(bucket.name, "get", call.trace), self._telemetry):
            job = await self._inner.get(bucket, job_id, call)
        self._ends.saw(job)
        return job

    async def list_jobs(self, query: JobQuery, call: Call) -> JobPage:
        """As the port says."""
        with observed(Attempt(query.bucket.name, "list_jobs", call.trace), self._telemetry):
            page = await self._inner.list_jobs(query, call)
        for job in page.jobs:
            self._ends.saw(job)
        return page

    async def list_queues(self, query: QueueQuery, call: Call) -> QueuePage:
        """As the port says."""
        with observed(Attempt(query.bucket.name, "list_queues", call.trace), self._telemetry):
            return await self._inner.list_queues(query, call)


@contextmanager
def observed(attempt: Attempt, telemetry: UpstreamTelemetry) -> Iterator[None]:
    """Tell how what is done within the context ended."""
    begin = time.perf_counter()
    try:
        yield
    except Exception as error:
        telemetry.upstream_attempt(attempt, _reason(error), time.perf_counter() - begin)
        raise
    telemetry.upstream_attempt(attempt, reasons.ERROR_REASON_UNSPECIFIED, time.perf_counter() - begin)


def _reason(error: Exception) -> reasons.ErrorReason.ValueType:
    if isinstance(error, GatewayError):
        return error.reason
    return reasons.ERROR_REASON_INTERNAL
