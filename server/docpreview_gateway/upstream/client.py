"""One attempt at the cloud: build, sign, send, read."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import ForeignReply, GatewayError, UpstreamError
from docpreview_gateway.storage.deadlines import Deadlines
from docpreview_gateway.upstream.cloud_clock import ACCEPTED_SECONDS
from docpreview_gateway.upstream.operations import CreateJob, GetJob, ListJobs, ListQueues
from docpreview_gateway.upstream.ports import Attempt, ProxyError, TransportError
from docpreview_gateway.upstream.wire import refusals, requests, responses
from docpreview_gateway.upstream.wire.created import of_this_create
from docpreview_gateway.upstream.wire.http import unix_time
from docpreview_gateway.upstream.wire.signing import Window, sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.operations import Flight, JobPage, Operation, Result
    from docpreview_gateway.upstream.policies.retry_policy import RetryBudget
    from docpreview_gateway.upstream.ports import CredentialsSource, Transport, UpstreamTelemetry
    from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest

BIG_REPLY_BYTES = 256 * 1024
"""Replies from this size on are read in a thread, so that one caller's big job does not hold up all others."""


DEADLINE_TICK = 0.01
"""Most seconds by which an attempt may outlast its time: well within the margin in which a reply reaches its caller."""


class _Answer(NamedTuple):
    """A reply, and the seconds from the sending of its request to its end, by the clock that goes on in sleep."""

    reply: HttpReply
    seconds: float
    is_dated: bool = False
    """Whether its `Date` is believed."""


