"""Host limiters: the concurrency limit, its queue, and the circuit breaker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError, UpstreamError, UpstreamFacts
from docpreview_gateway.upstream.middleware.concurrency_limited import (
    FAILURES_IN_A_ROW,
    HostLimiterRules,
    HostLimiters,
    concurrency_limited,
)
from docpreview_gateway.upstream.operations import CreateJob, GetJob, ListJobs, ListQueues, Upstream
from docpreview_gateway.upstream.policies.adaptive_limit import LimitBounds
from docpreview_gateway.upstream.policies.host_breaker import BreakerRules
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
OTHER = Bucket("other-1250000000", "ap-chongqing", "main")
BOUNDS = LimitBounds(initial=2, lowest=1, highest=4, queue=3)
RULES = HostLimiterRules(BreakerRules(calls=4, open_seconds=60.0), BOUNDS, timeout_after=60.0)
FIXED = HostLimiterRules(RULES.breaker, LimitBounds(initial=2, lowest=1, highest=2, queue=3), timeout_after=60.0)
HASTY = HostLimiterRules(BreakerRules(calls=4, open_seconds=0.1), BOUNDS, timeout_after=0.05)
"""For tests that wait for these times to pass; with the others a test may take as long as it likes."""
THROTTLED = UpstreamError(r.ERROR_REASON_UPSTREAM_THROTTLED, "slow down")
SICK = UpstreamError(r.ERROR_REASON_UPSTREAM_INTERNAL, "oh", facts=UpstreamFacts("InternalError", 500))


class Scene:
    """A cloud that hangs or fails on demand, behind its host limiter."""

    def __init__(self, rules: HostLimiterRules = RULES) -> None:
        self.cloud = FakeUpstream()
        self.telemetry = FakeTelemetry()
        for bucket in (BUCKET, OTHER):
            self.cloud.add_job(bucket.name, "d1", PreviewJob.STATE_RUNNING)
        self.cloud.objects.add((BUCKET.name, "a.pdf"))
        self.limiters = HostLimiters(rules=rules, telemetry=self.telemetry, jitter=lambda: 1.0)
        self.upstream = concurrency_limited(self.cloud, self.limiters)

    async def get(self, seconds: float = 30.0, bucket: Bucket = BUCKET) -> PreviewJob:
        return await self.upstream(GetJob(bucket, "d1"), call(seconds))

    async def start(self, count: int, seconds: float = 30.0) -> list[asyncio.Task[PreviewJob]]:
        """Start calls and run them until they wait or hang."""
        tasks = [asyncio.create_task(self.get(seconds)) for _ in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)
        return tasks

    async def reason_of_next(self, seconds: float = 30.0, bucket: Bucket = BUCKET) -> UpstreamError:
        with pytest.raises(UpstreamError) as caught:
            await self.get(seconds, bucket)
        return caught.value

    async def break_it(self) -> None:
        """Open the breaker."""
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


ASKS: dict[str, Callable[[Upstream], Awaitable[object]]] = {
    "create": lambda upstream: upstream(
        CreateJob(CreatePreviewJobRequest(input_object="a.pdf"), BUCKET, BUCKET), call(9)
    ),
    "get": lambda upstream: upstream(GetJob(BUCKET, "d1"), call(9)),
    "list_jobs": lambda upstream: upstream(ListJobs(ListPreviewJobsRequest(), BUCKET, 10, ""), call(9)),
    "list_queues": lambda upstream: upstream(ListQueues(ListPreviewQueuesRequest(), BUCKET, 10, 1), call(9)),
}


@pytest.mark.parametrize("operation", ASKS)
async def test_every_operation_returns_its_result_and_gives_its_permit_back(operation: str) -> None:
    """The result is unchanged, and no permit is taken afterwards."""
    scene = Scene()
    assert await ASKS[operation](scene.upstream)
    assert [asked for asked, _ in scene.cloud.asked] == [operation]
    assert scene.load == (0, 2, 0)


@pytest.mark.parametrize("operation", ASKS)
async def test_an_open_breaker_rejects_every_operation(operation: str) -> None:
    """UPSTREAM_BREAKER_OPEN, and nothing is sent."""
    scene = Scene()
    await scene.break_it()
    scene.cloud.asked.clear()
    with pytest.raises(UpstreamError) as caught:
        await ASKS[operation](scene.upstream)
    assert caught.value.reason == r.ERROR_REASON_UPSTREAM_BREAKER_OPEN
    assert scene.cloud.asked == []


class TestQueue:
    async def test_calls_over_the_limit_wait_and_are_served_in_order(self) -> None:
        """Calls of one caller with equal deadlines are served in order of arrival."""
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

    async def test_a_full_queue_rejects_immediately_with_a_time_to_retry(self) -> None:
        """OVERLOADED with the expected wait."""
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

    async def test_shed_if_late_raises_what_the_queue_would_raise_immediately(self) -> None:
        """The breaker's decision is left to `enter`."""
        scene = Scene()
        scene.limiters.shed_if_late(BUCKET.name, call(30))
        scene.cloud.gate = asyncio.Event()
        tasks = await scene.start(4)
        scene.limiters.shed_if_late(BUCKET.name, call(30))
        tasks += await scene.start(1)
        with pytest.raises(UpstreamError) as caught:
            scene.limiters.shed_if_late(BUCKET.name, call(30))
        assert caught.value.reason == r.ERROR_REASON_OVERLOADED
        assert caught.value.retry_after is not None
        scene.limiters.shed_if_late(OTHER.name, call(30))
        assert scene.telemetry.sheds == ["queue"]
        scene.cloud.gate.set()
        await asyncio.gather(*tasks)
        broken = Scene()
        await broken.break_it()
        broken.limiters.shed_if_late(BUCKET.name, call(30))

    async def test_a_call_that_would_be_late_is_rejected_immediately(self) -> None:
        """By the average latency its turn would come after its deadline."""
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

    async def test_a_call_whose_deadline_passes_in_the_queue_is_rejected(self) -> None:
        """Nothing was sent, and the call leaves the queue."""
        scene = Scene()
        scene.cloud.gate = asyncio.Event()
        tasks = await scene.start(2)
        assert (await scene.reason_of_next(0.06)).reason == r.ERROR_REASON_OVERLOADED
        assert scene.load == (2, 2, 0)
        scene.cloud.gate.set()
        await asyncio.gather(*tasks)

    async def test_a_cancelled_call_leaves_the_queue(self) -> None:
        """The next call gets its turn."""
        scene = Scene(FIXED)
        scene.cloud.gate = asyncio.Event()
        tasks = await scene.start(4)
        tasks[2].cancel()
        scene.cloud.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [task.cancelled() for task in tasks] == [False, False, True, False]
        assert scene.load == (0, 2, 0)

    async def test_each_host_has_its_own_permits(self) -> None:
        """A busy host does not delay calls to another."""
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
    async def test_throttling_lowers_the_limit_and_leaves_the_breaker_closed(self) -> None:
        """A host that throttles is healthy."""
        scene = Scene()
        scene.cloud.failures += [THROTTLED] * 10
        for _ in range(10):
            await scene.reason_of_next()
        assert scene.load == (0, 1, 0)
        assert scene.telemetry.breaker_states == []

    async def test_calls_cancelled_after_a_while_count_as_failures(self) -> None:
        """A host without an answer for `timeout_after` seconds has failed."""
        scene = Scene(HASTY)
        scene.cloud.gate = asyncio.Event()
        tasks = await scene.start(2)
        await asyncio.sleep(HASTY.timeout_after + 0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert scene.load[:2] == (0, 1)

    async def test_calls_cancelled_quickly_do_not_count(self) -> None:
        """They say nothing about the host."""
        scene = Scene()
        scene.cloud.gate = asyncio.Event()
        for _ in range(10):
            (task,) = await scene.start(1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert scene.load == (0, 2, 0)
        assert scene.telemetry.breaker_states == []


async def test_a_host_that_fails_few_callers_again_and_again_is_told_until_it_answers() -> None:
    """They are too few for the breaker; a refusal is an answer."""
    scene = Scene(HostLimiterRules(BreakerRules(calls=20), BOUNDS))
    for number in range(FAILURES_IN_A_ROW):
        assert scene.limiters.problem(BUCKET.name) == "", number
        scene.cloud.failures.append(SICK)
        await scene.reason_of_next()
    told = scene.limiters.problem(BUCKET.name)
    assert told == f"its last {FAILURES_IN_A_ROW} requests failed; last failure: {SICK.message}"
    scene.cloud.failures.append(UpstreamError(r.ERROR_REASON_JOB_NOT_FOUND, "no"))
    await scene.reason_of_next()
    assert scene.limiters.problem(BUCKET.name) == ""


class TestBreaker:
    async def test_an_open_breaker_rejects_calls_immediately_and_only_of_its_host(self) -> None:
        """The rejection has the time until the next probe."""
        scene = Scene()
        await scene.break_it()
        error = await scene.reason_of_next()
        assert error.reason == r.ERROR_REASON_UPSTREAM_BREAKER_OPEN
        assert error.retry_after == pytest.approx(60, abs=20)
        assert scene.telemetry.sheds == ["breaker"]
        await scene.get(bucket=OTHER)

    async def test_one_probe_that_succeeds_closes_the_breaker_for_all(self) -> None:
        """One call is the probe; after its success all calls are admitted."""
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

    async def test_an_opening_breaker_expires_the_queue_and_the_permits(self) -> None:
        """Waiting calls are rejected, and calls that still hang hold no permits when the host is back."""
        scene = Scene(HostLimiterRules(BreakerRules(calls=1), BOUNDS, HASTY.timeout_after))
        scene.cloud.gate = asyncio.Event()
        given_up, hanging = await scene.start(2)
        waiting = await scene.start(2)
        await asyncio.sleep(HASTY.timeout_after + 0.01)
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

    async def test_refusals_of_a_healthy_host_do_not_open_the_breaker(self) -> None:
        """A refusal is an answer of a healthy host."""
        scene = Scene()
        scene.cloud.failures += [UpstreamError(r.ERROR_REASON_JOB_NOT_FOUND, "no") for _ in range(20)]
        for _ in range(20):
            await scene.reason_of_next()
        assert scene.telemetry.breaker_states == []

    async def test_a_create_that_was_too_late_to_be_sent_says_nothing_about_the_host(self) -> None:
        """As a probe it closes no breaker."""
        scene = Scene(HASTY)
        await scene.break_it()
        await asyncio.sleep(HASTY.breaker.open_seconds + 0.01)
        scene.cloud.failures.append(UpstreamError(r.ERROR_REASON_OVERLOADED, "waited too long; nothing was sent"))
        assert (await scene.reason_of_next()).reason == r.ERROR_REASON_OVERLOADED
        assert "CLOSED" not in [state for _, state in scene.telemetry.breaker_states]

    async def test_a_create_of_unknown_outcome_counts_by_its_cause(self) -> None:
        """The cause is the error of the exchange."""
        scene = Scene()
        unknown = UpstreamError(r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "lost")
        unknown.__cause__ = SICK
        scene.cloud.failures += [unknown] * 4
        for _ in range(4):
            with pytest.raises(UpstreamError):
                await ASKS["create"](scene.upstream)
        assert scene.telemetry.breaker_states == [(BUCKET.name, "OPEN")]

    async def test_a_call_with_an_unexpected_error_gives_its_permit_back(self) -> None:
        """Any exception releases the permit."""
        scene = Scene()
        scene.cloud.failures += [KeyError("a bug"), GatewayError(r.ERROR_REASON_DEADLINE_EXCEEDED, "late")]
        for kind in (KeyError, GatewayError):
            with pytest.raises(kind):
                await scene.get()
        assert scene.load == (0, 2, 0)
