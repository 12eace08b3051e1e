"""One attempt at the cloud: what is signed, what replies and silence mean, and when the cloud is not asked at all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError, ReplyTooLarge, UpstreamError
from docpreview_gateway.upstream.client import BIG_REPLY_BYTES, CloudClient
from docpreview_gateway.upstream.cloud_clock import CloudClock
from docpreview_gateway.upstream.operations import CreateJob, GetJob, JobPage, ListJobs, ListQueues, QueuePage
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire.refusals import RETRYABLE
from docpreview_gateway.upstream.wire.signing import Credentials, Window, sign
from tests.fakes.clock import FakeClock
from tests.fakes.credentials import SECRET_KEY, FakeCredentials
from tests.fakes.transport import FakeTransport, Turn, job_detail, job_reply, refusal, reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview.v1.error_reason_pb2 import ErrorReason
    from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest

BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing", "main")
CREATE = CreatePreviewJobRequest(
    bucket=BUCKET.name, input_object="a.pdf", output=ObjectLocation(object="out/p-${Page}.jpg")
)


@dataclass
class Desk:
    """A client whose cloud follows a script."""

    transport: FakeTransport
    clock: FakeClock = field(default_factory=FakeClock)
    credentials: FakeCredentials = field(default_factory=FakeCredentials)
    timeout: float = 5.0

    def __post_init__(self) -> None:
        self.client = CloudClient(
            self.transport, self.credentials, CloudClock(self.clock), timeout_seconds=self.timeout
        )
        self.call = call()

    async def create(self) -> PreviewJob:
        return await self.client(CreateJob(CREATE, BUCKET, BUCKET), self.call)

    async def get(self) -> PreviewJob:
        return await self.client(GetJob(BUCKET, "d1"), self.call)

    async def list_jobs(self) -> JobPage:
        request = ListPreviewJobsRequest(bucket=BUCKET.name)
        return await self.client(ListJobs(request, BUCKET, 10, ""), self.call)

    async def list_queues(self) -> QueuePage:
        request = ListPreviewQueuesRequest(bucket=BUCKET.name)
        return await self.client(ListQueues(request, BUCKET, 10, 1), self.call)


def desk(*script: Turn, timeout: float = 5.0) -> Desk:
    return Desk(FakeTransport(*script), timeout=timeout)


def call(seconds: float = 30.0) -> Call:
    return Call(request_id="r1", deadline=asyncio.get_running_loop().time() + seconds)


async def error_of(awaitable: Awaitable[object]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await awaitable
    return caught.value


def skewed(cloud_time: float, code: str = "RequestTimeTooSkewed") -> HttpReply:
    """The refusal of a clock, by a cloud whose time is `cloud_time`."""
    return refusal(code, 403, headers={"date": http_date(cloud_time)})


def http_date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def unsigned(request: HttpRequest) -> HttpRequest:
    """The request as it was before it was signed."""
    headers = {name: value for name, value in request.headers.items() if name not in {"authorization", "host"}}
    return replace(request, headers=headers)


class TestSigning:
    async def test_request_on_the_wire(self) -> None:
        """The bucket's own host is asked, signed for a window around the clock's time."""
        made = desk(job_reply())
        job = await made.get()
        (sent,) = made.transport.requests
        assert job.job_id == "d1"
        assert (sent.method, sent.host, sent.target) == ("GET", BUCKET.ci_host, "/doc_jobs/d1")
        assert sent.headers["host"] == BUCKET.ci_host
        assert "q-key-time=1699999940;1700000600" in sent.headers["authorization"]
        assert "q-ak=example-secret-id" in sent.headers["authorization"]
        assert SECRET_KEY not in str(sent)

    async def test_the_token_of_temporary_keys_is_sent_and_signed(self) -> None:
        """The token of temporary keys is sent, and is part of what is signed."""
        made = desk(job_reply())
        made.credentials.sets["main"] = Credentials("id", "key", "the-token")
        await made.get()
        (sent,) = made.transport.requests
        assert sent.headers["x-ci-security-token"] == "the-token"
        assert "x-ci-security-token" in sent.headers["authorization"].partition("q-header-list=")[2]

    async def test_keys_that_were_rotated(self) -> None:
        """Every attempt asks for the keys anew."""
        made = desk(job_reply())
        await made.get()
        made.credentials.sets["main"] = Credentials("newer-id", "newer-key")
        await made.get()
        assert "q-ak=newer-id" in made.transport.requests[1].headers["authorization"]

    async def test_create_travels_on_a_connection_of_its_own(self) -> None:
        """Creates are marked unrepeatable, reads are not."""
        made = desk(job_reply())
        await made.create()
        await made.get()
        assert [request.unrepeatable for request in made.transport.requests] == [True, False]

    async def test_request_id_of_the_cloud(self) -> None:
        """The call learns the cloud's request id."""
        made = desk(job_reply(headers={"x-ci-request-id": "cloud-1"}))
        await made.get()
        assert (made.call.response.upstream_request_id, made.call.response.cache) == ("cloud-1", "miss")


