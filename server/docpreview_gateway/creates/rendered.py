"""Content that is rendered already: a create equal to a recent one of the same caller returns the job of that one.

Best effort: when the object store or the cloud is slow or fails, the create is sent.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.model.call import ResponseInfo
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.operations import GetJob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview_gateway.creates.attempts import Work
    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.upstream.ports import ObjectTags

log = structlog.get_logger("docpreview_gateway.dedupe")

LOOKUP_SECONDS, LOOKUP_SHARE = 5.0, 0.25
"""Limits of a look at the document or the job: seconds, and share of the time until the caller's deadline."""

_USABLE = frozenset(
    {PreviewJob.STATE_SUBMITTED, PreviewJob.STATE_RUNNING, PreviewJob.STATE_PAUSED, PreviewJob.STATE_SUCCESS}
)


async def _unseen(_bucket: Bucket, _job_id: str) -> None:
    """No job was ever seen."""


class RenderedJobs:
    """Looks at documents and jobs for deduplication, and for repeats of creates.

    `last_seen` is a job as caches have it; None: they do not.
    """

    def __init__(
        self,
        upstream: Upstream,
        tags: ObjectTags,
        keys: CreateKeys,
        last_seen: Callable[[Bucket, str], Awaitable[PreviewJob | None]] = _unseen,
    ) -> None:
        self._last_seen = last_seen
        self._upstream = upstream
        self._tags = tags
        self._keys = keys

    async def with_content(self, work: Work) -> Record:
        """The work's record with a digest of its document's content, if its caller deduplicates and it can be read."""
        call, (request, bucket, output) = work.call, work.admitted
        if call.caller.dedupe_seconds <= 0:
            return work.record
        lookup = self._lookup(call)
        try:
            async with asyncio.timeout_at(lookup.deadline):
                tag = await self._tags.tag(bucket, request.input_object, lookup)
        except (GatewayError, TimeoutError) as error:
            log.info("reading of a document's tag failed", bucket=bucket.name, error=str(error))
            return work.record
        if not tag:
            return work.record
        body = CreatePreviewJobRequest(
            bucket=request.bucket,
            input_object=request.input_object,
            output=ObjectLocation(bucket=output.name, object=request.output.object),
            options=request.options,
        )
        text = f"{call.caller.name}\n{tag}\n".encode() + body.SerializeToString(deterministic=True)
        return replace(work.record, render=self._keys.render(text))

    async def usable(self, standing: Record, work: Work) -> PreviewJob | None:
        """The job of a record, cached or not; None when it cannot be read in time, or has made no pages."""
        job = await self._read(standing, work)
        return job if job is not None and job.state in _USABLE else None

    async def answer(self, standing: Record, work: Work) -> PreviewJob:
        """The job of a repeated create: as it was last seen, or else accepted. The cloud is not asked for it.

        It is if the create had no job of its own.
        """
        if standing.sign_end and standing.place:
            return await self._last_seen(work.admitted.bucket, standing.job_id) or standing.answer()
        return await self._read(standing, work) or standing.answer()

    async def _read(self, standing: Record, work: Work) -> PreviewJob | None:
        lookup = self._lookup(work.call)
        try:
            async with asyncio.timeout_at(lookup.deadline):
                return await self._upstream(GetJob(work.admitted.bucket, standing.job_id), lookup)
        except (GatewayError, TimeoutError):
            return None

    @staticmethod
    def _lookup(call: Call) -> Call:
        now = loop_time()
        seconds = min(LOOKUP_SECONDS, LOOKUP_SHARE * (call.deadline - now))
        return call._replace(deadline=now + seconds, no_cache=False, trace=None, response=ResponseInfo())
