"""One attempt at the cloud: signatures, errors of replies and of missing replies, and deadlines."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError, ReplyTooLarge, UpstreamError
from docpreview_gateway.upstream.causes import not_http
from docpreview_gateway.upstream.client import BIG_REPLY_BYTES, CloudClient
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.operations import CreateJob, Flight, GetJob, JobPage, ListJobs, ListQueues, QueuePage
from docpreview_gateway.upstream.policies.retry_policy import RetryBudget
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire.refusals import RETRYABLE
from docpreview_gateway.upstream.wire.signing import Credentials, Window, sign
from tests.fakes.clock import FakeClock
from tests.fakes.credentials import SECRET_KEY, FakeCredentials
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.transport import FakeTransport, Turn, job_detail, job_reply, refusal, reply, stranger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview.v1.error_reason_pb2 import ErrorReason
    from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest

BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing", "main")
CREATE = CreatePreviewJobRequest(
    bucket=BUCKET.name, input_object="a.pdf", output=ObjectLocation(object="out/p-${Page}.jpg")
)


def made_reply(inner: str) -> HttpReply:
    """A reply to a create."""
    return reply(f"<Response><JobsDetail><JobId>d7</JobId><State>Submitted</State>{inner}</JobsDetail></Response>")


def output(key: str, bucket: str = "") -> str:
    """The output of a job in a reply."""
    return f"<Operation><Output><Bucket>{bucket}</Bucket><Object>{key}</Object></Output></Operation>"


OF_THIS_CREATE = [
    "",
    "<Input/>",
    "<Input><Object> a.pdf </Object></Input>",
    f"<Input><BucketId>{BUCKET.name}</BucketId><Object>/a.pdf</Object></Input>" + output("/out/p-${Page}.jpg"),
    output("out/p-7.jpg", BUCKET.name),
    output(""),
    "<Operation><UserData>a text, as of a create without a marker</UserData></Operation>",
]
OF_ANOTHER_CREATE = [
    "<Input><Object>hidden/a.pdf</Object></Input>",
    "<Input><Object>A.pdf</Object></Input>",
    "<Input><BucketId>hidden-1250000000</BucketId><Object>a.pdf</Object></Input>",
    output("hidden/p-${Page}.jpg"),
    output("out/p-${Number}.jpg"),
    output("out/p-${Page}.jpg", "hidden-1250000000"),
    output("out/p-x.jpg"),
    "<Operation><UserData>hidden dg2-kkkkkkkkkkkkkkkkkkkkkkkkaaaqeayeauda5xudsaaaqeacsdzzj</UserData></Operation>",
]


@dataclass
class Desk:
    """A client of a scripted cloud."""

    transport: FakeTransport
    clock: FakeClock = field(default_factory=FakeClock)
    steady: FakeClock = field(default_factory=lambda: FakeClock(1000.0))
    credentials: FakeCredentials = field(default_factory=FakeCredentials)
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)
    timeout: float = 5.0
    budget: RetryBudget | None = None
    fence_slack: float = 60.0

    def __post_init__(self) -> None:
        self.times = CloudTimes(self.clock, self.steady.now)
        self.client = CloudClient(
            self.transport,
            self.credentials,
            self.times,
            telemetry=self.telemetry,
            timeout_seconds=self.timeout,
            fence_slack=self.fence_slack,
            budget=self.budget,
        )
        self.call = call()

    async def create(self, flight: Flight | None = None) -> PreviewJob:
        return await self.client(CreateJob(CREATE, BUCKET, BUCKET, flight), self.call)

    async def get(self) -> PreviewJob:
        return await self.client(GetJob(BUCKET, "d1"), self.call)

    async def list_jobs(self) -> JobPage:
        request = ListPreviewJobsRequest(bucket=BUCKET.name)
        return await self.client(ListJobs(request, BUCKET, 10, ""), self.call)

    async def list_queues(self) -> QueuePage:
        request = ListPreviewQueuesRequest(bucket=BUCKET.name)
        return await self.client(ListQueues(request, BUCKET, 10, 1), self.call)


class Way(FakeTransport):
    """A transport that calls `on_request` with the number of each request, from 1, before it answers."""

    on_request: Callable[[int], None]

    async def send(self, request: HttpRequest) -> HttpReply:
        self.on_request(len(self.requests) + 1)
        return await super().send(request)


def desk(*script: Turn, timeout: float = 5.0, budget: RetryBudget | None = None) -> Desk:
    return Desk(FakeTransport(*script), timeout=timeout, budget=budget)


def call(seconds: float = 30.0) -> Call:
    return Call(request_id="r1", deadline=asyncio.get_running_loop().time() + seconds)


async def error_of(awaitable: Awaitable[object]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await awaitable
    return caught.value


def skewed(cloud_time: float, code: str = "RequestTimeTooSkewed") -> HttpReply:
    """A clock refusal of a cloud whose time is `cloud_time`."""
    return refusal(code, 403, headers={"date": http_date(cloud_time)})


def http_date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def unsigned(request: HttpRequest) -> HttpRequest:
    """The request without what signing added."""
    headers = {name: value for name, value in request.headers.items() if name not in {"authorization", "host"}}
    return replace(request, headers=headers)


class TestSigning:
    async def test_a_request_goes_to_the_buckets_host_with_a_signature_around_now(self) -> None:
        """The window of the signature is around the clock's time."""
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
        """The token is a signed header."""
        made = desk(job_reply())
        made.credentials.sets["main"] = Credentials("id", "key", "the-token")
        await made.get()
        (sent,) = made.transport.requests
        assert sent.headers["x-ci-security-token"] == "the-token"
        assert "x-ci-security-token" in sent.headers["authorization"].partition("q-header-list=")[2]

    async def test_rotated_keys_are_used_by_the_next_attempt(self) -> None:
        """Every attempt reads the keys from their source."""
        made = desk(job_reply())
        await made.get()
        made.credentials.sets["main"] = Credentials("newer-id", "newer-key")
        await made.get()
        assert "q-ak=newer-id" in made.transport.requests[1].headers["authorization"]

    async def test_creates_are_marked_unrepeatable(self) -> None:
        """The transport gives them new connections; reads are not marked."""
        made = desk(job_reply())
        await made.create()
        await made.get()
        assert [request.unrepeatable for request in made.transport.requests] == [True, False]

    async def test_the_response_info_has_the_clouds_request_id(self) -> None:
        made = desk(job_reply(headers={"x-ci-request-id": "cloud-1"}))
        await made.get()
        assert (made.call.response.upstream_request_id, made.call.response.cache) == ("cloud-1", "miss")

    @pytest.mark.parametrize("ask", ["create", "get", "list_jobs", "list_queues"])
    async def test_the_response_info_of_a_refusal_has_the_clouds_request_id(self, ask: str) -> None:
        made = desk(refusal("SignatureDoesNotMatch", 403))
        await error_of(ASKS[ask](made))
        assert made.call.response.upstream_request_id == "from-body"

    async def test_a_request_without_a_reply_has_no_id_and_not_that_of_an_earlier_one(self) -> None:
        """The cloud's support would look up a request that was answered."""
        made = desk(refusal("ServiceUnavailable", 503), LATE)
        await error_of(made.get())
        assert made.call.response.upstream_request_id == "from-body"
        await error_of(made.get())
        assert not made.call.response.upstream_request_id


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
        """The second signature has the cloud's time, also that of a create."""
        body = f"<Response>{job_detail('d1')}</Response>"
        made = desk(skewed(1_700_000_000 + offset), reply(body))
        await ASKS[ask](made)
        first, second = made.transport.requests
        credentials = made.credentials.credentials("main")
        assert first == sign(unsigned(first), credentials, Window.around(1_700_000_000))
        assert second == sign(unsigned(first), credentials, Window.around(1_700_000_000 + offset))
        # The last request of a call is counted by the middleware around the client.
        assert made.telemetry.attempts == [(ask, "CLOCK_SKEW")]

    async def test_the_clouds_learned_time_is_used_for_every_later_signature(self) -> None:
        """Later requests need no second attempt."""
        made = desk(skewed(1_700_001_200), job_reply())
        await made.get()
        made.steady.time += 100
        await made.get()
        assert len(made.transport.requests) == 3
        assert "q-key-time=1700001240;" in made.transport.requests[2].headers["authorization"]

    @pytest.mark.parametrize("ask", ["create", "get"])
    async def test_a_second_clock_refusal_is_clock_skew_without_a_third_attempt(self, ask: str) -> None:
        """For a create too, since nothing was accepted."""
        made = desk(skewed(1_700_001_200), skewed(1_700_002_400))
        error = await error_of(ASKS[ask](made))
        assert error.reason == r.ERROR_REASON_CLOCK_SKEW
        assert len(made.transport.requests) == 2

    async def test_a_clock_refusal_is_clock_skew_when_the_retry_budget_is_spent(self) -> None:
        """The next call has the cloud's time in its first attempt."""
        made = desk(skewed(1_700_001_200), job_reply(), budget=RetryBudget(0.0, 0))
        assert (await error_of(made.get())).reason == r.ERROR_REASON_CLOCK_SKEW
        assert made.telemetry.retries == [("get", "over_budget")]
        await made.get()
        assert len(made.transport.requests) == 2

    async def test_the_error_of_the_second_attempt_is_raised(self) -> None:
        """The first attempt was refused for its clock."""
        made = desk(skewed(1_700_001_200), refusal("AccessDenied", 403))
        assert (await error_of(made.get())).reason == r.ERROR_REASON_UPSTREAM_ACCESS_DENIED

    @pytest.mark.parametrize(
        "date", ["", "yesterday", "Fri, 99 Foo 2022 99:99:99 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"]
    )
    async def test_a_clock_refusal_without_a_date_is_clock_skew_after_one_attempt(self, date: str) -> None:
        """The cloud's time is unknown."""
        made = desk(refusal("RequestTimeTooSkewed", 403, headers={"date": date}))
        assert (await error_of(made.create())).reason == r.ERROR_REASON_CLOCK_SKEW
        assert len(made.transport.requests) == 1

    async def test_an_expired_request_is_a_clock_refusal(self) -> None:
        """The cloud answers AccessDenied with "Request has expired"."""
        headers = {"date": http_date(1_700_001_200)}
        expired = refusal("AccessDenied", 403, message="Request has expired", headers=headers)
        made = desk(expired, job_reply())
        assert (await made.create()).job_id == "d1"

    @pytest.mark.parametrize(
        ("ask", "answer"),
        [
            ("get", job_reply(headers={"date": http_date(1_700_000_777)})),
            ("list_jobs", stranger("<Response><NextToken/></Response>", headers={"date": http_date(1_700_000_777)})),
            ("get", refusal("NoSuchBucket", 404, headers={"date": http_date(1_700_000_777)})),
            ("create", refusal("InternalError", 500, headers={"date": http_date(1_700_000_777)})),
        ],
        ids=["a result", "by its body", "a refusal", "a failure"],
    )
    async def test_every_reply_of_the_cloud_sets_the_clock_of_its_host(self, ask: str, answer: HttpReply) -> None:
        """And of no other; it goes on by the time that passes, whatever our own clock shows."""
        made = desk(answer)
        with suppress(GatewayError):
            await ASKS[ask](made)
        made.clock.time -= 5_000
        made.steady.time += 3
        assert made.times.now(BUCKET.ci_host) == 1_700_000_780
        assert made.times.heard(BUCKET.object_host) is None

    async def test_a_reply_of_something_on_the_way_sets_no_clock(self) -> None:
        """A proxy has a clock of its own."""
        made = desk(stranger("<html/>", status=502, headers={"date": http_date(1_800_000_000), "server": "nginx"}))
        await error_of(made.get())
        assert made.times.heard(BUCKET.ci_host) is None

    async def test_a_date_that_moved_the_clock_is_dropped_when_its_signature_is_refused_too(self) -> None:
        """It was wrong: the clock shows again what it showed before."""
        made = desk(
            job_reply(headers={"date": http_date(1_700_000_000)}),
            skewed(1_700_001_200),
            skewed(1_700_000_000),
            job_reply(),
        )
        await made.get()
        made.steady.time += 10
        assert (await error_of(made.get())).reason == r.ERROR_REASON_CLOCK_SKEW
        assert made.times.now(BUCKET.ci_host) == 1_700_000_010

    async def test_a_date_within_the_slack_is_kept_when_its_signature_is_refused_too(self) -> None:
        """It is as good as the one before, and newer."""
        made = desk(job_reply(headers={"date": http_date(1_700_000_000)}), skewed(1_700_000_050))
        await made.get()
        await error_of(made.get())
        assert made.times.now(BUCKET.ci_host) == 1_700_000_050

    async def test_a_date_heard_meanwhile_is_not_dropped(self) -> None:
        """Another call's good reply came between the two refusals."""
        way = Way(skewed(1_700_001_200), skewed(1_700_001_200))
        made = Desk(way)

        def hear(number: int) -> None:
            if number == 2:
                made.times.hear(BUCKET.ci_host, http_date(1_700_000_300))

        way.on_request = hear
        await error_of(made.get())
        assert len(way.requests) == 2
        assert made.times.now(BUCKET.ci_host) == 1_700_000_300

    @pytest.mark.parametrize("wrong", [0, 1_700_007_200, 1_699_992_800, 4_000_000_000, 4_200_000_000])
    @pytest.mark.parametrize("is_heard", [False, True], ids=["first", "later"])
    @pytest.mark.parametrize(
        "answer", [job_reply, partial(refusal, "NoSuchBucket", 404)], ids=["a result", "a refusal of another kind"]
    )
    async def test_a_date_that_cannot_be_beside_an_accepted_signature_is_not_believed(
        self, answer: Callable[..., HttpReply], wrong: int, *, is_heard: bool
    ) -> None:
        """Of 1970, of the far future, or hours from what the host shows: the next call is signed as before."""
        made = desk(answer(headers={"date": http_date(wrong)}), job_reply())
        if is_heard:
            made.times.hear(BUCKET.ci_host, http_date(1_700_000_000))
        with suppress(GatewayError):
            await made.get()
        await made.get()
        assert [
            str(Window.around(1_700_000_000)) in each.headers["authorization"] for each in made.transport.requests
        ] == [
            True,
            True,
        ]

    async def test_a_date_of_1970_beside_a_clock_refusal_is_clock_skew_and_signs_nothing(self) -> None:
        """A signature by it has no form that the cloud reads: it would blame the key."""
        made = desk(skewed(0), job_reply())
        assert (await error_of(made.get())).reason == r.ERROR_REASON_CLOCK_SKEW
        assert len(made.transport.requests) == 1

    async def test_a_date_that_the_answer_to_its_signature_contradicts_is_dropped(self) -> None:
        """The cloud blames the key then, and dates the reply rightly."""
        refused = refusal("InvalidAuthorization", 403, headers={"date": http_date(1_700_000_000)})
        made = desk(skewed(4_000_000_000), refused, job_reply())
        assert (await error_of(made.get())).reason == r.ERROR_REASON_UPSTREAM_CREDENTIALS
        await made.get()
        assert str(Window.around(1_700_000_000)) in made.transport.requests[-1].headers["authorization"]

    async def test_a_page_with_a_date_that_is_not_believed_says_nothing_of_its_time(self) -> None:
        """It would prove that a create has made no job, long before that is true."""
        far = {"date": http_date(1_700_090_000)}
        assert (await desk(reply("<Response><NextToken/></Response>", headers=far)).list_jobs()).as_of is None

    async def test_a_page_says_as_of_when_it_shows_the_cloud(self) -> None:
        """A lower bound of the time when it was asked for: the answer's date, less the way there and back, less 1."""
        way = Way(reply("<Response><NextToken/></Response>", headers={"date": http_date(1_700_000_100)}))
        made = Desk(way)

        def take_seven_seconds(_number: int) -> None:
            made.steady.time += 7

        way.on_request = take_seven_seconds
        assert (await made.list_jobs()).as_of == 1_700_000_100 - 7 - 1

    async def test_a_page_that_something_on_the_way_has_kept_says_nothing_of_its_time(self) -> None:
        """It has an `Age`, and is no proof of what is not in it."""
        kept = {"date": http_date(1_700_000_100), "age": "3"}
        assert (await desk(reply("<Response><NextToken/></Response>", headers=kept)).list_jobs()).as_of is None

    async def test_a_page_without_a_date_says_nothing_of_its_time(self) -> None:
        """`as_of` is None."""
        assert (await desk(reply("<Response><NextToken/></Response>")).list_jobs()).as_of is None


