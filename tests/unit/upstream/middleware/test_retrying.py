"""Retries: only safe ones, in time, and within the budget."""

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
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.middleware.retrying import Retrying
from docpreview_gateway.upstream.operations import CreateJob, Flight, GetJob, ListJobs, ListQueues
from docpreview_gateway.upstream.policies.retry_policy import RetryBudget, RetryPolicy
from docpreview_gateway.upstream.wire.signing import Window
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
REQUEST = CreatePreviewJobRequest(bucket=BUCKET.name, input_object="a.pdf")
WINDOW = Window(0, 105)
QUICK = RetryPolicy(retries=2, base=0.001, cap=0.002)


class Scene:
    """A cloud that fails on demand, behind retries with short backoff."""

    def __init__(self, policy: RetryPolicy = QUICK) -> None:
        self.cloud = FakeUpstream()
        self.cloud.add_job(BUCKET.name, "d1", PreviewJob.STATE_RUNNING)
        self.cloud.objects.add((BUCKET.name, "a.pdf"))
        self.telemetry = FakeTelemetry()
        self.steady = FakeClock(1000.0)
        self.upstream = Retrying(
            self.cloud,
            policy=policy,
            budget=RetryBudget(policy.share, policy.floor),
            times=CloudTimes(FakeClock(), self.steady.now),
            telemetry=self.telemetry,
            jitter=lambda: 0.5,
        )

    def fails(self, *reasons: r.ErrorReason.ValueType, asked_wait: float = 0.0) -> None:
        facts = UpstreamFacts(asked_wait=asked_wait)
        self.cloud.failures += [UpstreamError(reason, "no", facts=facts) for reason in reasons]

    async def get(self, call: Call | None = None) -> PreviewJob:
        return await self.upstream(GetJob(BUCKET, "d1"), call or within(30))

    async def create(self, call: Call | None = None, *, flight: Flight | None = None) -> PreviewJob:
        return await self.upstream(CreateJob(REQUEST, BUCKET, BUCKET, flight), call or within(30))


def within(seconds: float, read: SharedRead | None = None) -> Call:
    return Call("r1", asyncio.get_running_loop().time() + seconds, shared_read=read)


ASKS: dict[str, Callable[[Scene], Awaitable[object]]] = {
    "create": Scene.create,
    "get": Scene.get,
    "list_jobs": lambda scene: scene.upstream(ListJobs(ListPreviewJobsRequest(), BUCKET, 10, ""), within(30)),
    "list_queues": lambda scene: scene.upstream(ListQueues(ListPreviewQueuesRequest(), BUCKET, 10, 1), within(30)),
}


@pytest.mark.parametrize("operation", ASKS)
async def test_a_call_throttled_twice_succeeds_at_the_third_attempt(operation: str) -> None:
    """The retries are counted."""
    scene = Scene()
    scene.fails(r.ERROR_REASON_UPSTREAM_THROTTLED, r.ERROR_REASON_UPSTREAM_UNREACHABLE)
    assert await ASKS[operation](scene)
    assert [asked for asked, _ in scene.cloud.asked] == [operation] * 3
    assert scene.telemetry.retries == [(operation, "made")] * 2


async def test_the_last_error_is_raised_after_all_retries() -> None:
    """The policy limits the number of attempts."""
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
async def test_a_create_that_may_have_been_admitted_is_not_retried(error: GatewayError) -> None:
    """The caller gets the error of the only attempt."""
    scene = Scene()
    scene.cloud.failures.append(error)
    with pytest.raises(GatewayError) as caught:
        await scene.create()
    assert caught.value is error
    assert len(scene.cloud.asked) == 1


async def test_a_create_of_unknown_outcome_ends_the_retries() -> None:
    """The second attempt was lost."""
    scene = Scene()
    scene.fails(r.ERROR_REASON_UPSTREAM_THROTTLED, r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN)
    with pytest.raises(UpstreamError) as caught:
        await scene.create()
    assert caught.value.reason == r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
    assert len(scene.cloud.asked) == 2


