"""Failed attempts are made again where that is safe, soon enough, and rare enough."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call, SharedRead
from docpreview_gateway.model.errors import GatewayError, UpstreamError, UpstreamFacts
from docpreview_gateway.upstream.middleware.retrying import Retrying
from docpreview_gateway.upstream.operations import CreateJob, GetJob, ListJobs, ListQueues
from docpreview_gateway.upstream.policies.retry_policy import RetryPolicy
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
REQUEST = CreatePreviewJobRequest(bucket=BUCKET.name, input_object="a.pdf")
QUICK = RetryPolicy(retries=2, base=0.001, cap=0.002)


class Scene:
    """A cloud that fails as told, behind retries that do not wait long."""

    def __init__(self, policy: RetryPolicy = QUICK) -> None:
        self.cloud = FakeUpstream()
        self.cloud.add_job(BUCKET.name, "d1", PreviewJob.STATE_RUNNING)
        self.cloud.objects.add((BUCKET.name, "a.pdf"))
        self.telemetry = FakeTelemetry()
        self.clock = FakeClock()
        self.upstream = Retrying(
            self.cloud, policy=policy, clock=self.clock, telemetry=self.telemetry, jitter=lambda: 0.5
        )

    def fails(self, *reasons: r.ErrorReason.ValueType, asked_wait: float = 0.0) -> None:
        facts = UpstreamFacts(asked_wait=asked_wait)
        self.cloud.failures += [UpstreamError(reason, "no", facts=facts) for reason in reasons]

    async def get(self, call: Call | None = None) -> PreviewJob:
        return await self.upstream(GetJob(BUCKET, "d1"), call or within(30))

    async def create(self, call: Call | None = None, *, sign_until: float | None = None) -> PreviewJob:
        return await self.upstream(CreateJob(REQUEST, BUCKET, BUCKET, sign_until), call or within(30))


def within(seconds: float, read: SharedRead | None = None) -> Call:
    return Call("r1", asyncio.get_running_loop().time() + seconds, shared_read=read)


ASKS: dict[str, Callable[[Scene], Awaitable[object]]] = {
    "create": Scene.create,
    "get": Scene.get,
    "list_jobs": lambda scene: scene.upstream(ListJobs(ListPreviewJobsRequest(), BUCKET, 10, ""), within(30)),
    "list_queues": lambda scene: scene.upstream(ListQueues(ListPreviewQueuesRequest(), BUCKET, 10, 1), within(30)),
}


@pytest.mark.parametrize("operation", ASKS)
async def test_cloud_that_throttles_twice(operation: str) -> None:
    """The third attempt answers; the caller hears of nothing, the metrics do."""
    scene = Scene()
    scene.fails(r.ERROR_REASON_UPSTREAM_THROTTLED, r.ERROR_REASON_UPSTREAM_UNREACHABLE)
    assert await ASKS[operation](scene)
    assert [asked for asked, _ in scene.cloud.asked] == [operation] * 3
    assert scene.telemetry.retries == [(operation, "made")] * 2


async def test_cloud_that_fails_for_good() -> None:
    """The last attempt's error, after as many attempts as the policy allows."""
    scene = Scene()
    scene.fails(*[r.ERROR_REASON_UPSTREAM_UNAVAILABLE] * 2, r.ERROR_REASON_UPSTREAM_INTERNAL)
    with pytest.raises(UpstreamError) as caught:
        await scene.get()
    assert caught.value.reason == r.ERROR_REASON_UPSTREAM_INTERNAL
    assert len(scene.cloud.asked) == 3


@pytest.mark.parametrize(
    "error",
    [
        UpstreamError(r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "sent"),
        UpstreamError(r.ERROR_REASON_UPSTREAM_BREAKER_OPEN, "open"),
        UpstreamError(r.ERROR_REASON_QUEUE_NOT_FOUND, "no such queue"),
        GatewayError(r.ERROR_REASON_DEADLINE_EXCEEDED, "too late"),
    ],
)
async def test_create_that_must_not_be_repeated(error: GatewayError) -> None:
    """One attempt, whatever that means for the caller."""
    scene = Scene()
    scene.cloud.failures.append(error)
    with pytest.raises(GatewayError) as caught:
        await scene.create()
    assert caught.value is error
    assert len(scene.cloud.asked) == 1


async def test_create_whose_second_attempt_is_lost() -> None:
    """The unknown outcome is told, and not tried again."""
    scene = Scene()
    scene.fails(r.ERROR_REASON_UPSTREAM_THROTTLED, r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN)
    with pytest.raises(UpstreamError) as caught:
        await scene.create()
    assert caught.value.reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
    assert len(scene.cloud.asked) == 2


async def test_wait_that_the_cloud_asks_for() -> None:
    """It is kept when it fits."""
    scene = Scene()
    scene.fails(r.ERROR_REASON_UPSTREAM_THROTTLED, asked_wait=0.05)
    begin = asyncio.get_running_loop().time()
    await scene.get()
    assert asyncio.get_running_loop().time() - begin >= 0.05


@pytest.mark.parametrize(
    ("asked_wait", "seconds", "read", "sign_until"),
    [
        (9.0, 10.0, None, None),
        (60.0, 30.0, None, None),
        (1.0, 30.0, SharedRead(wanted_by=0.0), None),
        (2.0, 30.0, None, FakeClock().now() + 2.0),
    ],
    ids=["last fifth", "past the deadline", "nobody wants it", "signature ends"],
)
async def test_retry_that_comes_too_late(
    asked_wait: float, seconds: float, read: SharedRead | None, sign_until: float | None
) -> None:
    """None is made: the caller is told the cloud's reason at once."""
    scene = Scene()
    scene.fails(r.ERROR_REASON_UPSTREAM_THROTTLED, asked_wait=asked_wait)
    with pytest.raises(UpstreamError) as caught:
        await scene.create(within(seconds, read), sign_until=sign_until)
    assert caught.value.reason == r.ERROR_REASON_UPSTREAM_THROTTLED
    assert len(scene.cloud.asked) == 1


async def test_recorded_create_while_its_signature_holds() -> None:
    """It is made again like any other."""
    scene = Scene()
    scene.fails(r.ERROR_REASON_UPSTREAM_THROTTLED)
    await scene.create(within(30), sign_until=scene.clock.now() + 45)
    assert len(scene.cloud.asked) == 2


async def test_a_cloud_that_is_down_gets_no_more_retries_than_the_budget() -> None:
    """A cloud that is down gets the calls, the floor, and a tenth more."""
    scene = Scene(RetryPolicy(retries=2, base=0.001, cap=0.002, share=0.1, floor=3))
    scene.fails(*[r.ERROR_REASON_UPSTREAM_UNAVAILABLE] * 1000)
    for _ in range(50):
        with pytest.raises(UpstreamError):
            await scene.get()
    assert len(scene.cloud.asked) == 50 + 3 + 5
    assert scene.telemetry.retries.count(("get", "made")) == 8
    assert ("get", "over_budget") in scene.telemetry.retries