NOT_SENT = TransportError("refused", sent=False)
BROKEN = TransportError("closed", sent=True)
LATE = TransportError("slow", sent=True, timed_out=True)
WINDOW = Window(1_600_000_000, 1_600_000_105)


class TestFlight:
    async def test_a_create_with_a_flight_is_signed_with_its_window(self) -> None:
        """Whatever the clocks show."""
        made, flight = desk(job_reply()), Flight(WINDOW, 1000.0)
        await made.create(flight)
        (sent,) = made.transport.requests
        assert sent == sign(unsigned(sent), made.credentials.credentials("main"), WINDOW)
        assert flight.began

    async def test_a_create_past_its_send_by_is_not_sent(self) -> None:
        """OVERLOADED, which callers may repeat."""
        made, flight = desk(job_reply()), Flight(WINDOW, 1000.0)
        made.steady.time += 0.001
        error = await error_of(made.create(flight))
        assert (error.reason, error.retry_after) == (r.ERROR_REASON_OVERLOADED, 1.0)
        assert "nothing was sent" in error.message
        assert not made.transport.requests
        assert not flight.began

    async def test_an_attempt_without_a_connection_did_not_begin_the_flight(self) -> None:
        """Unless an earlier attempt did."""
        for began in (False, True):
            flight = Flight(WINDOW, 1000.0, began)
            await error_of(desk(NOT_SENT).create(flight))
            assert flight.began == began

    @pytest.mark.parametrize("turn", [BROKEN, LATE, refusal("SlowDown", 503), stranger(status=502)])
    async def test_a_flight_that_may_have_been_sent_has_begun(self, turn: Turn) -> None:
        """Also when the cloud has refused it."""
        flight = Flight(WINDOW, 1000.0)
        await error_of(desk(turn).create(flight))
        assert flight.began

    async def test_a_flight_that_is_cancelled_on_the_way_has_begun(self) -> None:
        """Nobody knows how far it came."""
        flight, asked = Flight(WINDOW, 1000.0), asyncio.Event()
        way = Way(30.0, job_reply())
        way.on_request = lambda _number: asked.set()
        task = asyncio.ensure_future(Desk(way).create(flight))
        await asyncio.wait_for(asked.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert flight.began

    async def test_a_flight_refused_for_the_clock_is_not_signed_again(self) -> None:
        """CLOCK_SKEW after one request; the cloud's time is known for the next flight."""
        made = desk(skewed(1_700_001_200), job_reply())
        assert (await error_of(made.create(Flight(WINDOW, 1000.0)))).reason == r.ERROR_REASON_CLOCK_SKEW
        assert len(made.transport.requests) == 1
        assert made.telemetry.retries == []
        assert made.times.now(BUCKET.ci_host) == 1_700_001_200


class TestWithoutReply:
    @pytest.mark.parametrize("ask", ASKS)
    async def test_a_request_without_a_connection_is_unreachable_and_repeatable(self, ask: str) -> None:
        """UPSTREAM_UNREACHABLE with a time to retry: nothing was sent, so repeating a create is safe."""
        error = await error_of(ASKS[ask](desk(NOT_SENT)))
        assert error.reason == r.ERROR_REASON_UPSTREAM_UNREACHABLE
        assert error.retry_after == 1.0

    @pytest.mark.parametrize(
        ("turn", "message"),
        [
            (NOT_SENT, "no connection to the cloud: refused"),
            (BROKEN, "the connection to the cloud broke: closed"),
        ],
        ids=["not-sent", "broken"],
    )
    async def test_the_error_of_an_exchange_without_a_reply_has_its_cause(
        self, turn: TransportError, message: str
    ) -> None:
        """In the words of the transport."""
        assert (await error_of(desk(turn).get())).message == message

    async def test_the_outcome_of_a_create_with_a_reply_that_is_no_http_is_unknown(self) -> None:
        """It was sent: it may have been made."""
        flight = Flight(WINDOW, 1000.0)
        error = await error_of(desk(not_http("Duplicate Content-Length")).create(flight))
        assert error.reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
        assert "the reply is not HTTP: two lengths" in error.message
        assert flight.began

    @pytest.mark.parametrize("silence", [BROKEN, LATE], ids=["broken", "late"])
    async def test_a_create_with_a_lost_reply_has_an_unknown_outcome(self, silence: TransportError) -> None:
        """CREATE_OUTCOME_UNKNOWN after one attempt, without a time to retry."""
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
    async def test_a_read_with_a_lost_reply_has_a_transient_reason(
        self, ask: str, silence: TransportError, reason: ErrorReason.ValueType
    ) -> None:
        """The error has a time to retry."""
        error = await error_of(ASKS[ask](desk(silence)))
        assert error.reason == reason
        assert error.retry_after == RETRYABLE[reason]


class TestDeadlines:
    @pytest.mark.parametrize("left", [-10.0, 0.0, 0.04])
    @pytest.mark.parametrize("ask", ["create", "get"])
    async def test_a_call_past_its_deadline_is_not_sent(self, ask: str, left: float) -> None:
        """DEADLINE_EXCEEDED, for a create too, since nothing was sent."""
        made = desk(job_reply())
        made.call = call(left)
        assert (await error_of(ASKS[ask](made))).reason == r.ERROR_REASON_DEADLINE_EXCEEDED
        assert made.transport.requests == []

    async def test_a_read_ends_before_the_callers_deadline(self) -> None:
        """DEADLINE_EXCEEDED, a margin before the deadline."""
        made = desk(30.0, job_reply())
        made.call = call(0.15)
        assert (await error_of(made.get())).reason == r.ERROR_REASON_DEADLINE_EXCEEDED
        assert asyncio.get_running_loop().time() < made.call.deadline

    async def test_a_create_past_the_callers_deadline_has_an_unknown_outcome(self) -> None:
        """The request was sent. The error is raised before the deadline."""
        made = desk(30.0, job_reply())
        made.call = call(0.15)
        assert (await error_of(made.create())).reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
        assert asyncio.get_running_loop().time() < made.call.deadline

    async def test_a_read_past_the_clients_timeout_is_an_upstream_timeout(self) -> None:
        """UPSTREAM_TIMEOUT, whatever time the caller has left."""
        made = desk(30.0, job_reply(), timeout=0.05)
        assert (await error_of(made.get())).reason == r.ERROR_REASON_UPSTREAM_TIMEOUT

    async def test_both_attempts_share_one_timeout(self) -> None:
        """The second attempt does not restart the timeout."""
        made = desk(skewed(1_700_001_200), 30.0, job_reply(), timeout=0.05)
        assert (await error_of(made.get())).reason == r.ERROR_REASON_UPSTREAM_TIMEOUT

    async def test_a_cancelled_call_raises_its_cancellation(self) -> None:
        """CancelledError is not translated."""
        made = desk(30.0, job_reply())
        task = asyncio.ensure_future(made.create())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


NO_SUCH_KEY = "<Error><Code>NoSuchKey</Code><Message>m</Message>{}<RequestId>1</RequestId>{}</Error>"

STRANGERS = {
    "empty 404": stranger(status=404),
    "page of a proxy": stranger("<html><body>404 Not Found</body></html>", status=404, headers={"server": "nginx"}),
    "JSON": stranger('{"code": "NoSuchJob", "message": "m", "request_id": "1"}', status=404),
    "another store": stranger(NO_SUCH_KEY.format("", "<HostId>h</HostId>"), status=404),
    "a store with a resource": stranger(NO_SUCH_KEY.format("<Resource>/</Resource>", ""), status=404),
    "a store by its headers": stranger(NO_SUCH_KEY.format("", ""), status=404, headers={"x-amz-request-id": "1"}),
    "the cloud's own store": stranger(NO_SUCH_KEY.format("", ""), status=404, headers={"server": "tencent-cos"}),
    "an error without request id": stranger("<Error><Code>NoSuchJob</Code></Error>", status=404),
    "an error with two codes": stranger("<Error><Code>NoSuchJob</Code><Code>x</Code><RequestId>1</RequestId></Error>"),
    "portal": stranger("<html>log in</html>"),
    "redirect to a portal": stranger(status=302, headers={"location": "http://portal.invalid/"}),
    "an empty response": stranger("<Response/>"),
    "a response of others": stranger("<Response><Status>1</Status></Response>", status=404),
    "forbidden": stranger("<html>blocked</html>", status=403),
    "login wanted": stranger(status=401, headers={"www-authenticate": "Basic"}),
    "proxy's login wanted": stranger(status=407, headers={"proxy-authenticate": "Basic"}),
}

OF_CI_BY_ITS_BODY = {
    "missing": stranger("<Response><NonExistJobIds>d1</NonExistJobIds></Response>"),
    "missing, with 404": stranger("<Response><NonExistJobIds>d1</NonExistJobIds></Response>", status=404),
    "missing, in a list": stranger("<Response><NonExistJobIds>d0, d1</NonExistJobIds></Response>"),
    "no details": stranger("<Response><JobsDetail/></Response>"),
    "error": stranger("<Error><Code>NoSuchJob</Code><RequestId>1</RequestId></Error>", status=404),
    "error in a namespace": stranger('<Error xmlns="urn:x"><Code>NoSuchJob</Code><RequestId>1</RequestId></Error>'),
}


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
            reply(f"<Response>{job_detail('d1')}{job_detail('d2')}</Response>"),
        ],
        ids=["500", "503", "502", "504", "408", "garbage", "no-job-id", "cut", "two"],
    )
    async def test_a_create_that_may_have_been_accepted_has_an_unknown_outcome(self, answer: HttpReply) -> None:
        """CREATE_OUTCOME_UNKNOWN after one attempt."""
        made = desk(answer)
        error = await error_of(made.create())
        assert error.reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
        assert error.retry_after is None
        assert len(made.transport.requests) == 1

    @pytest.mark.parametrize("inner", OF_THIS_CREATE)
    async def test_a_reply_about_the_job_of_the_create_is_its_job(self, inner: str) -> None:
        """What the reply leaves out is not compared, and a template may come back with its numbers."""
        assert (await desk(made_reply(inner)).create()).job_id == "d7"

    @pytest.mark.parametrize("inner", OF_ANOTHER_CREATE)
    async def test_a_reply_about_another_document_output_or_marker_has_an_unknown_outcome(self, inner: str) -> None:
        """The job may be another caller's."""
        error = await error_of(desk(made_reply(inner)).create())
        assert error.reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
        assert "hidden" not in error.message

    async def test_an_unknown_outcome_keeps_the_facts_of_the_reply(self) -> None:
        """Code, status and request id of the cloud."""
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
    async def test_a_create_refused_before_admission_has_the_refusals_reason(
        self, answer: HttpReply, reason: ErrorReason.ValueType
    ) -> None:
        """Throttling is such a refusal."""
        assert (await error_of(desk(answer).create())).reason == reason

    async def test_the_clouds_retry_after_is_passed_on(self) -> None:
        """`retry_after` of the error is the cloud's."""
        error = await error_of(desk(refusal("SlowDown", 503, headers={"retry-after": "7"})).create())
        assert error.retry_after == 7.0

    @pytest.mark.parametrize("status", [301, 302, 307])
    async def test_a_redirect_is_wrong_region_and_is_not_followed(self, status: int) -> None:
        """Any status 3xx."""
        made = desk(reply(status=status, headers={"location": "http://169.254.169.254/"}))
        assert (await error_of(made.get())).reason == r.ERROR_REASON_WRONG_REGION
        assert len(made.transport.requests) == 1

    async def test_a_404_without_a_code_is_job_not_found(self) -> None:
        """The reply to a get has no body."""
        error = await error_of(desk(reply(status=404)).get())
        assert error.reason == r.ERROR_REASON_JOB_NOT_FOUND
        assert isinstance(error, UpstreamError)
        assert error.facts.http_status == 404

    @pytest.mark.parametrize("answer", STRANGERS.values(), ids=list(STRANGERS))
    async def test_only_the_cloud_itself_says_that_a_job_does_not_exist(self, answer: HttpReply) -> None:
        """A reply of something on the way is UPSTREAM_BAD_RESPONSE, whatever it says of jobs."""
        error = await error_of(desk(answer).get())
        assert error.reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE
        assert "on the way" in error.message

    async def test_a_404_that_carries_a_job_does_not_say_that_there_is_none(self) -> None:
        """Status and body contradict each other."""
        body = f"<Response>{job_detail('d1')}</Response>"
        assert (await error_of(desk(reply(body, status=404)).get())).reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE

    @pytest.mark.parametrize("answer", STRANGERS.values(), ids=list(STRANGERS))
    @pytest.mark.parametrize("ask", ["list_jobs", "list_queues"])
    async def test_only_the_cloud_itself_says_that_a_list_is_empty(self, ask: str, answer: HttpReply) -> None:
        """An empty list proves that a create has made no job."""
        assert (await error_of(ASKS[ask](desk(answer)))).reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE

    @pytest.mark.parametrize("answer", STRANGERS.values(), ids=list(STRANGERS))
    async def test_only_the_cloud_itself_refuses_a_create(self, answer: HttpReply) -> None:
        """What answered may have passed the create on: the outcome is unknown."""
        made = desk(answer)
        assert (await error_of(made.create())).reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
        assert len(made.transport.requests) == 1

    @pytest.mark.parametrize("ask", ["create", "get"])
    async def test_only_the_cloud_itself_sets_the_clock(self, ask: str) -> None:
        """A stranger's refusal of the clock leads to no second attempt, and changes no signature."""
        headers = {"date": http_date(1_800_000_000), "x-amz-request-id": "1"}
        body = "<Error><Code>RequestTimeTooSkewed</Code><RequestId>1</RequestId></Error>"
        made = desk(stranger(body, status=403, headers=headers), job_reply())
        await error_of(ASKS[ask](made))
        await made.get()
        assert len(made.transport.requests) == 2
        assert "q-key-time=1699999940;" in made.transport.requests[1].headers["authorization"]

    @pytest.mark.parametrize("answer", OF_CI_BY_ITS_BODY.values(), ids=list(OF_CI_BY_ITS_BODY))
    async def test_a_body_in_the_clouds_form_counts_without_its_headers(self, answer: HttpReply) -> None:
        """A proxy may remove headers that it does not know."""
        assert (await error_of(desk(answer).get())).reason == r.ERROR_REASON_JOB_NOT_FOUND

    async def test_an_error_with_status_200_is_that_error(self) -> None:
        """For creates too: the cloud says that it refused."""
        answer = refusal("QueueNotFound", 200)
        assert (await error_of(desk(answer).create())).reason == r.ERROR_REASON_QUEUE_NOT_FOUND
        assert (await error_of(desk(refusal("Unheard", 200)).create())).reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN

    async def test_the_code_of_a_404_decides(self) -> None:
        """The code is more specific than the status."""
        error = await error_of(desk(refusal("NoSuchBucket", 404)).get())
        assert error.reason == r.ERROR_REASON_BUCKET_NOT_FOUND

    @pytest.mark.parametrize("ask", ["get", "list_jobs"])
    async def test_a_missing_object_is_no_answer_to_a_read_of_jobs(self, ask: str) -> None:
        """NoSuchKey is the answer of a store: it says nothing about jobs."""
        error = await error_of(getattr(desk(refusal("NoSuchKey", 404)), ask)())
        assert error.reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE
        assert isinstance(error, UpstreamError)
        assert error.facts.code == "NoSuchKey"

    async def test_a_200_without_a_job_is_job_not_found(self) -> None:
        """The usual reply of the cloud for a missing job."""
        answer = reply("<Response><NonExistJobIds>d1</NonExistJobIds></Response>")
        assert (await error_of(desk(answer).get())).reason == r.ERROR_REASON_JOB_NOT_FOUND

    async def test_a_reply_about_another_job_is_a_bad_response(self) -> None:
        """Data of another job is never returned."""
        assert (await error_of(desk(job_reply("d2")).get())).reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE
        other = reply("<Response><NonExistJobIds>d2</NonExistJobIds></Response>")
        assert (await error_of(desk(other).get())).reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE

    @pytest.mark.parametrize("ask", ["get", "list_jobs"])
    @pytest.mark.parametrize(
        "body",
        [
            "<Response><jobsDetail><JobId>d1</JobId></jobsDetail></Response>",
            "<Response><JobsDetail><JobId/><State>Success</State></JobsDetail></Response>",
            "<Response><JobsDetail>d1</JobsDetail></Response>",
            '<Response><JobsDetail xmlns="urn:x"><JobId>d1</JobId></JobsDetail></Response>',
            "<Response><JobsDetail><JobId>d1</JobId><JobId>d2</JobId></JobsDetail></Response>",
            "<Response><JobsDetail><JobId>d1</JobId><State>Failed</State><State>Success</State></JobsDetail></Response>",
        ],
        ids=["other-name", "no-id", "text", "other-namespace", "two-ids", "two-states"],
    )
    async def test_a_job_that_cannot_be_read_is_not_a_missing_job(self, ask: str, body: str) -> None:
        """UPSTREAM_BAD_RESPONSE, for lists too."""
        assert (await error_of(ASKS[ask](desk(reply(body))))).reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE

    async def test_a_big_reply_has_the_same_result_as_a_small_one(self) -> None:
        """It is parsed in a thread."""
        padding = f"<!--{'x' * BIG_REPLY_BYTES}-->"
        made = desk(reply(f"<Response>{job_detail('d1', 'Running')}{padding}</Response>"))
        assert (await made.get()).state == PreviewJob.STATE_RUNNING

    async def test_a_big_malformed_reply_has_the_same_error_as_a_small_one(self) -> None:
        """The error is raised in the thread."""
        made = desk(reply(b"x" * BIG_REPLY_BYTES))
        assert (await error_of(made.get())).reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE


class TestTooLarge:
    async def test_a_list_whose_reply_is_too_large_raises_reply_too_large(self) -> None:
        """The caller of the list requests a smaller page."""
        with pytest.raises(ReplyTooLarge):
            await desk(ReplyTooLarge()).list_jobs()

    @pytest.mark.parametrize("ask", ["get", "list_queues"])
    async def test_a_read_whose_reply_is_too_large_is_a_bad_response(self, ask: str) -> None:
        """No valid reply is that large."""
        assert (await error_of(ASKS[ask](desk(ReplyTooLarge())))).reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE

    async def test_a_create_whose_reply_is_too_large_has_an_unknown_outcome(self) -> None:
        """The job may exist."""
        assert (await error_of(desk(ReplyTooLarge()).create())).reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
