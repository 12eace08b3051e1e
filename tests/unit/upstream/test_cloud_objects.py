"""The object store: the signed requests, and the meaning of each reply."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.cloud_objects import CloudObjects
from docpreview_gateway.upstream.middleware.concurrency_limited import HostLimiterRules, HostLimiters
from docpreview_gateway.upstream.policies.adaptive_limit import LimitBounds
from docpreview_gateway.upstream.policies.host_breaker import BreakerRules
from docpreview_gateway.upstream.ports import ObjectFacts, ObjectPiece, TransportError
from docpreview_gateway.upstream.wire.requests import head_object
from docpreview_gateway.upstream.wire.signing import Window, presign
from tests.fakes.clock import FakeClock
from tests.fakes.credentials import FakeCredentials
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.transport import FakeTransport, Turn, stranger

if TYPE_CHECKING:
    from docpreview_gateway.upstream.wire.http import HttpReply

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")


def reply(*, status: int = 200, headers: dict[str, str] | None = None, body: bytes = b"") -> HttpReply:
    """A reply of the object store, which names itself in a header."""
    return stranger(body, status=status, headers={"server": "tencent-cos", **(headers or {})})


class Scene:
    def __init__(self, *script: Turn) -> None:
        self.transport, self.telemetry, self.clock = FakeTransport(*script), FakeTelemetry(), FakeClock()
        self.passed = 0.0
        """What is monotonic, in seconds."""
        rules = HostLimiterRules(BreakerRules(calls=2, open_seconds=60), LimitBounds(2, 1, 2, 2))
        host_limiters = HostLimiters(rules=rules, telemetry=self.telemetry, jitter=lambda: 0.5)
        self.tags = CloudObjects(
            self.transport,
            FakeCredentials(),
            CloudTimes(self.clock, lambda: self.passed),
            host_limiters=host_limiters,
            telemetry=self.telemetry,
        )

    async def tag(self, seconds: float = 5.0) -> str:
        call = Call("r1", asyncio.get_running_loop().time() + seconds)
        return await self.tags.tag(BUCKET, "in/ä b.pdf", call)

    async def refused(self, seconds: float = 5.0) -> ErrorReason.ValueType:
        with pytest.raises(GatewayError) as caught:
            await self.tag(seconds)
        return caught.value.reason


async def test_a_tag_is_read_by_a_signed_head_of_the_object() -> None:
    """The HEAD goes to the bucket's object host, signed in its query."""
    scene = Scene(reply(headers={"etag": '"abc"', "x-cos-version-id": "v"}))
    assert await scene.tag() == '"abc"'
    (sent,) = scene.transport.requests
    signed = presign(
        head_object(BUCKET, "in/ä b.pdf"), FakeCredentials().credentials("main"), Window.around(scene.clock.now())
    )
    assert sent == signed
    assert (sent.method, sent.host) == ("HEAD", "docs-1250000000.cos.ap-chongqing.myqcloud.com")
    assert sent.target.startswith("/in/%C3%A4%20b.pdf?q-sign-algorithm=sha1&")
    assert scene.telemetry.attempts == [("head_object", "OK")]


@pytest.mark.parametrize(("headers", "tag"), [({"x-cos-version-id": "v7"}, "v7"), ({}, "")])
async def test_without_an_etag_the_version_id_is_the_tag(headers: dict[str, str], tag: str) -> None:
    """Without either the tag is empty."""
    assert await Scene(reply(headers=headers)).tag() == tag


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply(status=404), r.ERROR_REASON_INPUT_OBJECT_NOT_FOUND),
        (reply(status=403), r.ERROR_REASON_INPUT_OBJECT_UNREADABLE),
        (reply(status=503), r.ERROR_REASON_UPSTREAM_UNAVAILABLE),
        (reply(status=307, headers={"etag": "x"}), r.ERROR_REASON_WRONG_REGION),
        (TransportError("gone", sent=True), r.ERROR_REASON_UPSTREAM_UNAVAILABLE),
    ],
)
async def test_each_refusal_has_its_reason_and_is_counted_by_it(
    answer: HttpReply | Exception, reason: ErrorReason.ValueType
) -> None:
    """The metric has the reason of the error."""
    scene = Scene(answer)
    assert await scene.refused() == reason
    assert scene.telemetry.attempts == [("head_object", ErrorReason.Name(reason).removeprefix("ERROR_REASON_"))]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (stranger(status=404), r.ERROR_REASON_UPSTREAM_BAD_RESPONSE),
        (stranger(status=403, headers={"server": "nginx"}), r.ERROR_REASON_UPSTREAM_BAD_RESPONSE),
        (
            stranger(status=404, headers={"server": "MinIO", "x-amz-request-id": "1"}),
            r.ERROR_REASON_UPSTREAM_BAD_RESPONSE,
        ),
        (stranger(status=404, headers={"server": "tencent-ci"}), r.ERROR_REASON_UPSTREAM_BAD_RESPONSE),
        (stranger(headers={"etag": '"portal"'}), r.ERROR_REASON_UPSTREAM_BAD_RESPONSE),
        (stranger(status=502), r.ERROR_REASON_UPSTREAM_UNAVAILABLE),
    ],
    ids=["404", "403", "another-store", "job-api", "portal", "502"],
)
async def test_only_the_object_store_itself_says_what_an_object_is(
    answer: HttpReply, reason: ErrorReason.ValueType
) -> None:
    """A portal's own tag would make two documents equal, and a proxy's 404 would say that there is none."""
    assert await Scene(answer).refused() == reason


