"""One request to the cloud for equal reads of a job that are under way in several replicas at the same time.

One replica reads, the others are shared. Whatever goes wrong between them, a replica reads by itself.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.policies import cache_entries
from docpreview_gateway.upstream.policies.cache_entries import Entry

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call, Clock
    from docpreview_gateway.upstream.ports import (
        JobPage,
        JobQuery,
        PreviewUpstream,
        QueuePage,
        QueueQuery,
        SingleFlight,
        SingleFlightTelemetry,
    )

PATIENCE = 0.5
"""Seconds between looks whether the replica that reads is still there."""


class SharedReads:
    """`PreviewUpstream` that lets one replica read for all, and the port `JobFeed` of what they read."""

    def __init__(
        self, inner: PreviewUpstream, single_flight: SingleFlight, *, clock: Clock, telemetry: SingleFlightTelemetry
    ) -> None:
        self._inner = inner
        self._single_flight = single_flight
        self._clock = clock
        self._telemetry = telemetry

    async def create(self, request: CreatePreviewJobRequest, bucket: Bucket, output: Bucket, call: Call) -> PreviewJob:
        """As the port says. The other replicas forget their lists of the bucket, also when the outcome is unknown."""
        try:
            return await self._inner.create(request, bucket, output, call)
        finally:
            self._single_flight.created(bucket.name)

    async def get(self, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        """As the port says."""
        loop = asyncio.get_running_loop()
        key = cache_entries.job_key(bucket, job_id)
        with self._single_flight.subscribe(key) as subscription:
            while (leads := await self._leads(key, call)) is False and loop.time() < call.deadline:
                shared = await subscription.next(min(PATIENCE, call.deadline - loop.time()))
                if shared is not None and (entry := cache_entries.decode(key, shared)) is not None:
                    return self._shared(entry, bucket, job_id, call)
                if shared is not None:
                    self._telemetry.shared_read("timeout")
                    return await self._inner.get(bucket, job_id, call)
        if leads:
            return await self._lead(key, bucket, job_id, call)
        self._telemetry.shared_read("local")
        return await self._inner.get(bucket, job_id, call)

    async def list_jobs(self, query: JobQuery, call: Call) -> JobPage:
        """As the port says."""
        return await self._inner.list_jobs(query, call)

    async def list_queues(self, query: QueueQuery, call: Call) -> QueuePage:
        """As the port says."""
        return await self._inner.list_queues(query, call)

    async def next(self, bucket: Bucket, job_id: str, seconds: float) -> PreviewJob | None:
        """As the port `JobFeed` says."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        key = cache_entries.job_key(bucket, job_id)
        with self._single_flight.subscribe(key) as subscription:
            await self._single_flight.ask(key, seconds)
            while (shared := await subscription.next(max(0.0, end - loop.time()))) is not None:
                entry = cache_entries.decode(key, shared)
                if entry is not None and entry.job is not None:
                    return entry.job
        return None

    async def _leads(self, key: str, call: Call) -> bool | None:
        begun = time.monotonic()
        leads = await self._single_flight.lead(key, now=call.no_cache, spent=call.shared_wait)
        call.shared_wait += time.monotonic() - begun
        return leads

    async def _lead(self, key: str, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        self._telemetry.shared_read("leader")
        value = b""
        try:
            job = await self._inner.get(bucket, job_id, call)
            value = self._envelope(key, job)
        except UpstreamError as error:
            if error.reason == reasons.ERROR_REASON_JOB_NOT_FOUND:
                value = self._envelope(key, None)
            raise
        finally:
            # Whatever became of it, nobody shall wait for the lease to end.
            self._single_flight.publish(key, value)
        return job

    def _envelope(self, key: str, job: PreviewJob | None) -> bytes:
        now = self._clock.now()
        return cache_entries.encode(key, Entry(job, now, now))

    def _shared(self, entry: Entry, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        self._telemetry.shared_read("follower")
        call.cache = "coalesced"
        if entry.job is None:
            raise cache_entries.missing(bucket, job_id)
        return entry.job
