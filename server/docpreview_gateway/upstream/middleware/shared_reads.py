"""Middleware: single-flight reads of a job across replicas.

One replica, the leader, reads; the others get its result. When anything between them fails, a replica reads by itself.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.call import SharedRead
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.operations import CreateJob, GetJob
from docpreview_gateway.upstream.policies import cache_entries
from docpreview_gateway.upstream.policies.cache_entries import Entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call, Clock
    from docpreview_gateway.upstream.operations import Operation, Upstream
    from docpreview_gateway.upstream.ports import SingleFlight, UpstreamTelemetry

LEASE_CHECK_SECONDS = 0.5
"""Seconds between checks whether the leader still holds its lease."""

ASK_AGAIN_SECONDS = 1.0
"""Pause before a replica asks again for the reads of others, when shared state did not answer."""


class SharedReads:
    """An `Upstream` with single-flight reads across replicas, and a `JobFeed` of their results."""

    def __init__(
        self, inner: Upstream, single_flight: SingleFlight, *, clock: Clock, telemetry: UpstreamTelemetry
    ) -> None:
        self._inner = inner
        self._single_flight = single_flight
        self._clock = clock
        self._telemetry = telemetry

    async def __call__(self, operation: Operation[Any], call: Call) -> Any:  # noqa: ANN401 - depends on the operation
        """The result. A create, also one of unknown outcome, makes the other replicas drop their cached lists."""
        if isinstance(operation, GetJob):
            return await self._get(operation, call)
        try:
            return await self._inner(operation, call)
        finally:
            if isinstance(operation, CreateJob):
                self._single_flight.created(operation.bucket.name)

    async def next(
        self, bucket: Bucket, job_id: str, seconds: float, missed: Callable[[], Awaitable[PreviewJob | None]]
    ) -> PreviewJob | None:
        """The job as soon as a replica has read it, or None after `seconds`. `missed` is that of `JobFeed`."""
        end = time.monotonic() + seconds
        key = cache_entries.job_key(bucket, job_id)
        with self._single_flight.subscribe(key) as subscription:
            while (left := end - time.monotonic()) > 0:
                listens = await self._single_flight.ask(key, left)
                if (job := await missed()) is not None:
                    return job
                shared = await subscription.next(left if listens else min(left, ASK_AGAIN_SECONDS))
                entry = cache_entries.decode(key, shared) if shared else None
                if entry is not None and entry.job is not None:
                    return entry.job
        return None

    async def _get(self, operation: GetJob, call: Call) -> PreviewJob:
        key = cache_entries.job_key(operation.bucket, operation.job_id)
        read = call.shared_read or SharedRead(call.deadline)
        with self._single_flight.subscribe(key) as subscription:
            while (leads := await self._leads(key, read, call)) is False and time.monotonic() < call.deadline:
                shared = await subscription.next(min(LEASE_CHECK_SECONDS, call.deadline - time.monotonic()))
                if shared is not None and (entry := cache_entries.decode(key, shared)) is not None:
                    return self._follow(entry, operation, call)
                if shared is not None:
                    self._telemetry.shared_read("timeout")
                    return await self._inner(operation, call)
        if leads:
            return await self._lead(key, operation, call)
        self._telemetry.shared_read("local")
        return await self._inner(operation, call)

    async def _leads(self, key: str, read: SharedRead, call: Call) -> bool | None:
        begin = time.monotonic()
        leads = await self._single_flight.lead(key, now=call.no_cache, spent=read.waited)
        read.waited += time.monotonic() - begin
        return leads

    async def _lead(self, key: str, operation: GetJob, call: Call) -> PreviewJob:
        self._telemetry.shared_read("leader")
        value = b""
        try:
            job = await self._inner(operation, call)
            value = self._envelope(key, job)
        except UpstreamError as error:
            if error.reason == reasons.ERROR_REASON_JOB_NOT_FOUND:
                value = self._envelope(key, None)
            raise
        finally:
            # Whatever the outcome, no follower should wait until the lease expires.
            self._single_flight.publish(key, value)
        return job

    def _envelope(self, key: str, job: PreviewJob | None) -> bytes:
        now = self._clock.now()
        return cache_entries.encode(key, Entry(job, now, now))

    def _follow(self, entry: Entry, operation: GetJob, call: Call) -> PreviewJob:
        self._telemetry.shared_read("follower")
        call.response.cache = "coalesced"
        if entry.job is None:
            raise cache_entries.missing(operation.bucket, operation.job_id)
        return entry.job