async def test_a_hanging_store_is_given_up_at_the_deadline() -> None:
    """DEADLINE_EXCEEDED."""
    assert await Scene(30.0, reply()).refused(0.05) == r.ERROR_REASON_DEADLINE_EXCEEDED


async def test_a_failing_store_opens_its_own_breaker() -> None:
    """The breaker has the name of the object host."""
    scene = Scene(reply(status=503))
    for _ in range(2):
        await scene.refused()
    assert await scene.refused() == r.ERROR_REASON_UPSTREAM_BREAKER_OPEN
    assert len(scene.transport.requests) == 2
    assert scene.telemetry.breaker_states == [(BUCKET.object_host, "OPEN")]


XML = {"server": "tencent-cos"}


def document(body: str, status: int = 200) -> HttpReply:
    """A reply of the object store with a body."""
    return stranger(body, status=status, headers=XML)


def error(code: str, status: int) -> HttpReply:
    """A refusal of the object store."""
    return document(f"<Error><Code>{code}</Code><Resource>r</Resource><RequestId>1</RequestId></Error>", status)


def a_call() -> Call:
    return Call("r1", asyncio.get_running_loop().time() + 5)


async def test_the_facts_of_an_object_are_read_by_head() -> None:
    """Its CRC-64 in decimal, and the upload that made it. A reply without length or ETag is not understood."""
    headers = {"content-length": "7", "etag": '"e"', "x-cos-hash-crc64ecma": "18446744073709551615"}
    scene = Scene(reply(headers=headers | {"x-cos-meta-docpreview-upload": "0f"}))
    assert await scene.tags.head(BUCKET, "k", a_call()) == ObjectFacts(7, '"e"', 2**64 - 1, "0f")
    scene = Scene(reply(headers={"content-length": "7", "etag": "e", "x-cos-hash-crc64ecma": "-1"}))
    assert await scene.tags.head(BUCKET, "k", a_call()) == ObjectFacts(7, "e", None, "")
    with pytest.raises(GatewayError, match="without the ETag"):
        await Scene(reply(headers={"content-length": "7"})).tags.head(BUCKET, "k", a_call())
    with pytest.raises(GatewayError, match="without the length"):
        await Scene(reply()).tags.head(BUCKET, "k", a_call())


async def test_a_piece_is_read_by_a_signed_range() -> None:
    """The whole object's length is in the reply's range, or is that of the body."""
    scene = Scene(stranger(b"bcd", status=206, headers=XML | {"content-range": "bytes 1-3/90"}))
    assert await scene.tags.read(BUCKET, "k", (1, 3), a_call()) == ObjectPiece(b"bcd", 90)
    (sent,) = scene.transport.requests
    assert (sent.method, sent.headers["range"]) == ("GET", "bytes=1-3")
    assert "q-header-list=host%3Brange" in sent.target
    assert await Scene(document("abc")).tags.read(BUCKET, "k", (0, 9), a_call()) == ObjectPiece(b"abc", 3)
    with pytest.raises(GatewayError, match="without the range"):
        await Scene(document("abc", 206)).tags.read(BUCKET, "k", (0, 9), a_call())