class CloudClient:
    """An `Upstream` that makes one attempt a call, and sets a host's clock by the `Date` of every reply of the cloud.

    A `Date` that is further off than ACCEPTED_SECONDS is believed only when the cloud refuses a signature for the
    clock: whoever accepts it shows nearly the time by which it was made.

    When the cloud refuses a signature for the clock, the client signs once more by the `Date` of the refusal, if the
    retry budget allows it: the refusal came before anything was done, so this is safe for creates too. When that is
    refused too, and not with the same time, a `Date` that moved the clock by more than `fence_slack` seconds was wrong:
    the clock is set back.

    A create with a flight is signed with the window of the flight, sent once, and not after the flight's `send_by`:
    what its record says about the time in which it can be accepted has to be true.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        transport: Transport,
        credentials: CredentialsSource,
        times: CloudTimes,
        *,
        telemetry: UpstreamTelemetry,
        timeout_seconds: float,
        fence_slack: float = math.inf,
        budget: RetryBudget | None = None,
        callback_url: Callable[[Bucket], str] = lambda _bucket: "",
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._times = times
        self._telemetry = telemetry
        self._timeout = timeout_seconds
        self._fence_slack = fence_slack
        self._budget = budget
        self._callback_url = callback_url
        self._deadlines = Deadlines(DEADLINE_TICK)

    async def __call__(self, operation: Operation[Result], call: Call) -> Result:
        """The cloud's answer. UpstreamError; DEADLINE_EXCEEDED when the call's deadline comes first."""
        request, read = _prepare(operation, call, self._callback_url)
        try:
            return await self._attempt(request, read, operation, call)
        except UpstreamError as error:
            call.response.upstream_request_id = error.facts.request_id or call.response.upstream_request_id
            if (answer := _as_answer(operation, error)) is not None:
                raise answer from error
            raise

    async def _attempt(
        self, request: HttpRequest, read: Callable[[_Answer], Result], operation: Operation[Result], call: Call
    ) -> Result:
        call.response.cache, call.response.upstream_request_id = "miss", ""
        now = time.monotonic()
        until = min(now + self._timeout, call.answer_by)
        if until <= now:
            raise _deadline_exceeded("the deadline passed before the cloud was asked")
        try:
            with self._deadlines.until(until):
                answer = await self._exchange(request, operation, call)
                call.response.upstream_request_id = refusals.request_id_of(answer.reply)
                if len(answer.reply.body) < BIG_REPLY_BYTES:
                    return read(answer)
                return await asyncio.to_thread(read, answer)
        except TimeoutError:
            if until < call.answer_by or not operation.repeatable:
                raise _no_reply("no reply in time", reasons.ERROR_REASON_UPSTREAM_TIMEOUT) from None
            raise _deadline_exceeded("the cloud did not answer within the call's deadline") from None

    async def _exchange(self, request: HttpRequest, operation: Operation[Any], call: Call) -> _Answer:
        """An answer with a result; UpstreamError for every other."""
        bucket, flight = operation.bucket, operation.flight if isinstance(operation, CreateJob) else None
        begin = time.perf_counter()
        answer = await self._send(request, bucket, flight)
        before, shown = self._times.heard(bucket.ci_host), self._times.now(bucket.ci_host)
        error = refusals.error_in(answer.reply)
        is_heard = self._hear(bucket, answer.reply, error)
        if error is None:
            return answer._replace(is_dated=is_heard)
        # The window of a flight is on record: another one has to be recorded first.
        if error.reason != reasons.ERROR_REASON_CLOCK_SKEW or flight is not None or not is_heard:
            raise error
        learned, moved = self._times.heard(bucket.ci_host), abs(self._times.now(bucket.ci_host) - shown)
        if not self._may_repeat(operation):
            raise error
        # The second request is counted by the middleware around this client, the first one here.
        self._telemetry.upstream_attempt(Attempt.of(operation, call), error.reason, time.perf_counter() - begin)
        answer = await self._send(request, bucket, None)
        error = refusals.error_in(answer.reply)
        is_refused = error is not None and error.reason == reasons.ERROR_REASON_CLOCK_SKEW
        is_heard = not is_refused and self._hear(bucket, answer.reply, error)
        if error is None:
            return answer._replace(is_dated=is_heard)
        if not is_heard and moved > self._fence_slack and self._times.heard(bucket.ci_host) == learned:
            self._times.restore(bucket.ci_host, before)
        raise error

    def _hear(self, bucket: Bucket, reply: HttpReply, error: UpstreamError | None) -> bool:
        """Set the host's clock by a reply, unless it is a stranger's or not believed. Returns whether it was set."""
        if isinstance(error, ForeignReply):
            return False
        is_refused = error is not None and error.reason == reasons.ERROR_REASON_CLOCK_SKEW
        most = math.inf if is_refused else ACCEPTED_SECONDS
        return self._times.hear(bucket.ci_host, reply.headers.get("date", ""), most=most)

    def _may_repeat(self, operation: Operation[Any]) -> bool:
        granted = self._budget is None or self._budget.take(time.monotonic())
        self._telemetry.retry(operation.name, "made" if granted else "over_budget")
        return granted

    async def _send(self, request: HttpRequest, bucket: Bucket, flight: Flight | None) -> _Answer:
        window = Window.around(self._times.now(bucket.ci_host)) if flight is None else flight.window
        signed = sign(request, self._credentials.credentials(bucket.credentials), window)
        sent_at = self._times.elapsed()
        began_before = flight is not None and flight.began
        if flight is not None:
            if sent_at > flight.send_by:
                raise _too_late()
            flight.began = True
        try:
            reply = await self._transport.send(signed)
        except TransportError as error:
            if flight is not None and not error.sent:
                flight.began = began_before
            raise from_transport(error) from error
        return _Answer(reply, self._times.elapsed() - sent_at)


def _prepare(
    operation: Operation[Any], call: Call, callback_url: Callable[[Bucket], str]
) -> tuple[HttpRequest, Callable[[_Answer], Any]]:
    """The unsigned request of an operation, and the function that reads its result from an answer."""
    bucket, name = operation.bucket, operation.bucket.name
    if isinstance(operation, GetJob):
        return requests.get(bucket, operation.job_id), partial(_read_job, operation, call)
    if isinstance(operation, CreateJob):
        create = requests.create(operation.request, bucket, operation.output, callback_url(bucket))
        return create, partial(_read_created, operation)
    if isinstance(operation, ListJobs):
        listing = requests.list_jobs(operation.request, bucket, size=operation.size, cursor=operation.cursor)
        return listing, partial(_read_page, operation)
    if isinstance(operation, ListQueues):
        queues = requests.list_queues(operation.request, bucket, size=operation.size, page=operation.number)
        return queues, lambda answer: responses.queue_page(answer.reply.body, name)
    raise TypeError(f"not an operation of the job API: {operation!r}")


def _read_job(operation: GetJob, call: Call, answer: _Answer) -> PreviewJob:
    bucket = operation.bucket.name
    job, call.response.marker = responses.one_job(answer.reply.body, bucket, operation.job_id)
    return job


def _read_created(operation: CreateJob, answer: _Answer) -> PreviewJob:
    job, marker = responses.created_job(answer.reply.body, operation.bucket.name)
    return of_this_create(job, marker, operation)


def _read_page(operation: ListJobs, answer: _Answer) -> JobPage:
    page = responses.job_page(
        answer.reply.body,
        bucket=operation.bucket.name,
        with_pages=operation.request.include_pages,
        requested_cursor=operation.cursor,
    )
    # A copy that something on the way has kept is no proof of what is not in it, whatever its `Date` says.
    is_copy = answer.reply.headers.get("age", "0").strip() != "0"
    answered_at = None if is_copy or not answer.is_dated else unix_time(answer.reply.headers.get("date", ""))
    # A second less, for what clocks differ and round.
    return replace(page, as_of=None if answered_at is None else answered_at - answer.seconds - 1.0)


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


def from_transport(error: TransportError) -> UpstreamError:
    """The error of an exchange without a reply, as callers get it."""
    if isinstance(error, ProxyError):
        return _no_reply(f"no connection to the cloud: {error}", reasons.ERROR_REASON_UPSTREAM_UNREACHABLE)
    if not error.sent:
        return _no_reply(f"no connection to the cloud: {error}", reasons.ERROR_REASON_UPSTREAM_UNREACHABLE)
    if error.timed_out:
        return _no_reply("no reply in time", reasons.ERROR_REASON_UPSTREAM_TIMEOUT)
    return _no_reply(f"the connection to the cloud broke: {error}", reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE)


def _no_reply(message: str, reason: reasons.ErrorReason.ValueType) -> UpstreamError:
    return UpstreamError(reason, message, retry_after=refusals.RETRYABLE[reason])


def _too_late() -> GatewayError:
    # Not UPSTREAM_UNREACHABLE, which would count as a failure of the host: the time was spent in this process.
    reason = reasons.ERROR_REASON_OVERLOADED
    message = "the create waited too long in the gateway for its turn; nothing was sent"
    return GatewayError(reason, message, retry_after=refusals.RETRYABLE[reason])


def _deadline_exceeded(message: str) -> GatewayError:
    return GatewayError(reasons.ERROR_REASON_DEADLINE_EXCEEDED, message)
