"""How often a job is polled where one queue of its bucket calls back, and another does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.jobs.poller import KNOWN_SECONDS, WatchLimits
from docpreview_gateway.jobs.watching import Watching
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream
from tests.simulation.virtual_loop import in_virtual_time
from tests.unit.conftest import BUCKET
from tests.unit.jobs.test_watching_replicas import FakeFeed

if TYPE_CHECKING:
    from docpreview_gateway.model.buckets import Bucket

RUNNING, SUCCESS = PreviewJob.STATE_RUNNING, PreviewJob.STATE_SUCCESS
JOB = "d1"
TOLD, UNTOLD = "p1", "p2"


class Scene:
    """A running job of a queue, and callbacks that come for the queue TOLD only."""

    def __init__(self, queue_id: str, *, is_known: bool = False, feed: FakeFeed | None = None) -> None:
        self.upstream, self.ends = FakeUpstream(), list[PreviewJob]()
        self.upstream.add_job(BUCKET.name, JOB, RUNNING).queue_id = queue_id
        self.is_known = is_known
        self.watching = Watching(
            self.upstream,
            CloudTimes(FakeClock()),
            FakeTelemetry(),
            limits=WatchLimits(),
            jitter=lambda: 0.5,
            callbacks=self,
            last_seen=self.last_seen,
            feed=feed,
        )

    def works(self, bucket: str, queue_id: str | None) -> bool:
        return bucket == BUCKET.name and queue_id in {TOLD, None}

    def polled(self, job: PreviewJob) -> None:
        self.ends.append(job)

    async def last_seen(self, bucket: Bucket, job_id: str, *, within: float) -> PreviewJob | None:
        assert within > 0
        return self.upstream.jobs[bucket.name, job_id] if self.is_known else None

    async def reads(self, seconds: float) -> int:
        """Reads of the job in so many seconds in which somebody watches it."""
        async with self.watching.subscribe(BUCKET, JOB):
            await asyncio.sleep(seconds)
            return self.upstream.asked.count(("get", JOB))


@pytest.mark.parametrize(("queue_id", "least", "most"), [(TOLD, 1, 2), (UNTOLD, 5, 120)])
def test_a_job_of_a_queue_that_does_not_call_back_is_polled_as_without_callbacks(
    queue_id: str, least: int, most: int
) -> None:
    async def work() -> None:
        assert least <= await Scene(queue_id).reads(60) <= most

    in_virtual_time(work)


@pytest.mark.parametrize(("queue_id", "reads"), [(TOLD, 0), (UNTOLD, 1)])
def test_what_is_known_of_a_job_saves_the_first_read_where_its_queue_calls_back(queue_id: str, reads: int) -> None:
    async def work() -> None:
        assert await Scene(queue_id, is_known=True).reads(0.1) == reads

    in_virtual_time(work)


def test_a_job_that_was_never_read_is_read_again_soon_after_a_failure() -> None:
    """Of which queue it is is not known yet."""

    async def work() -> None:
        scene = Scene(UNTOLD)
        scene.upstream.failures.append(UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "no"))
        assert await scene.reads(5) >= 2

    in_virtual_time(work)


def test_an_end_that_a_poll_has_found_is_noted_with_its_queue() -> None:
    async def work() -> None:
        scene = Scene(UNTOLD)
        async with scene.watching.subscribe(BUCKET, JOB):
            await asyncio.sleep(1)
            scene.upstream.set_state(BUCKET.name, JOB, SUCCESS)
            await asyncio.sleep(30)
        assert [(job.job_id, job.queue_id) for job in scene.ends] == [(JOB, UNTOLD)]

    in_virtual_time(work)


def test_a_watcher_that_comes_later_gets_a_state_of_now_and_one_that_comes_at_once_costs_no_read() -> None:
    """While callbacks come, polls are a minute apart: their state would be old."""

    async def work() -> None:
        scene = Scene(TOLD)
        async with scene.watching.subscribe(BUCKET, JOB):
            await asyncio.sleep(1)
            async with scene.watching.subscribe(BUCKET, JOB):
                await asyncio.sleep(KNOWN_SECONDS)
            assert scene.upstream.asked.count(("get", JOB)) == 1
            scene.upstream.set_state(BUCKET.name, JOB, PreviewJob.STATE_PAUSED)
            async with scene.watching.subscribe(BUCKET, JOB) as late:
                assert (await anext(late.states())).state == PreviewJob.STATE_PAUSED  # type: ignore[union-attr]
            assert scene.upstream.asked.count(("get", JOB)) == 2

    in_virtual_time(work)


def test_an_end_that_a_later_watcher_makes_known_ends_all_and_is_noted() -> None:
    async def work() -> None:
        scene = Scene(TOLD)
        async with scene.watching.subscribe(BUCKET, JOB) as first:
            await asyncio.sleep(2 * KNOWN_SECONDS)
            scene.upstream.set_state(BUCKET.name, JOB, SUCCESS)
            async with scene.watching.subscribe(BUCKET, JOB):
                assert (await anext(first.states())).state == SUCCESS  # type: ignore[union-attr]
        assert len(scene.ends) == 1

    in_virtual_time(work)


def test_a_refresh_that_fails_leaves_the_watch_as_it_was() -> None:
    """The next poll tells what is wrong."""

    async def work() -> None:
        scene = Scene(TOLD)
        async with scene.watching.subscribe(BUCKET, JOB) as first:
            await asyncio.sleep(2 * KNOWN_SECONDS)
            scene.upstream.failures.append(UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "no"))
            async with scene.watching.subscribe(BUCKET, JOB) as late:
                assert (await anext(late.states())).state == RUNNING  # type: ignore[union-attr]
            assert (await anext(first.states())).state == RUNNING  # type: ignore[union-attr]

    in_virtual_time(work)


def test_what_any_call_has_read_is_told_to_those_who_watch_the_job() -> None:
    async def work() -> None:
        scene = Scene(TOLD)
        async with scene.watching.subscribe(BUCKET, JOB) as first:
            await asyncio.sleep(1)
            states = first.states()
            assert (await anext(states)).state == RUNNING  # type: ignore[union-attr]
            for state in (PreviewJob.STATE_PAUSED, SUCCESS):
                job = PreviewJob(bucket=BUCKET.name, job_id=JOB, queue_id=TOLD, state=state)
                scene.watching.saw(job)
                assert await anext(states) == job
        assert [job.state for job in scene.ends] == [SUCCESS]

    in_virtual_time(work)


def test_a_replica_that_hears_nobody_polls_as_without_callbacks() -> None:
    """Those of its jobs may come to another replica."""

    async def work() -> None:
        feed = FakeFeed()
        feed.hears = False
        assert await Scene(TOLD, feed=feed).reads(60) >= 5

    in_virtual_time(work)