async def test_a_multipart_upload_is_begun_completed_and_aborted_by_signed_requests() -> None:
    """Each is counted as an attempt of its own kind, and its request id is the call's."""
    begun = "<InitiateMultipartUploadResult><Bucket>b</Bucket><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
    done = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
    scene, call = Scene(document(begun), document(f"\n  \n{done}"), document("", 204)), a_call()
    assert await scene.tags.initiate(BUCKET, "k", {"content-type": "a/b"}, call) == "u1"
    await scene.tags.complete(BUCKET, "k", "u1", ['"1"', '"2"'], {"x-cos-forbid-overwrite": "true"}, call)
    await scene.tags.abort(BUCKET, "k", "u1", call)
    first, second, third = scene.transport.requests
    assert (first.method, first.query[0], first.headers["content-type"]) == ("POST", ("uploads", ""), "a/b")
    assert (second.method, second.query[0]) == ("POST", ("uploadId", "u1"))
    assert second.headers["x-cos-forbid-overwrite"] == "true"
    assert b'<Part><PartNumber>2</PartNumber><ETag>"2"</ETag></Part>' in second.body
    assert (third.method, third.query[0]) == ("DELETE", ("uploadId", "u1"))
    assert all(dict(sent.query)["q-signature"] for sent in scene.transport.requests)
    names = ["initiate_multipart", "complete_multipart", "abort_multipart"]
    assert scene.telemetry.attempts == [(name, "OK") for name in names]


@pytest.mark.parametrize(
    "answer",
    [
        error("InvalidPart", 400),
        # The cloud answers 200 before it has put the parts together.
        document("\n \n<Error><Code>InvalidPart</Code><RequestId>1</RequestId></Error>"),
    ],
)
async def test_a_completion_that_fails_has_the_code_of_the_cloud(answer: HttpReply) -> None:
    """Whatever its status."""
    with pytest.raises(UpstreamError) as caught:
        await Scene(answer).tags.complete(BUCKET, "k", "u1", ["1"], {}, a_call())
    assert caught.value.facts.code == "InvalidPart"


@pytest.mark.parametrize(
    ("answer", "request_id"),
    [
        (reply(status=404, headers={"x-cos-request-id": "cos-2"}), "cos-2"),
        (TransportError("slow", sent=True, timed_out=True), ""),
    ],
)
async def test_a_call_has_the_stores_id_of_the_request_that_failed(answer: Turn, request_id: str) -> None:
    """None without a reply, and not that of the request before."""
    scene, made = Scene(reply(headers={"x-cos-request-id": "cos-1", "etag": "e"}), answer), a_call()
    await scene.tags.tag(BUCKET, "k", made)
    assert made.response.upstream_request_id == "cos-1"
    with pytest.raises(UpstreamError):
        await scene.tags.tag(BUCKET, "k", made)
    assert made.response.upstream_request_id == request_id


@pytest.mark.parametrize("body", ["", "<html/>", "<CompleteMultipartUploadResult>"])
async def test_a_reply_that_is_not_the_clouds_form_is_no_completion(body: str) -> None:
    """Nor a begin."""
    for call in (
        Scene(document(body)).tags.complete(BUCKET, "k", "u1", ["1"], {}, a_call()),
        Scene(document(body)).tags.initiate(BUCKET, "k", {}, a_call()),
    ):
        with pytest.raises(UpstreamError) as caught:
            await call
        assert caught.value.reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE


DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
"""1,700,000,000 s, at which a `FakeClock` begins."""

FALSE_DATES = (
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Tue, 14 Nov 2023 20:13:20 GMT",
    "Fri, 31 Dec 2199 23:59:59 GMT",
    "Wed, 15 Nov 2023 22:13:20 GMT",
)
"""Dates far from `DATE`."""


@pytest.mark.parametrize("ahead", [-90_000.0, 90_000.0])
async def test_a_request_that_was_signed_by_a_wrong_clock_is_sent_once_more_by_the_stores(ahead: float) -> None:
    """The refusal of a HEAD does not say why: it is taken as one of the clock when the clock was wrong."""
    scene = Scene(reply(status=403, headers={"date": DATE}), reply(headers={"etag": "e", "date": DATE}))
    scene.clock.time += ahead
    assert await scene.tag() == "e"
    assert "q-sign-time=1699999940" in scene.transport.requests[1].target