ASKS: dict[str, Callable[[Desk], Awaitable[object]]] = {
    "create": Desk.create,
    "get": Desk.get,
    "list_jobs": Desk.list_jobs,
    "list_queues": Desk.list_queues,
}


class TestClock:
    @pytest.mark.parametrize("offset", [-1200.0, 1200.0])
    @pytest.mark.parametrize("ask", ASKS)
    async def test_a_clock_refusal_gives_the_clouds_time_and_one_more_attempt(self, ask: str, offset: float) -> None:
        """The cloud's time is learned from the refusal, and the request signed exactly once more; also a create."""
        body = f"<Response>{job_detail('d1')}</Response>"
        made = desk(skewed(1_700_000_000 + offset), reply(body))
        await ASKS[ask](made)
        first, second = made.transport.requests
        credentials = made.credentials.credentials("main")
        assert first == sign(unsigned(first), credentials, Window.around(1_700_000_000))
        assert second == sign(unsigned(first), credentials, Window.around(1_700_000_000 + offset))

    async def test_the_clouds_learned_time_is_used_for_every_later_signature(self) -> None:
        """After the first refusal every request is signed for the cloud's time at once."""
        made = desk(skewed(1_700_001_200), job_reply())
        await made.get()
        made.clock.time += 100
        await made.get()
        assert len(made.transport.requests) == 3
        assert "q-key-time=1700001240;" in made.transport.requests[2].headers["authorization"]

    @pytest.mark.parametrize("ask", ["create", "get"])
    async def test_a_second_clock_refusal_is_clock_skew_without_a_third_attempt(self, ask: str) -> None:
        """A second refusal is CLOCK_SKEW, not a third attempt; for a create too, as nothing was accepted."""
        made = desk(skewed(1_700_001_200), skewed(1_700_002_400))
        error = await error_of(ASKS[ask](made))
        assert error.reason == r.ERROR_REASON_CLOCK_SKEW
        assert len(made.transport.requests) == 2

    async def test_refused_for_another_reason_the_second_time(self) -> None:
        """What counts is the second answer."""
        made = desk(skewed(1_700_001_200), refusal("AccessDenied", 403))
        assert (await error_of(made.get())).reason == r.ERROR_REASON_UPSTREAM_ACCESS_DENIED

    @pytest.mark.parametrize("date", ["", "yesterday", "Fri, 99 Foo 2022 99:99:99 GMT"])
    async def test_a_clock_refusal_without_a_date_is_clock_skew_after_one_attempt(self, date: str) -> None:
        """Without a date there is nothing to learn: CLOCK_SKEW after one attempt."""
        made = desk(refusal("RequestTimeTooSkewed", 403, headers={"date": date}))
        assert (await error_of(made.create())).reason == r.ERROR_REASON_CLOCK_SKEW
        assert len(made.transport.requests) == 1

    async def test_expired_request_under_another_code(self) -> None:
        """AccessDenied with "Request has expired" is a matter of clocks as well."""
        headers = {"date": http_date(1_700_001_200)}
        expired = refusal("AccessDenied", 403, message="Request has expired", headers=headers)
        made = desk(expired, job_reply())
        assert (await made.create()).job_id == "d1"


NOT_SENT = TransportError("refused", sent=False)
BROKEN = TransportError("closed", sent=True)
LATE = TransportError("slow", sent=True, timed_out=True)