async def test_the_clouds_retry_after_is_waited() -> None:
    """When it ends before the deadline."""
    scene = Scene()
    scene.fails(r.ERROR_REASON_UPSTREAM_THROTTLED, asked_wait=0.05)
    begin = asyncio.get_running_loop().time()
    await scene.get()
    assert asyncio.get_running_loop().time() - begin >= 0.05


@pytest.mark.parametrize(
    ("asked_wait", "seconds", "read"),
    [(9.0, 10.0, None), (60.0, 30.0, None), (1.0, 30.0, SharedRead(wanted_by=0.0))],
    ids=["last fifth", "past the deadline", "not wanted any more"],
)
async def test_a_retry_that_would_be_late_is_not_made(
    asked_wait: float, seconds: float, read: SharedRead | None
) -> None:
    """The caller gets the error immediately."""
    scene = Scene()
    scene.fails(r.ERROR_REASON_UPSTREAM_THROTTLED, asked_wait=asked_wait)
    with pytest.raises(UpstreamError) as caught:
        await scene.create(within(seconds, read))
    assert caught.value.reason == r.ERROR_REASON_UPSTREAM_THROTTLED
    assert len(scene.cloud.asked) == 1


async def test_a_recorded_create_is_retried_when_nothing_was_sent_and_there_is_time() -> None:
    """Until its `send_by`."""
    scene = Scene()
    scene.fails(r.ERROR_REASON_UPSTREAM_UNREACHABLE)
    await scene.create(flight=Flight(WINDOW, 1045.0))
    assert len(scene.cloud.asked) == 2


async def test_a_recorded_create_that_was_refused_before_admission_has_not_begun_and_is_retried() -> None:
    """A throttled create was not accepted, and will not be: one window serves both attempts."""
    scene = Scene()
    scene.fails(r.ERROR_REASON_UPSTREAM_THROTTLED)
    flight = Flight(WINDOW, 1045.0, began=True)
    await scene.create(flight=flight)
    assert len(scene.cloud.asked) == 2
    assert not flight.began


@pytest.mark.parametrize(
    ("flight", "reason", "asked_wait"),
    [
        (Flight(WINDOW, 1045.0, began=True), r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, 0.0),
        (Flight(WINDOW, 1002.0), r.ERROR_REASON_UPSTREAM_UNREACHABLE, 2.1),
        (Flight(WINDOW, 999.9), r.ERROR_REASON_UPSTREAM_UNREACHABLE, 0.0),
    ],
    ids=["unknown", "late after the wait", "late"],
)
async def test_a_recorded_create_is_not_retried_once_it_may_be_accepted_or_its_time_is_over(
    flight: Flight, reason: r.ErrorReason.ValueType, asked_wait: float
) -> None:
    """Another attempt needs another window, and so another entry in the record."""
    scene = Scene()
    scene.fails(reason, asked_wait=asked_wait)
    with pytest.raises(UpstreamError) as caught:
        await scene.create(flight=flight)
    assert caught.value.reason == reason
    assert len(scene.cloud.asked) == 1


async def test_a_cloud_that_is_down_gets_no_more_retries_than_the_budget() -> None:
    """The cloud gets the calls, the floor, and a tenth of the calls."""
    scene = Scene(RetryPolicy(retries=2, base=0.001, cap=0.002, share=0.1, floor=3))
    scene.fails(*[r.ERROR_REASON_UPSTREAM_UNAVAILABLE] * 1000)
    for _ in range(50):
        with pytest.raises(UpstreamError):
            await scene.get()
    assert len(scene.cloud.asked) == 50 + 3 + 5
    assert scene.telemetry.retries.count(("get", "made")) == 8
    assert ("get", "over_budget") in scene.telemetry.retries
