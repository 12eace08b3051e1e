"""One attempt at the cloud: build, sign, send, read."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.upstream.operations import CreateJob, GetJob, ListJobs, ListQueues
from docpreview_gateway.upstream.ports import Attempt, TransportError
from docpreview_gateway.upstream.wire import refusals, requests, responses
from docpreview_gateway.upstream.wire.created import of_this_create
from docpreview_gateway.upstream.wire.http import unix_time
from docpreview_gateway.upstream.wire.signing import Window, sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.cloud_clock import CloudClock
    from docpreview_gateway.upstream.operations import JobPage, Operation, Result
    from docpreview_gateway.upstream.policies.retry_policy import RetryBudget
    from docpreview_gateway.upstream.ports import CredentialsSource, Transport, UpstreamTelemetry
    from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest

BIG_REPLY_BYTES = 256 * 1024
"""Replies from this size on are read in a thread, so that one caller's big job does not hold up all others."""


class CloudClient:
    """An `Upstream` that makes one attempt a call.

    When the cloud refuses our clock, the client learns the cloud's time from the `Date` of the refusal and signs once
    more, if the retry budget allows it: the refusal came before anything was done, so this is safe for creates too. But
    a create whose signature has a set end is signed by our clock alone when the two differ by more than `fence_slack`
    seconds: else it would outlast its fence, and its job would be created outside the time span that reconciliation
    lists.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        transport: Transport,
        credentials: CredentialsSource,
        clock: CloudClock,
        *,
        telemetry: UpstreamTelemetry,
        timeout_seconds: float,
        fence_slack: float = math.inf,
        budget: RetryBudget | None = None,
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._clock = clock
        self._telemetry = telemetry
        self._timeout = timeout_seconds
        self._fence_slack = fence_slack
        self._budget = budget

    async def __call__(self, operation: Operation[Result], call: Call) -> Result:
        """The cloud's answer. UpstreamError; DEADLINE_EXCEEDED when the call's deadline comes first."""
        request, read = _prepare(operation)
        try:
            return await self._attempt(request, read, operation, call)
        except UpstreamError as error:
            if (answer := _as_answer(operation, error)) is not None:
                raise answer from error
            raise

    async def _attempt(
        self, request: HttpRequest, read: Callable[[HttpReply], Result], operation: Operation[Result], call: Call
    ) -> Result:
        call.response.cache = "miss"
        now = time.monotonic()
        until = min(now + self._timeout, call.answer_by)
        if until <= now:
            raise _deadline_exceeded("the deadline passed before the cloud was asked")
        try:
            async with asyncio.timeout_at(until):
                reply = await self._exchange(request, operation, call)
                call.response.upstream_request_id = refusals.request_id_of(reply)
                if len(reply.body) < BIG_REPLY_BYTES:
                    return read(reply)
                return await asyncio.to_thread(read, reply)
        except TimeoutError:
            if until < call.answer_by or not operation.repeatable:
                raise _no_reply("no reply in time", reasons.ERROR_REASON_UPSTREAM_TIMEOUT) from None
            raise _deadline_exceeded("the cloud did not answer within the call's deadline") from None

    async def _exchange(self, request: HttpRequest, operation: Operation[Any], call: Call) -> HttpReply:
        """A reply with a result; UpstreamError for every other."""
        bucket, sign_until = operation.bucket, operation.sign_until if isinstance(operation, CreateJob) else None
        begin = time.perf_counter()
        reply = await self._send(request, bucket, sign_until)
        if (error := refusals.error_in(reply)) is None:
            return reply
        if error.reason == reasons.ERROR_REASON_CLOCK_SKEW and self._clock.learn(reply.headers.get("date", "")):
            if not self._may_correct(sign_until):
                raise _clocks_differ(self._clock.offset, error)
            if not self._may_repeat(operation):
                raise error
            # The second request is counted by the middleware around this client, the first one here.
            self._telemetry.upstream_attempt(Attempt.of(operation, call), error.reason, time.perf_counter() - begin)
            reply = await self._send(request, bucket, sign_until)
            if (error := refusals.error_in(reply)) is None:
                return reply
        raise error

    def _may_repeat(self, operation: Operation[Any]) -> bool:
        granted = self._budget is None or self._budget.take(time.monotonic())
        self._telemetry.retry(operation.name, "made" if granted else "over_budget")
        return granted

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


def _prepare(operation: Operation[Any]) -> tuple[HttpRequest, Callable[[HttpReply], Any]]:
    """The unsigned request of an operation, and the function that reads its result from a reply."""
    bucket, name = operation.bucket, operation.bucket.name
    if isinstance(operation, GetJob):
        job_id = operation.job_id
        return requests.get(bucket, job_id), lambda reply: responses.one_job(reply.body, bucket=name, job_id=job_id)
    if isinstance(operation, CreateJob):
        create = requests.create(operation.request, bucket, operation.output)
        return create, lambda reply: of_this_create(responses.created_job(reply.body, bucket=name), operation)
    if isinstance(operation, ListJobs):
        listing = requests.list_jobs(operation.request, bucket, size=operation.size, cursor=operation.cursor)
        return listing, partial(_read_page, operation)
    if isinstance(operation, ListQueues):
        queues = requests.list_queues(operation.request, bucket, size=operation.size, page=operation.number)
        return queues, lambda reply: responses.queue_page(reply.body, bucket=name)
    raise TypeError(f"not an operation of the job API: {operation!r}")


def _read_page(operation: ListJobs, reply: HttpReply) -> JobPage:
    page = responses.job_page(
        reply.body,
        bucket=operation.bucket.name,
        with_pages=operation.request.include_pages,
        requested_cursor=operation.cursor,
    )
    return replace(page, as_of=unix_time(reply.headers.get("date", "")))


def _as_answer(operation: Operation[Any], error: UpstreamError) -> UpstreamError | None:
    """The answer that a failed exchange stands for, if not its own error.

    A create that was sent may exist; a bare HTTP 404 of CI for a job says that there is none; and a read of jobs names
    no object that could be missing.
    """
    if isinstance(operation, CreateJob) and error.reason in refusals.OUTCOME_UNKNOWN:
        return UpstreamError(
            reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN,
            f"the create was sent and its outcome is unknown ({error.message}); the job may or may not exist",
            facts=error.facts,
        )
    is_bare = error.reason == reasons.ERROR_REASON_UPSTREAM_UNMAPPED and not error.facts.code
    if isinstance(operation, GetJob) and is_bare and error.facts.http_status == 404:  # noqa: PLR2004
        return UpstreamError(
            reasons.ERROR_REASON_JOB_NOT_FOUND,
            f"no job {operation.job_id} in bucket {operation.bucket.name}",
            facts=error.facts,
        )
    if operation.repeatable and error.reason == reasons.ERROR_REASON_OBJECT_NOT_FOUND:
        return UpstreamError(reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE, error.message, facts=error.facts)
    return None


def _clocks_differ(offset: float, error: UpstreamError) -> UpstreamError:
    return UpstreamError(
        error.reason,
        f"the cloud's clock and this machine's differ by {abs(offset):.0f} s, more than ledger.fence_slack_seconds: "
        "creates with request_id are not safe until the machine's clock is right; no job was created",
        facts=error.facts,
        retry_after=error.retry_after,
    )


def from_transport(error: TransportError) -> UpstreamError:
    """The error of an exchange without a reply, as callers get it."""
    if not error.sent:
        return _no_reply("no connection to the cloud", reasons.ERROR_REASON_UPSTREAM_UNREACHABLE)
    if error.timed_out:
        return _no_reply("no reply in time", reasons.ERROR_REASON_UPSTREAM_TIMEOUT)
    return _no_reply("the connection to the cloud broke", reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE)


def _no_reply(message: str, reason: reasons.ErrorReason.ValueType) -> UpstreamError:
    return UpstreamError(reason, message, retry_after=refusals.RETRYABLE[reason])


def _deadline_exceeded(message: str) -> GatewayError:
    return GatewayError(reasons.ERROR_REASON_DEADLINE_EXCEEDED, message)