class TestWithoutReply:
    @pytest.mark.parametrize("ask", ASKS)
    async def test_a_request_without_a_connection_is_unreachable_and_repeatable(self, ask: str) -> None:
        """UPSTREAM_UNREACHABLE with a time to try again: no byte left, so repeating a create is safe."""
        error = await error_of(ASKS[ask](desk(NOT_SENT)))
        assert error.reason == r.ERROR_REASON_UPSTREAM_UNREACHABLE
        assert error.retry_after == 1.0

    @pytest.mark.parametrize("silence", [BROKEN, LATE], ids=["broken", "late"])
    async def test_create_whose_reply_is_lost(self, silence: TransportError) -> None:
        """CREATE_OUTCOME_UNKNOWN, without a time to try again, after exactly one attempt."""
        made = desk(silence)
        error = await error_of(made.create())
        assert error.reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
        assert error.retry_after is None
        assert len(made.transport.requests) == 1

    @pytest.mark.parametrize(
        ("silence", "reason"),
        [(BROKEN, r.ERROR_REASON_UPSTREAM_UNAVAILABLE), (LATE, r.ERROR_REASON_UPSTREAM_TIMEOUT)],
        ids=["broken", "late"],
    )
    @pytest.mark.parametrize("ask", ["get", "list_jobs", "list_queues"])
    async def test_read_whose_reply_is_lost(
        self, ask: str, silence: TransportError, reason: ErrorReason.ValueType
    ) -> None:
        """A reason that may be gone later, with a time to try again."""
        error = await error_of(ASKS[ask](desk(silence)))
        assert error.reason == reason
        assert error.retry_after == RETRYABLE[reason]


