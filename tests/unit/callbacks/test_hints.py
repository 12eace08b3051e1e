"""Hints that jobs have ended: what is read of them, how often, and what is learned."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.callbacks.hints import (
    AHEAD_SECONDS,
    LATE_SECONDS,
    MOST_READS,
    MOST_WAITING,
    OF_OTHERS,
    Hints,
)
from docpreview_gateway.callbacks.trust import LEAST, Trust
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import GATEWAY
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.operations import GetJob
from tests.fakes.clock import FakeClock
from tests.simulation.virtual_loop import in_virtual_time
from tests.unit.conftest import BUCKET

if TYPE_CHECKING:
    from docpreview_gateway.model.buckets import Bucket

RUNNING, SUCCESS = PreviewJob.STATE_RUNNING, PreviewJob.STATE_SUCCESS


class Scene:
    """Hints over a cloud that answers what a test says, the last answer for ever."""

    def __init__(self, *answers: PreviewJob.State.ValueType | Exception, followed: bool = False, ago: int = 0) -> None:
        clock = FakeClock()
        self.answers = list(answers)
        self.ended_at = int(clock.now()) - ago
        self.reads = 0
        self.found_by_callback = 0
        self.known: PreviewJob | None = None
        self.told: list[PreviewJob] = []
        self.came: list[tuple[str, str, str]] = []
        self.outcomes: list[str] = []
        self.followed = followed
        self.trust = Trust(lambda: 0.0, self)
        self.hints = Hints(
            self,
            self,
            self.tell,
            self.trust,
            self.ended,
            follows=lambda _bucket, _job_id: self.followed,
            times=CloudTimes(clock),
            came=lambda *of: self.came.append(of),
        )

    def working(self, bucket: str, queue_id: str, works: bool) -> None:  # noqa: FBT001 - as the port
        """What is learned is asked of `trust`."""

    def found(self, _bucket: str, _queue_id: str, *, by_callback: bool) -> None:
        self.found_by_callback += by_callback

    async def __call__(self, operation: GetJob, call: Call) -> PreviewJob:
        assert call.no_cache
        self.reads += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        job = PreviewJob(bucket=BUCKET.name, queue_id="p1", job_id=operation.job_id, state=answer)
        if answer == SUCCESS:
            job.end_time.seconds = self.ended_at
        return job

    async def last_seen(self, _bucket: Bucket, _job_id: str) -> PreviewJob | None:
        return self.known

    def callback(self, outcome: str) -> None:
        self.outcomes.append(outcome)

    def tell(self, _bucket: Bucket, job: PreviewJob) -> bool:
        self.told.append(job)
        return self.followed

    async def ended(self, _marker: str) -> None:
        pass

    async def all_read(self, jobs: int) -> None:
        """Wait until so many jobs were told."""
        async with asyncio.timeout(10):
            while len(self.told) < jobs:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.001)


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
    assert scene.trust.works(BUCKET.name, "p1") == works
    assert len(scene.came) == (LEAST if works else 0)


@pytest.mark.parametrize("followed", [True, False])
async def test_a_late_callback_of_a_job_that_is_followed_is_one_that_is_missed(*, followed: bool) -> None:
    """Of a job that nobody follows it may be a replay, and says nothing."""
    scene = Scene(SUCCESS, followed=followed, ago=int(LATE_SECONDS) + 5)
    for number in range(LEAST):
        scene.trust.called_back(PreviewJob(bucket=BUCKET.name, queue_id="p1", job_id=f"c{number}"))
    scene.hints.take(BUCKET, "d1")
    await scene.hints.drained()
    assert scene.trust.works(BUCKET.name, "p1") != followed


@pytest.mark.parametrize(("ago", "came"), [(0, [(BUCKET.name, "d1", "p1")]), (int(LATE_SECONDS) + 5, [])])
async def test_the_other_replicas_hear_of_a_callback_whose_end_is_known(
    ago: int, came: list[tuple[str, str, str]]
) -> None:
    """A poll of theirs may have found it a moment before. Of an old end it is a replay."""
    scene = Scene(SUCCESS, ago=ago)
    scene.known = await scene(GetJob(BUCKET, "d1"), Call("", 0.0, GATEWAY, no_cache=True))
    scene.hints.take(BUCKET, "d1")
    await scene.hints.drained()
    assert (scene.reads, scene.outcomes, scene.came) == (1, ["known"], came)


async def test_a_flood_of_hints_of_one_job_reads_it_once() -> None:
    scene = Scene(RUNNING)
    for _ in range(10_000):
        scene.hints.take(BUCKET, "d1")
    await scene.hints.drained()
    assert scene.reads == 1
    assert (scene.outcomes.count("read"), scene.outcomes.count("repeated")) == (1, 9_999)


async def test_a_burst_is_read_a_few_at_a_time_in_its_order_and_none_of_it_is_dropped() -> None:
    scene = Scene(SUCCESS)
    outcomes = {scene.hints.take(BUCKET, f"d{number}") for number in range(10 * MOST_READS)}
    await asyncio.sleep(0)
    assert (outcomes, scene.reads) == ({"read"}, MOST_READS)
    await scene.all_read(10 * MOST_READS)
    assert [job.job_id for job in scene.told] == [f"d{number}" for number in range(10 * MOST_READS)]


async def test_a_hint_of_a_job_that_waits_to_be_read_is_a_repetition() -> None:
    scene = Scene(SUCCESS)
    for number in range(MOST_READS):
        scene.hints.take(BUCKET, f"d{number}")
    assert (scene.hints.take(BUCKET, "late"), scene.hints.take(BUCKET, "late")) == ("read", "repeated")
    await scene.all_read(MOST_READS + 1)
    await scene.hints.drained()
    assert scene.reads == MOST_READS + 1


async def test_of_a_flood_of_jobs_that_nobody_follows_no_more_are_read_than_the_rate_admits() -> None:
    """Who knows the address may invent ids."""
    scene = Scene(SUCCESS)
    room = min(OF_OTHERS.burst, MOST_READS + MOST_WAITING)
    for number in range(room + 500):
        scene.hints.take(BUCKET, f"d{number}")
    assert 450 <= scene.outcomes.count("limited") <= 500
    await scene.all_read(room)
    await scene.hints.drained()
    assert scene.reads == room + 500 - scene.outcomes.count("limited")


async def test_a_job_that_is_followed_is_read_before_those_of_a_flood() -> None:
    scene = Scene(SUCCESS)
    for number in range(OF_OTHERS.burst + 100):
        scene.hints.take(BUCKET, f"d{number}")
    scene.followed = True
    assert scene.hints.take(BUCKET, "followed") == "read"
    await scene.all_read(2 * MOST_READS)
    assert "followed" in [job.job_id for job in scene.told[: 2 * MOST_READS]]
    await scene.hints.drained()


async def test_what_another_worker_was_called_back_about_is_read_and_counted_there() -> None:
    """Sums over workers have each callback and each end once."""
    scene = Scene(SUCCESS, followed=True)
    for number in range(LEAST):
        scene.hints.take(BUCKET, f"d{number}", heard=True)
    await scene.hints.drained()
    assert (scene.reads, scene.outcomes, scene.found_by_callback) == (LEAST, [], 0)
    assert scene.trust.works(BUCKET.name, "p1")


async def test_a_stopped_gateway_does_not_read_what_waits() -> None:
    scene = Scene(SUCCESS)
    for number in range(3 * MOST_READS):
        scene.hints.take(BUCKET, f"d{number}")
    await scene.hints.drained()
    assert scene.reads == MOST_READS
