"""Hints that jobs have ended: what is read of them, how often, and what is learned."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.callbacks.hints import AHEAD_SECONDS, LATE_SECONDS, Hints
from docpreview_gateway.callbacks.trust import LEAST, Trust
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from tests.fakes.clock import FakeClock
from tests.simulation.virtual_loop import VirtualLoop
from tests.unit.conftest import BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.operations import GetJob

RUNNING, SUCCESS = PreviewJob.STATE_RUNNING, PreviewJob.STATE_SUCCESS


class Scene:
    """Hints over a cloud that answers what a test says, the last answer for ever."""

    def __init__(self, *answers: PreviewJob.State.ValueType | Exception, followed: bool = False, ago: int = 0) -> None:
        clock = FakeClock()
        self.answers = list(answers)
        self.ended_at = int(clock.now()) - ago
        self.reads = 0
        self.told: list[PreviewJob] = []
        self.came: list[tuple[str, str]] = []
        self.outcomes: list[str] = []
        self.followed = followed
        self.trust = Trust(lambda: 0.0, self)
        self.hints = Hints(
            self,
            self,
            self.tell,
            self.trust,
            self.ended,
            times=CloudTimes(clock),
            came=lambda *of: self.came.append(of),
        )

    def working(self, bucket: str, works: bool) -> None:  # noqa: FBT001 - as the port
        """What is learned is asked of `trust`."""

    def found(self, bucket: str, *, by_callback: bool) -> None:
        """Likewise."""

    async def __call__(self, operation: GetJob, call: Call) -> PreviewJob:
        assert call.no_cache
        self.reads += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        job = PreviewJob(bucket=BUCKET.name, job_id=operation.job_id, state=answer)
        if answer == SUCCESS:
            job.end_time.seconds = self.ended_at
        return job

    async def last_seen(self, _bucket: Bucket, _job_id: str) -> PreviewJob | None:
        return None

    def callback(self, outcome: str) -> None:
        self.outcomes.append(outcome)

    def tell(self, _bucket: Bucket, job: PreviewJob) -> bool:
        self.told.append(job)
        return self.followed

    async def ended(self, _marker: str) -> None:
        pass


async def long() -> None:
    """As long as jobs are read again."""
    await asyncio.sleep(sum(AHEAD_SECONDS) + 60)


def unavailable() -> UpstreamError:
    return UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "no")


@pytest.mark.parametrize("first", [RUNNING, unavailable()])
async def test_a_job_that_still_runs_or_cannot_be_read_is_read_again_a_second_later(
    first: PreviewJob.State.ValueType | Exception,
) -> None:
    """A callback may be ahead of the cloud's state: its watchers do not wait for a rare poll."""
    scene = Scene(first, SUCCESS)
    begun = asyncio.get_running_loop().time()
    assert scene.hints.take(BUCKET, "d1") == "read"
    async with asyncio.timeout(5):
        while not scene.came:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)
    assert 0.9 < asyncio.get_running_loop().time() - begun < 3
    assert (scene.reads, scene.told[-1].state) == (2, SUCCESS)
    await scene.hints.drained()


async def test_a_stopped_gateway_reads_none_again() -> None:
    scene = Scene(RUNNING)
    scene.hints.take(BUCKET, "d1")
    await scene.hints.drained()
    await asyncio.sleep(AHEAD_SECONDS[0] + 0.2)
    assert scene.reads == 1


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()


def test_a_job_that_runs_on_is_read_again_a_few_times_only() -> None:
    """A forged callback of a running job costs no more than that."""

    async def work() -> None:
        scene = Scene(RUNNING)
        scene.hints.take(BUCKET, "d1")
        await long()
        assert scene.reads == 1 + len(AHEAD_SECONDS)

    in_virtual_time(work)


@pytest.mark.parametrize(("ago", "works"), [(0, True), (int(LATE_SECONDS) + 5, False)])
async def test_replays_of_old_ends_do_not_make_callbacks_trusted(*, ago: int, works: bool) -> None:
    """By the cloud's clock; nor do they make another replica trust them."""
    scene = Scene(SUCCESS, ago=ago)
    for number in range(LEAST):
        scene.hints.take(BUCKET, f"d{number}")
    await scene.hints.drained()
    assert scene.trust.works(BUCKET.name) == works
    assert len(scene.came) == (LEAST if works else 0)


@pytest.mark.parametrize("followed", [True, False])
async def test_a_late_callback_of_a_job_that_is_followed_is_one_that_is_missed(*, followed: bool) -> None:
    """Of a job that nobody follows it may be a replay, and says nothing."""
    scene = Scene(SUCCESS, followed=followed, ago=int(LATE_SECONDS) + 5)
    for number in range(LEAST):
        scene.trust.called_back(BUCKET.name, f"c{number}")
    scene.hints.take(BUCKET, "d1")
    await scene.hints.drained()
    assert scene.trust.works(BUCKET.name) != followed


async def test_a_flood_of_hints_of_one_job_reads_it_once() -> None:
    scene = Scene(RUNNING)
    for _ in range(10_000):
        scene.hints.take(BUCKET, "d1")
    await scene.hints.drained()
    assert scene.reads == 1
    assert (scene.outcomes.count("read"), scene.outcomes.count("repeated")) == (1, 9_999)