class TestDeadlines:
    @pytest.mark.parametrize("left", [-10.0, 0.0, 0.04])
    @pytest.mark.parametrize("ask", ["create", "get"])
    async def test_expired_on_arrival(self, ask: str, left: float) -> None:
        """The cloud is not asked when the answer could not reach the caller any more; definite for creates."""
        made = desk(job_reply())
        made.call = call(left)
        assert (await error_of(ASKS[ask](made))).reason == r.ERROR_REASON_DEADLINE_EXCEEDED
        assert made.transport.requests == []

    async def test_read_that_outlasts_the_callers_deadline(self) -> None:
        """DEADLINE_EXCEEDED, a margin before the caller gives up."""
        made = desk(30.0, job_reply())
        made.call = call(0.15)
        assert (await error_of(made.get())).reason == r.ERROR_REASON_DEADLINE_EXCEEDED
        assert asyncio.get_running_loop().time() < made.call.deadline

    async def test_create_that_outlasts_the_callers_deadline(self) -> None:
        """The request is out, so the outcome is unknown, and the caller hears so before its deadline."""
        made = desk(30.0, job_reply())
        made.call = call(0.15)
        assert (await error_of(made.create())).reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
        assert asyncio.get_running_loop().time() < made.call.deadline

    async def test_read_that_outlasts_the_gateways_own_limit(self) -> None:
        """UPSTREAM_TIMEOUT, however much time the caller has left."""
        made = desk(30.0, job_reply(), timeout=0.05)
        assert (await error_of(made.get())).reason == r.ERROR_REASON_UPSTREAM_TIMEOUT

    async def test_both_attempts_share_one_limit(self) -> None:
        """The second signature does not begin a new time."""
        made = desk(skewed(1_700_001_200), 30.0, job_reply(), timeout=0.05)
        assert (await error_of(made.get())).reason == r.ERROR_REASON_UPSTREAM_TIMEOUT

    async def test_a_cancelled_call_raises_its_cancellation(self) -> None:
        """Cancellation passes through as what it is."""
        made = desk(30.0, job_reply())
        task = asyncio.ensure_future(made.create())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestReplies:
    @pytest.mark.parametrize(
        "answer",
        [
            refusal("InternalError", 500),
            refusal("ServiceUnavailable", 503),
            reply("<html>nginx</html>", status=502),
            reply(status=504),
            refusal("RequestTimeout", 400),
            reply("not xml"),
            reply("<Response><JobsDetail></JobsDetail></Response>"),
            reply("<Response><JobsDetail><JobId>d1</JobId>"),
        ],
        ids=["500", "503", "502", "504", "408", "garbage", "no-job-id", "cut"],
    )
    async def test_create_that_may_have_been_accepted(self, answer: HttpReply) -> None:
        """CREATE_OUTCOME_UNKNOWN, after exactly one attempt."""
        made = desk(answer)
        error = await error_of(made.create())
        assert error.reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
        assert error.retry_after is None
        assert len(made.transport.requests) == 1

    async def test_facts_of_a_create_with_unknown_outcome(self) -> None:
        """What the cloud said stays known."""
        error = await error_of(desk(refusal("InternalError", 500)).create())
        assert error.metadata == {
            "upstream_code": "InternalError",
            "upstream_http_status": "500",
            "upstream_request_id": "from-body",
        }

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (refusal("ResourceNotFound"), r.ERROR_REASON_INPUT_OBJECT_NOT_FOUND),
            (refusal("QueueNotFound"), r.ERROR_REASON_QUEUE_NOT_FOUND),
            (refusal("InvalidArgument"), r.ERROR_REASON_UPSTREAM_INVALID_ARGUMENT),
            (refusal("SignatureDoesNotMatch", 403), r.ERROR_REASON_UPSTREAM_CREDENTIALS),
            (refusal("NeverHeardOf", 418), r.ERROR_REASON_UPSTREAM_UNMAPPED),
            (refusal("SlowDown", 503), r.ERROR_REASON_UPSTREAM_THROTTLED),
            (reply(status=429), r.ERROR_REASON_UPSTREAM_THROTTLED),
            (reply(status=501), r.ERROR_REASON_UPSTREAM_NOT_IMPLEMENTED),
        ],
    )
    async def test_create_that_was_refused(self, answer: HttpReply, reason: ErrorReason.ValueType) -> None:
        """Refusals before admission are definite, throttling among them."""
        assert (await error_of(desk(answer).create())).reason == reason

    async def test_throttled_with_a_time(self) -> None:
        """The cloud's own time to try again is passed on."""
        error = await error_of(desk(refusal("SlowDown", 503, headers={"retry-after": "7"})).create())
        assert error.retry_after == 7.0

    @pytest.mark.parametrize("status", [301, 302, 307])
    async def test_a_redirect_is_wrong_region_and_is_not_followed(self, status: int) -> None:
        """WRONG_REGION; the address is not followed."""
        made = desk(reply(status=status, headers={"location": "http://169.254.169.254/"}))
        assert (await error_of(made.get())).reason == r.ERROR_REASON_WRONG_REGION
        assert len(made.transport.requests) == 1

    async def test_bare_404_of_a_get(self) -> None:
        """Without a code, 404 for a job means that there is none."""
        error = await error_of(desk(reply(status=404)).get())
        assert error.reason == r.ERROR_REASON_JOB_NOT_FOUND
        assert isinstance(error, UpstreamError)
        assert error.facts.http_status == 404

    async def test_404_with_a_code(self) -> None:
        """A code says more than the status."""
        error = await error_of(desk(refusal("NoSuchBucket", 404)).get())
        assert error.reason == r.ERROR_REASON_BUCKET_NOT_FOUND

    async def test_200_without_the_job(self) -> None:
        """The cloud's usual way to say that there is no such job."""
        answer = reply("<Response><NonExistJobIds>d1</NonExistJobIds></Response>")
        assert (await error_of(desk(answer).get())).reason == r.ERROR_REASON_JOB_NOT_FOUND

    async def test_reply_about_another_job(self) -> None:
        """Never another job's data: UPSTREAM_BAD_RESPONSE."""
        assert (await error_of(desk(job_reply("d2")).get())).reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE

    async def test_a_big_reply_has_the_same_result_as_a_small_one(self) -> None:
        """A reply that takes long to read is read beside the event loop, with the same result."""
        padding = f"<!--{'x' * BIG_REPLY_BYTES}-->"
        made = desk(reply(f"<Response>{job_detail('d1', 'Running')}{padding}</Response>"))
        assert (await made.get()).state == PreviewJob.STATE_RUNNING

    async def test_big_reply_that_is_wrong(self) -> None:
        """The error of a big reply is the same as that of a small one."""
        made = desk(reply(b"x" * BIG_REPLY_BYTES))
        assert (await error_of(made.get())).reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE


class TestTooLarge:
    async def test_list_of_jobs(self) -> None:
        """The use-case hears of it and asks for less."""
        with pytest.raises(ReplyTooLarge):
            await desk(ReplyTooLarge()).list_jobs()

    @pytest.mark.parametrize("ask", ["get", "list_queues"])
    async def test_a_read_whose_reply_is_too_large_is_a_bad_response(self, ask: str) -> None:
        """UPSTREAM_BAD_RESPONSE: no honest reply is so large."""
        assert (await error_of(ASKS[ask](desk(ReplyTooLarge())))).reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE

    async def test_a_create_whose_reply_is_too_large_has_an_unknown_outcome(self) -> None:
        """The job may be there all the same."""
        assert (await error_of(desk(ReplyTooLarge()).create())).reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
