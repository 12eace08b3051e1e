"""Failed attempts are made again where that is safe, soon enough, and rare enough."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.policies.retry_policy import RetryBudget, latest_start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call, Clock
    from docpreview_gateway.upstream.policies.retry_policy import RetryPolicy
    from docpreview_gateway.upstream.ports import (
        JobPage,
        JobQuery,
        PreviewUpstream,
        QueuePage,
        QueueQuery,
        RetryTelemetry,
    )

Result = TypeVar("Result")


class RetryingUpstream:
    """`PreviewUpstream` with several attempts per call. `jitter` gives numbers in [0, 1).

    The error of the last attempt is the one that is raised.
    """

    def __init__(
        self,
        inner: PreviewUpstream,
        *,
        policy: RetryPolicy,
        clock: Clock,
        telemetry: RetryTelemetry,
        jitter: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._policy = policy
        self._budget = RetryBudget(policy.share, policy.floor)
        self._clock = clock
        self._telemetry = telemetry
        self._jitter = jitter

    async def create(self, request: CreatePreviewJobRequest, bucket: Bucket, output: Bucket, call: Call) -> PreviewJob:
        """As the port says. Made again only after what certainly was not admitted, and while its signature may be."""
        return await self._repeat("create", call, lambda: self._inner.create(request, bucket, output, call))

    async def get(self, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        """As the port says."""
        return await self._repeat("get", call, lambda: self._inner.get(bucket, job_id, call))

    async def list_jobs(self, query: JobQuery, call: Call) -> JobPage:
        """As the port says."""
        return await self._repeat("list_jobs", call, lambda: self._inner.list_jobs(query, call))

    async def list_queues(self, query: QueueQuery, call: Call) -> QueuePage:
        """As the port says."""
        return await self._repeat("list_queues", call, lambda: self._inner.list_queues(query, call))

    async def _repeat(self, operation: str, call: Call, attempt: Callable[[], Awaitable[Result]]) -> Result:
        begin = time.monotonic()
        self._budget.called(begin)
        retries = 0
        while True:
            try:
                return await attempt()
            except UpstreamError as error:
                create = operation == "create"
                delay = self._policy.delay(error, retries, create=create, jitter=self._jitter())
                if delay is None or not self._fits(delay, begin, call) or not self._granted(operation):
                    raise
            retries += 1
            await asyncio.sleep(delay)

    def _fits(self, delay: float, begin: float, call: Call) -> bool:
        latest = latest_start(begin, min(call.deadline, call.wanted_by))
        in_time = time.monotonic() + delay <= latest
        return in_time and (call.sign_until is None or self._clock.now() + delay < call.sign_until)

    def _granted(self, operation: str) -> bool:
        granted = self._budget.take(time.monotonic())
        self._telemetry.retry(operation, "made" if granted else "over_budget")
        return granted