async def test_a_refusal_by_a_right_clock_is_not_repeated() -> None:
    """Nor a second one. Only its reason is asked for, by a read of one byte, whose refusal has a body."""
    scene = Scene(reply(status=403, headers={"date": DATE}))
    assert await scene.refused() == r.ERROR_REASON_INPUT_OBJECT_UNREADABLE
    assert [(each.method, each.headers.get("range")) for each in scene.transport.requests] == [
        ("HEAD", None),
        ("GET", "bytes=0-0"),
    ]
    scene = Scene(reply(status=403, headers={"date": DATE}))
    scene.clock.time += 90_000
    assert await scene.refused() == r.ERROR_REASON_INPUT_OBJECT_UNREADABLE
    assert [each.method for each in scene.transport.requests] == ["HEAD", "HEAD", "GET"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("SignatureDoesNotMatch", r.ERROR_REASON_UPSTREAM_CREDENTIALS),
        ("InvalidAccessKeyId", r.ERROR_REASON_UPSTREAM_CREDENTIALS),
        ("AccessDenied", r.ERROR_REASON_INPUT_OBJECT_UNREADABLE),
    ],
)
async def test_a_document_is_not_blamed_for_a_key_that_the_store_refuses(
    code: str, reason: ErrorReason.ValueType
) -> None:
    """The reply to HEAD is the same in each case."""
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    scene = Scene(reply(status=403, headers={"date": DATE}), reply(status=403, headers={"date": DATE}, body=body))
    assert await scene.refused() == reason


@pytest.mark.parametrize("status", [200, 403, 404, 503])
async def test_the_stores_time_is_asked_for_once(status: int) -> None:
    """A refusal tells it too. From then on our wall clock does not matter."""
    scene = Scene(reply(status=status, headers={"date": DATE, "etag": "e", "content-length": "7"}))
    scene.clock.time -= 10
    for _ in range(2):
        assert 0 <= await scene.tags.now(BUCKET, "k", a_call()) - 1_700_000_000 < 2
        scene.clock.time += 90_000
    # Why a HEAD is refused is asked as well.
    assert len(scene.transport.requests) == (2 if status == 403 else 1)


async def test_the_stores_time_is_asked_for_again_after_a_minute() -> None:
    """A wrong one is mended so, although the gateway itself asks the store for nothing else. Unreachable: it counts."""
    scene = Scene(
        reply(headers={"date": "Tue, 14 Nov 2023 22:03:20 GMT", "etag": "e", "content-length": "7"}),
        reply(headers={"date": DATE, "etag": "e", "content-length": "7"}),
        TransportError("refused", sent=False),
    )
    assert await scene.tags.now(BUCKET, "k", a_call()) == 1_700_000_000 - 600
    scene.passed += 61
    assert await scene.tags.now(BUCKET, "k", a_call()) == 1_700_000_000
    scene.passed += 61
    assert await scene.tags.now(BUCKET, "k", a_call()) == 1_700_000_061


@pytest.mark.parametrize("date", FALSE_DATES)
async def test_a_date_that_cannot_be_beside_an_accepted_signature_is_not_believed(date: str) -> None:
    """A box on the way without a clock writes such ones."""
    scene = Scene(reply(headers={"date": date, "etag": "e", "content-length": "7"}))
    for _ in range(2):
        await scene.tag()
    assert all("q-sign-time=1699999940" in each.target for each in scene.transport.requests)


async def test_the_date_of_a_store_that_refuses_what_was_signed_by_it_is_forgotten() -> None:
    """The next request is signed by our clock again."""
    late = "<Error><Code>RequestTimeTooSkewed</Code></Error>"
    wrong = {"date": FALSE_DATES[-1]}
    scene = Scene(
        reply(status=403, headers=wrong),
        reply(status=403, headers=wrong),
        reply(status=403, headers=wrong, body=late.encode()),
        reply(headers={"etag": "e"}),
    )
    assert await scene.refused() == r.ERROR_REASON_CLOCK_SKEW
    assert await scene.tag() == "e"
    assert "q-sign-time=1699999940" in scene.transport.requests[-1].target


async def test_without_an_answer_of_the_store_its_time_is_not_known() -> None:
    """The error is that of the connection, or of the stranger who answered."""
    with pytest.raises(GatewayError) as caught:
        await Scene(TransportError("refused", sent=False)).tags.now(BUCKET, "k", a_call())
    assert caught.value.reason == r.ERROR_REASON_UPSTREAM_UNREACHABLE
    with pytest.raises(GatewayError):
        await Scene(stranger(headers={"date": DATE})).tags.now(BUCKET, "k", a_call())
