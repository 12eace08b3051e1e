"""The way to a bucket's host: as many calls as it can do, and none while it is not well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.core.breaker import BreakerRules
from docpreview_gateway.core.buckets import Bucket
from docpreview_gateway.core.concurrency import LimitBounds
from docpreview_gateway.core.errors import GatewayError, UpstreamError, UpstreamFacts
from docpreview_gateway.ports import Call, JobQuery, QueueQuery
from docpreview_gateway.upstream.limited import LaneRules, LimitedUpstream
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
OTHER = Bucket("other-1250000000", "ap-chongqing", "main")
BOUNDS = LimitBounds(initial=2, lowest=1, highest=4, queue=3)
RULES = LaneRules(BreakerRules(calls=4, open_seconds=60.0), BOUNDS, hopeless=60.0)
FIXED = LaneRules(RULES.breaker, LimitBounds(initial=2, lowest=1, highest=2, queue=3), hopeless=60.0)
HASTY = LaneRules(BreakerRules(calls=4, open_seconds=0.1), BOUNDS, hopeless=0.05)
"""For tests that wait for these times to pass; with the others a test may take as long as it likes."""
THROTTLED = UpstreamError(r.ERROR_REASON_UPSTREAM_THROTTLED, "slow down")
SICK = UpstreamError(r.ERROR_REASON_UPSTREAM_INTERNAL, "oh", facts=UpstreamFacts("InternalError", 500))


class Scene:
    """A cloud that hangs or fails as told, behind the limit."""

    def __init__(self, rules: LaneRules = RULES) -> None:
        self.cloud = FakeUpstream()
        self.telemetry = FakeTelemetry()
        for bucket in (BUCKET, OTHER):
            self.cloud.add_job(bucket.name, "d1", PreviewJob.STATE_RUNNING)
        self.cloud.objects.add((BUCKET.name, "a.pdf"))
        self.upstream = LimitedUpstream(self.cloud, rules=rules, telemetry=self.telemetry, jitter=lambda: 1.0)

    async def get(self, seconds: float = 30.0, bucket: Bucket = BUCKET) -> PreviewJob:
        return await self.upstream.get(bucket, "d1", call(seconds))

    async def start(self, count: int, seconds: float = 30.0) -> list[asyncio.Task[PreviewJob]]:
        """Callers that have come as far as they can."""
        tasks = [asyncio.create_task(self.get(seconds)) for _ in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)
        return tasks

    async def reason_of_next(self, seconds: float = 30.0, bucket: Bucket = BUCKET) -> UpstreamError:
        with pytest.raises(UpstreamError) as caught:
            await self.get(seconds, bucket)
        return caught.value

    async def break_it(self) -> None:
        """The breaker opens."""
        self.cloud.failures += [SICK] * 4
        for _ in range(4):
            assert (await self.reason_of_next()).reason == SICK.reason
        assert self.telemetry.breaker_states == [(BUCKET.name, "OPEN")]

    @property
    def load(self) -> tuple[int, int, int]:
        """In flight, limit, queued."""
        return self.telemetry.loads[BUCKET.name]()


def call(seconds: float) -> Call:
    return Call("r1", asyncio.get_running_loop().time() + seconds)


ASKS: dict[str, Callable[[LimitedUpstream], Awaitable[object]]] = {
    "create": lambda upstream: upstream.create(CreatePreviewJobRequest(input_object="a.pdf"), BUCKET, BUCKET, call(9)),
    "get": lambda upstream: upstream.get(BUCKET, "d1", call(9)),
    "list_jobs": lambda upstream: upstream.list_jobs(JobQuery(ListPreviewJobsRequest(), BUCKET, 10, ""), call(9)),
    "list_queues": lambda upstream: upstream.list_queues(
        QueueQuery(ListPreviewQueuesRequest(), BUCKET, 10, 1), call(9)
    ),
}


@pytest.mark.parametrize("operation", ASKS)
async def test_every_operation(operation: str) -> None:
    """The result untouched, and the place given back."""
    scene = Scene()
    assert await ASKS[operation](scene.upstream)
    assert [asked for asked, _ in scene.cloud.asked] == [operation]
    assert scene.load == (0, 2, 0)


@pytest.mark.parametrize("operation", ASKS)
async def test_every_operation_while_the_breaker_is_open(operation: str) -> None:
    """Nothing is sent."""
    scene = Scene()
    await scene.break_it()
    scene.cloud.asked.clear()
    with pytest.raises(UpstreamError) as caught:
        await ASKS[operation](scene.upstream)
    assert caught.value.reason == r.ERROR_REASON_UPSTREAM_BREAKER_OPEN
    assert scene.cloud.asked == []


class TestQueue:
    async def test_more_calls_than_the_limit(self) -> None:
        """They wait for their turn and are served in the order in which they came."""
        scene = Scene(FIXED)
        scene.cloud.gate = asyncio.Event()
        tasks = await scene.start(5)
        assert scene.load == (2, 2, 3)
        scene.cloud.gate.set()
        ended: list[int] = []
        for number, task in enumerate(tasks):
            task.add_done_callback(lambda _task, number=number: ended.append(number))  # type: ignore[misc]
        await asyncio.gather(*tasks)
        assert ended == [0, 1, 2, 3, 4]
        assert scene.cloud.most_in_flight == 2
        assert scene.load[0] == 0

    async def test_long_queue(self) -> None:
        """Who comes when it is full is refused at once, with the time after which to try again."""
        scene = Scene()
        scene.cloud.gate = asyncio.Event()
        tasks = await scene.start(5)
        error = await scene.reason_of_next()
        assert error.reason == r.ERROR_REASON_OVERLOADED
        assert error.retry_after is not None
        assert error.retry_after > 0
        assert scene.telemetry.sheds == ["queue"]
        scene.cloud.gate.set()
        await asyncio.gather(*tasks)

    async def test_refusal_without_coming(self) -> None:
        """What the queue would tell a call at once, it can be told beforehand; what the breaker would, it cannot."""
        scene = Scene()
        scene.upstream.refuse_hopeless(BUCKET, call(30))
        scene.cloud.gate = asyncio.Event()
        tasks = await scene.start(4)
        scene.upstream.refuse_hopeless(BUCKET, call(30))
        tasks += await scene.start(1)
        with pytest.raises(UpstreamError) as caught:
            scene.upstream.refuse_hopeless(BUCKET, call(30))
        assert caught.value.reason == r.ERROR_REASON_OVERLOADED
        assert caught.value.retry_after is not None
        scene.upstream.refuse_hopeless(OTHER, call(30))
        assert scene.telemetry.sheds == ["queue"]
        scene.cloud.gate.set()
        await asyncio.gather(*tasks)
        broken = Scene()
        await broken.break_it()
        broken.upstream.refuse_hopeless(BUCKET, call(30))

    async def test_caller_that_would_not_be_served_in_time(self) -> None:
        """It is refused at once: by the usual time of a call its turn comes too late."""
        scene = Scene()
        scene.cloud.gate = asyncio.Event()
        (slow,) = await scene.start(1)
        await asyncio.sleep(0.2)
        scene.cloud.gate.set()
        await slow
        scene.cloud.gate = asyncio.Event()
        tasks = await scene.start(2)
        (refused,) = await scene.start(1, seconds=0.2)
        assert refused.done()
        with pytest.raises(UpstreamError) as caught:
            await refused
        assert caught.value.reason == r.ERROR_REASON_OVERLOADED
        assert scene.telemetry.sheds == ["deadline"]
        patient = await scene.start(1, seconds=5.0)
        scene.cloud.gate.set()
        await asyncio.gather(*tasks, *patient)

    async def test_caller_whose_time_ends_in_the_queue(self) -> None:
        """It is told that nothing was sent, and its place in the queue is free."""
        scene = Scene()
        scene.cloud.gate = asyncio.Event()
        tasks = await scene.start(2)
        assert (await scene.reason_of_next(0.06)).reason == r.ERROR_REASON_OVERLOADED
        assert scene.load == (2, 2, 0)
        scene.cloud.gate.set()
        await asyncio.gather(*tasks)

    async def test_caller_that_leaves_the_queue(self) -> None:
        """The next one gets its turn."""
        scene = Scene(FIXED)
        scene.cloud.gate = asyncio.Event()
        tasks = await scene.start(4)
        tasks[2].cancel()
        scene.cloud.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [task.cancelled() for task in tasks] == [False, False, True, False]
        assert scene.load == (0, 2, 0)

    async def test_buckets_do_not_wait_for_each_other(self) -> None:
        """Each host has its own places."""
        scene = Scene()
        scene.cloud.gate = asyncio.Event()
        tasks = await scene.start(5)
        other = asyncio.create_task(scene.get(bucket=OTHER))
        for _ in range(5):
            await asyncio.sleep(0)
        assert scene.cloud.in_flight == 3
        scene.cloud.gate.set()
        await asyncio.gather(other, *tasks)


class TestLimit:
    async def test_throttling(self) -> None:
        """Fewer calls at once, and the breaker stays closed: a host that throttles is well."""
        scene = Scene()
        scene.cloud.failures += [THROTTLED] * 10
        for _ in range(10):
            await scene.reason_of_next()
        assert scene.load == (0, 1, 0)
        assert scene.telemetry.breaker_states == []

    async def test_callers_that_give_up_on_a_silent_host(self) -> None:
        """After a while that is the host's failure."""
        scene = Scene(HASTY)
        scene.cloud.gate = asyncio.Event()
        tasks = await scene.start(2)
        await asyncio.sleep(HASTY.hopeless + 0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert scene.load[:2] == (0, 1)

    async def test_callers_that_give_up_quickly(self) -> None:
        """That tells nothing of the host."""
        scene = Scene()
        scene.cloud.gate = asyncio.Event()
        for _ in range(10):
            (task,) = await scene.start(1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert scene.load == (0, 2, 0)
        assert scene.telemetry.breaker_states == []


class TestBreaker:
    async def test_open(self) -> None:
        """Calls fail at once with the time until the next probe; other hosts are not concerned."""
        scene = Scene()
        await scene.break_it()
        error = await scene.reason_of_next()
        assert error.reason == r.ERROR_REASON_UPSTREAM_BREAKER_OPEN
        assert error.retry_after == pytest.approx(60, abs=20)
        assert scene.telemetry.sheds == ["breaker"]
        await scene.get(bucket=OTHER)

    async def test_recovery(self) -> None:
        """One probe, and then everybody."""
        scene = Scene(HASTY)
        await scene.break_it()
        await asyncio.sleep(HASTY.breaker.open_seconds + 0.01)
        scene.cloud.gate = asyncio.Event()
        (probe,) = await scene.start(1)
        assert (await scene.reason_of_next()).reason == r.ERROR_REASON_UPSTREAM_BREAKER_OPEN
        scene.cloud.gate.set()
        await probe
        await asyncio.gather(*await scene.start(4))
        assert [state for _, state in scene.telemetry.breaker_states] == ["OPEN", "HALF_OPEN", "CLOSED"]

    async def test_queue_when_it_opens(self) -> None:
        """It is sent away, and calls that still hang keep no places when the host is back."""
        scene = Scene(LaneRules(BreakerRules(calls=1), BOUNDS, HASTY.hopeless))
        scene.cloud.gate = asyncio.Event()
        given_up, hanging = await scene.start(2)
        waiting = await scene.start(2)
        await asyncio.sleep(HASTY.hopeless + 0.01)
        given_up.cancel()
        for task in waiting:
            with pytest.raises(UpstreamError) as caught:
                await task
            assert caught.value.reason == r.ERROR_REASON_UPSTREAM_BREAKER_OPEN
        assert scene.cloud.in_flight == 1
        assert scene.load == (0, 1, 0)
        scene.cloud.gate.set()
        await hanging
        assert scene.load == (0, 1, 0)

    async def test_refusals(self) -> None:
        """They are the answers of a healthy host."""
        scene = Scene()
        scene.cloud.failures += [UpstreamError(r.ERROR_REASON_JOB_NOT_FOUND, "no") for _ in range(20)]
        for _ in range(20):
            await scene.reason_of_next()
        assert scene.telemetry.breaker_states == []

    async def test_create_without_outcome(self) -> None:
        """It counts by what happened to it."""
        scene = Scene()
        unknown = UpstreamError(r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "lost")
        unknown.__cause__ = SICK
        scene.cloud.failures += [unknown] * 4
        for _ in range(4):
            with pytest.raises(UpstreamError):
                await ASKS["create"](scene.upstream)
        assert scene.telemetry.breaker_states == [(BUCKET.name, "OPEN")]

    async def test_bug(self) -> None:
        """An unexpected error gives the place back too."""
        scene = Scene()
        scene.cloud.failures += [KeyError("a bug"), GatewayError(r.ERROR_REASON_DEADLINE_EXCEEDED, "late")]
        for kind in (KeyError, GatewayError):
            with pytest.raises(kind):
                await scene.get()
        assert scene.load == (0, 2, 0)
