"""One attempt at the cloud: build, sign, send, read."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.upstream.cloud_clock import unix_time
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire import refusals, requests, responses
from docpreview_gateway.upstream.wire.signing import Window, sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.cloud_clock import CloudClock
    from docpreview_gateway.upstream.ports import CredentialsSource, JobPage, JobQuery, QueuePage, QueueQuery, Transport
    from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest

Result = TypeVar("Result")

ANSWER_MARGIN = 0.05
"""Seconds of a caller's deadline that are kept for answering it."""

BIG_REPLY_BYTES = 256 * 1024
"""Replies from this size on are read in a thread, so that one caller's big job does not hold up all others."""


class CloudClient:
    """The port `PreviewUpstream` with one attempt per call.

    Before giving up on a refused clock it learns the cloud's time from the `Date` of the refusal and signs once more:
    the refusal came before anything was done, so this is safe for creates too. But a create whose signature has a set
    end is signed by our clock alone when the two differ by more than `fence_slack` seconds: it would outlast its fence,
    and its job would lie where nobody looks for it.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: CredentialsSource,
        clock: CloudClock,
        *,
        timeout_seconds: float,
        fence_slack: float = math.inf,
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._clock = clock
        self._timeout = timeout_seconds
        self._fence_slack = fence_slack

    async def create(self, request: CreatePreviewJobRequest, bucket: Bucket, output: Bucket, call: Call) -> PreviewJob:
        """Submit a job. CREATE_OUTCOME_UNKNOWN when it may have been accepted all the same."""
        unsigned = requests.create(request, bucket, output)
        try:
            return await self._ask(unsigned, bucket, call, partial(responses.created_job, bucket=bucket.name))
        except UpstreamError as error:
            if error.reason not in refusals.OUTCOME_UNKNOWN:
                raise
            raise UpstreamError(
                reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN,
                f"the create was sent and its outcome is unknown ({error.message}); the job may or may not exist",
                facts=error.facts,
            ) from error

    async def get(self, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        """One job. JOB_NOT_FOUND when there is none."""
        read = partial(responses.one_job, bucket=bucket.name, job_id=job_id)
        try:
            return await self._ask(requests.get(bucket, job_id), bucket, call, read)
        except UpstreamError as error:
            if error.facts.http_status == 404 and not error.facts.code:  # noqa: PLR2004 - the bare HTTP status
                raise UpstreamError(
                    reasons.ERROR_REASON_JOB_NOT_FOUND, f"no job {job_id} in bucket {bucket.name}", facts=error.facts
                ) from error
            raise

    async def list_jobs(self, query: JobQuery, call: Call) -> JobPage:
        """One page of jobs. ReplyTooLarge when the page holds more than the gateway reads at once."""
        request = requests.list_jobs(query.request, query.bucket, size=query.size, cursor=query.cursor)
        read = partial(
            responses.job_page,
            bucket=query.bucket.name,
            with_pages=query.request.include_pages,
            asked_cursor=query.cursor,
        )
        page, reply = await self._asked(request, query.bucket, call, read)
        return replace(page, as_of=unix_time(reply.headers.get("date", "")))

    async def list_queues(self, query: QueueQuery, call: Call) -> QueuePage:
        """One page of queues."""
        request = requests.list_queues(query.request, query.bucket, size=query.size, page=query.number)
        return await self._ask(request, query.bucket, call, partial(responses.queue_page, bucket=query.bucket.name))

    async def _ask(self, request: HttpRequest, bucket: Bucket, call: Call, read: Callable[[bytes], Result]) -> Result:
        result, _ = await self._asked(request, bucket, call, read)
        return result

    async def _asked(
        self, request: HttpRequest, bucket: Bucket, call: Call, read: Callable[[bytes], Result]
    ) -> tuple[Result, HttpReply]:
        call.cache = "miss"
        now = time.monotonic()
        until = min(now + self._timeout, call.deadline - ANSWER_MARGIN)
        if until <= now:
            raise _deadline_exceeded("the deadline passed before the cloud was asked")
        try:
            async with asyncio.timeout_at(until):
                reply = await self._exchange(request, bucket, call.sign_until)
                call.upstream_request_id = refusals.request_id_of(reply)
                if len(reply.body) < BIG_REPLY_BYTES:
                    return read(reply.body), reply
                return await asyncio.to_thread(read, reply.body), reply
        except TimeoutError:
            raise self._late(request, until, call) from None

    def _late(self, request: HttpRequest, until: float, call: Call) -> GatewayError:
        if until < call.deadline - ANSWER_MARGIN or request.unrepeatable:
            return _no_reply("no reply in time", reasons.ERROR_REASON_UPSTREAM_TIMEOUT)
        return _deadline_exceeded("the cloud did not answer within the call's deadline")

    async def _exchange(self, request: HttpRequest, bucket: Bucket, sign_until: float | None) -> HttpReply:
        """A reply of status 2xx; UpstreamError for every other."""
        reply = await self._send(request, bucket, sign_until)
        if refusals.accepted(reply):
            return reply
        error = refusals.read(reply)
        if error.reason == reasons.ERROR_REASON_CLOCK_SKEW and self._clock.learn(reply.headers.get("date", "")):
            if not self._may_correct(sign_until):
                raise _clocks_differ(self._clock.offset, error)
            reply = await self._send(request, bucket, sign_until)
            if refusals.accepted(reply):
                return reply
            error = refusals.read(reply)
        raise error

    def _may_correct(self, sign_until: float | None) -> bool:
        return sign_until is None or abs(self._clock.offset) <= self._fence_slack

    async def _send(self, request: HttpRequest, bucket: Bucket, sign_until: float | None) -> HttpReply:
        offset = self._clock.offset if self._may_correct(sign_until) else 0.0
        window = Window.around(self._clock.now() - self._clock.offset + offset)
        if sign_until is not None:
            window = replace(window, end=int(sign_until + offset))
        signed = sign(request, self._credentials.credentials(bucket.credentials), window)
        try:
            return await self._transport.send(signed)
        except TransportError as error:
            raise from_transport(error) from error


def _clocks_differ(offset: float, error: UpstreamError) -> UpstreamError:
    return UpstreamError(
        error.reason,
        f"the cloud's clock and this machine's differ by {abs(offset):.0f} s, more than ledger.fence_slack_seconds: "
        "creates with request_id are not safe until the machine's clock is right; nothing was sent that counts",
        facts=error.facts,
        retry_after=error.retry_after,
    )


def from_transport(error: TransportError) -> UpstreamError:
    """The same for those above."""
    if not error.sent:
        return _no_reply("no connection to the cloud", reasons.ERROR_REASON_UPSTREAM_UNREACHABLE)
    if error.timed_out:
        return _no_reply("no reply in time", reasons.ERROR_REASON_UPSTREAM_TIMEOUT)
    return _no_reply("the connection to the cloud broke", reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE)


def _no_reply(message: str, reason: reasons.ErrorReason.ValueType) -> UpstreamError:
    return UpstreamError(reason, message, retry_after=refusals.RETRYABLE[reason])


def _deadline_exceeded(message: str) -> GatewayError:
    return GatewayError(reasons.ERROR_REASON_DEADLINE_EXCEEDED, message)
