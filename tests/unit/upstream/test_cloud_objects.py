"""Tags of objects: the signed request, and the meaning of each reply."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.cloud_objects import CloudObjects
from docpreview_gateway.upstream.middleware.concurrency_limited import HostLimiterRules, HostLimiters
from docpreview_gateway.upstream.policies.adaptive_limit import LimitBounds
from docpreview_gateway.upstream.policies.host_breaker import BreakerRules
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire.requests import head_object
from docpreview_gateway.upstream.wire.signing import Window, presign
from tests.fakes.clock import FakeClock
from tests.fakes.credentials import FakeCredentials
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.transport import FakeTransport, Turn, stranger

if TYPE_CHECKING:
    from docpreview_gateway.upstream.wire.http import HttpReply

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")


def reply(*, status: int = 200, headers: dict[str, str] | None = None) -> HttpReply:
    """A reply of the object store, which names itself in a header."""
    return stranger(status=status, headers={"server": "tencent-cos", **(headers or {})})


class Scene:
    def __init__(self, *script: Turn) -> None:
        self.transport, self.telemetry, self.clock = FakeTransport(*script), FakeTelemetry(), FakeClock()
        rules = HostLimiterRules(BreakerRules(calls=2, open_seconds=60), LimitBounds(2, 1, 2, 2))
        host_limiters = HostLimiters(rules=rules, telemetry=self.telemetry, jitter=lambda: 0.5)
        self.tags = CloudObjects(
            self.transport,
            FakeCredentials(),
            CloudTimes(self.clock),
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
