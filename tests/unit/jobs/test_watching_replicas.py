"""Pollers that follow what other replicas read."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.jobs.poller import KNOWN_SECONDS
from docpreview_gateway.jobs.polling import Schedule
from docpreview_gateway.jobs.watching import Watching
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream
from tests.unit.conftest import BUCKET, QUICK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.operations import GetJob

JOB = "d1"
THROTTLED = UpstreamError(reasons.ERROR_REASON_UPSTREAM_THROTTLED, "busy")
RUNNING, SUCCESS = PreviewJob.STATE_RUNNING, PreviewJob.STATE_SUCCESS


class FakeFeed:
    """A `JobFeed` of the jobs that a test puts into `shared`; records the seconds of each wait."""

    def __init__(self) -> None:
        self.shared: asyncio.Queue[PreviewJob] = asyncio.Queue()
        self.waits: list[float] = []
        self.hears = True

    async def next(
        self, bucket: Bucket, job_id: str, seconds: float, missed: Callable[[], Awaitable[PreviewJob | None]]
    ) -> PreviewJob | None:
        assert (bucket, job_id) == (BUCKET, JOB)
        self.waits.append(seconds)
        if (job := await missed()) is not None:
            return job
        try:
            async with asyncio.timeout(seconds):
                return await self.shared.get()
        except TimeoutError:
            return None


def job(state: PreviewJob.State.ValueType) -> PreviewJob:
    return PreviewJob(bucket=BUCKET.name, job_id=JOB, state=state)


@asynccontextmanager
async def watching(feed: FakeFeed, cloud: FakeUpstream, *, interval: float) -> AsyncIterator[Watching]:
    """Pollers with the smallest jitter."""
    limits = replace(QUICK, schedule=Schedule(floor=interval, cap=interval, fraction=0.0))
    made = Watching(cloud, CloudTimes(FakeClock()), FakeTelemetry(), limits=limits, jitter=lambda: 0.0, feed=feed)
    async with asyncio.timeout(20):
        yield made
    await made.close()


def cloud_with(state: PreviewJob.State.ValueType) -> FakeUpstream:
    cloud = FakeUpstream()
    cloud.add_job(BUCKET.name, JOB, state)
    return cloud


async def test_a_state_that_another_replica_read_reaches_the_watcher() -> None:
    """The watcher gets the state immediately, without a poll of this replica."""
    feed, cloud = FakeFeed(), cloud_with(RUNNING)
    async with watching(feed, cloud, interval=60) as watched, watched.subscribe(BUCKET, JOB) as subscription:
        seen = []
        async for found in subscription.states():
            assert found is not None
            seen.append(found.state)
            feed.shared.put_nowait(job(PreviewJob.STATE_PAUSED if len(seen) == 1 else SUCCESS))
        assert seen == [RUNNING, PreviewJob.STATE_PAUSED, SUCCESS]
    assert len(cloud.asked) == 1


async def test_a_replica_that_follows_waits_longer_than_the_one_that_polls() -> None:
    """A follower waits longer than any jitter of a poller, so the replica that polled goes on polling."""
    feed, cloud = FakeFeed(), cloud_with(RUNNING)
    async with watching(feed, cloud, interval=50) as watched, watched.subscribe(BUCKET, JOB) as subscription:
        states = subscription.states()
        await anext(states)
        await asyncio.sleep(0)
        feed.shared.put_nowait(job(PreviewJob.STATE_PAUSED))
        await anext(states)
        await asyncio.sleep(0.01)
    assert feed.waits == pytest.approx([40.0, 60.0])


async def test_a_follower_polls_when_the_other_replica_is_lost() -> None:
    """After an interval without a shared read this replica polls."""
    feed, cloud = FakeFeed(), cloud_with(RUNNING)
    async with watching(feed, cloud, interval=0.02) as watched, watched.subscribe(BUCKET, JOB) as subscription:
        states = subscription.states()
        await anext(states)
        cloud.set_state(BUCKET.name, JOB, SUCCESS)
        assert (found := await anext(states)) is not None
        assert found.state == SUCCESS
    assert len(cloud.asked) >= 2


async def test_what_another_replica_read_ends_the_failures_in_a_row_of_this_one() -> None:
    """Its watchers get an error only after as many failures as if it were alone."""
    feed, cloud = FakeFeed(), cloud_with(RUNNING)
    almost = Schedule().patience - 1
    async with watching(feed, cloud, interval=0.01) as watched, watched.subscribe(BUCKET, JOB) as subscription:
        states = subscription.states()
        await anext(states)
        for state in (PreviewJob.STATE_PAUSED, RUNNING):
            cloud.failures += [THROTTLED] * almost
            asked = len(cloud.asked)
            while len(cloud.asked) < asked + almost:  # noqa: ASYNC110 - the state has to come before the next poll
                await asyncio.sleep(0)
            feed.shared.put_nowait(job(state))
            assert (found := await anext(states)) is not None
            assert found.state == state


async def test_a_poll_that_a_cache_has_answered_makes_a_follower() -> None:
    """Another replica has read the job, and will poll it again."""

    class Cache(FakeUpstream):
        async def get(self, operation: GetJob, call: Call) -> PreviewJob:
            found = await super().get(operation, call)
            call.response.cache = "hit"
            return found

    feed, cloud = FakeFeed(), Cache()
    cloud.add_job(BUCKET.name, JOB, RUNNING)
    async with watching(feed, cloud, interval=50) as watched, watched.subscribe(BUCKET, JOB) as subscription:
        await anext(subscription.states())
        await asyncio.sleep(0.01)
    assert feed.waits == pytest.approx([60.0])


class Working:
    """Callbacks that come."""

    def works(self, _bucket: str, _queue_id: str | None) -> bool:
        return True

    def polled(self, _job: PreviewJob) -> None:
        raise AssertionError("no poll finds an end here")


async def test_an_end_that_was_read_before_the_feed_listened_is_found_without_a_poll() -> None:
    """Its callback has come to another replica, and no other one will: a poll is a minute away."""
    seen, asked_within = [job(RUNNING), job(SUCCESS)], list[float]()

    async def last_seen(bucket: Bucket, job_id: str, *, within: float) -> PreviewJob | None:
        asked_within.append(within)
        assert (bucket, job_id) == (BUCKET, JOB)
        return seen.pop(0)

    cloud = cloud_with(RUNNING)
    made = Watching(
        cloud,
        CloudTimes(FakeClock()),
        FakeTelemetry(),
        limits=QUICK,
        jitter=lambda: 0.0,
        feed=FakeFeed(),
        callbacks=Working(),
        last_seen=last_seen,
    )
    async with asyncio.timeout(5), made.subscribe(BUCKET, JOB) as subscription:
        states = [state.state async for state in subscription.states() if state is not None]
    await made.close()
    assert (states[-1], seen, cloud.asked) == (SUCCESS, [], [])
    assert asked_within == [KNOWN_SECONDS, Schedule().backstop]


async def test_a_poll_has_a_time_limit_of_its_own() -> None:
    """And its first read may be answered from a cache."""
    seen: list[Call] = []
    twice = asyncio.Event()

    class Noting(FakeUpstream):
        async def get(self, operation: GetJob, call: Call) -> PreviewJob:
            seen.append(call)
            if len(seen) == 2:
                twice.set()
            return await super().get(operation, call)

    cloud = Noting()
    cloud.add_job(BUCKET.name, JOB, RUNNING)
    begun_at = asyncio.get_running_loop().time()
    async with watching(FakeFeed(), cloud, interval=0.01) as watched, watched.subscribe(BUCKET, JOB) as subscription:
        await anext(subscription.states())
        await twice.wait()
    assert seen[0].deadline == pytest.approx(begun_at + QUICK.poll, abs=1)
    assert [call.no_cache for call in seen[:2]] == [False, True]
