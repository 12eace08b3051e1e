"""One poller per job for everybody who follows it: how it starts, what listeners see, and how it ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.core.errors import GatewayError, UpstreamError
from docpreview_gateway.core.polling import Schedule
from tests.unit.service.conftest import BUCKET, OTHER, QUICK, Office

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.service.watching import Subscription, WatchLimits

RUNNING, SUCCESS, PAUSED = PreviewJob.STATE_RUNNING, PreviewJob.STATE_SUCCESS, PreviewJob.STATE_PAUSED
JOB = "d1"
SOON = 5.0


@asynccontextmanager
async def following(limits: WatchLimits = QUICK) -> AsyncIterator[Office]:
    """An office whose cloud runs the job."""
    office = Office(limits)
    office.upstream.add_job(BUCKET.name, JOB, RUNNING)
    async with asyncio.timeout(20):
        yield office
    await office.watching.close()
    await settled()
    assert (office.telemetry.pollers, office.telemetry.watchers) == (0, 0)
    assert office.upstream.in_flight == 0


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    async with following() as made:
        yield made


def set_state(office: Office, state: PreviewJob.State.ValueType) -> None:
    office.upstream.set_state(BUCKET.name, JOB, state)


async def states(subscription: Subscription) -> list[PreviewJob.State.ValueType | None]:
    return [job if job is None else job.state async for job in subscription.states()]


async def reason_of(awaitable: object) -> r.ErrorReason.ValueType:
    with pytest.raises(GatewayError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.reason


async def settled() -> None:
    """Whatever is ready to run has run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def next_looks(office: Office, count: int = 2) -> None:
    """Wait until the cloud was asked so many times more."""
    for _ in range(count):
        office.upstream.looked.clear()
        await office.upstream.looked.wait()
    await settled()


async def beside_a_young_job(office: Office) -> None:
    """The job is followed for as long as it takes to look ten times at one that has just begun to run."""
    office.upstream.add_job(BUCKET.name, "young", RUNNING).create_time.seconds = int(office.clock.time)
    async with office.watching.subscribe(BUCKET, JOB), office.watching.subscribe(BUCKET, "young"):
        while office.upstream.asked.count(("get", "young")) < 10:
            await next_looks(office, 1)


class TestFollowing:
    async def test_job_that_changes(self, office: Office) -> None:
        """The present state first, then each that lasts, then the end after the terminal one."""
        seen = []
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            async for job in subscription.states():
                assert job is not None
                seen.append(job.state)
                set_state(office, PAUSED if len(seen) == 1 else SUCCESS)
        assert seen == [RUNNING, PAUSED, SUCCESS]

    async def test_job_that_has_ended(self, office: Office) -> None:
        """One state, and the end; the cloud is asked once."""
        set_state(office, SUCCESS)
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert await states(subscription) == [SUCCESS]
        assert len(office.upstream.asked) == 1

    async def test_first_state_and_no_change(self) -> None:
        """While nothing changes nothing is yielded but heartbeats."""
        async with following(replace(QUICK, heartbeat=0.01)) as office:
            async with office.watching.subscribe(BUCKET, JOB) as subscription, aclosing(subscription.states()) as found:
                first, second, third = await anext(found), await anext(found), await anext(found)
            assert first is not None
            assert second is third is None

    async def test_slow_reader(self, office: Office) -> None:
        """Who reads slowly gets the latest state, not those between."""
        async with office.watching.subscribe(BUCKET, JOB) as subscription, aclosing(subscription.states()) as found:
            assert (await anext(found)) is not None
            set_state(office, PAUSED)
            await next_looks(office, 3)
            set_state(office, SUCCESS)
            await next_looks(office, 1)
            job = await anext(found)
            assert job is not None
            assert job.state == SUCCESS
            with pytest.raises(StopAsyncIteration):
                await anext(found)

    async def test_clouds_request_id(self, office: Office) -> None:
        """Listeners know the id of the poller's last request."""
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert subscription.upstream_request_id == ""
            await subscription.ended(0)
            assert subscription.upstream_request_id.startswith("upstream-")

    async def test_stream_that_is_open_for_long(self) -> None:
        """After the longest time of a stream the watcher is told to watch again, and when."""
        async with following(replace(QUICK, stream=0.05, heartbeat=0.02)) as office:
            async with office.watching.subscribe(BUCKET, JOB) as subscription:
                with pytest.raises(GatewayError) as caught:
                    await states(subscription)
            assert caught.value.reason == r.ERROR_REASON_WATCH_LIMIT_REACHED
            assert caught.value.retry_after == 1.0


class TestWaiting:
    async def test_until_the_end(self, office: Office) -> None:
        """The job as it ended."""
        loop = asyncio.get_running_loop()
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            waiting = asyncio.ensure_future(subscription.ended(loop.time() + SOON))
            await next_looks(office, 3)
            assert not waiting.done()
            set_state(office, SUCCESS)
            assert (await waiting).state == SUCCESS

    async def test_until_the_time_is_up(self, office: Office) -> None:
        """The job as it is by then."""
        loop = asyncio.get_running_loop()
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert (await subscription.ended(loop.time() + 0.02)).state == RUNNING

    async def test_no_time_at_all(self, office: Office) -> None:
        """The first look is waited for even then."""
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert (await subscription.ended(0)).state == RUNNING

    async def test_job_that_does_not_exist(self, office: Office) -> None:
        """The error of the look."""
        async with office.watching.subscribe(BUCKET, "d2") as subscription:
            assert await reason_of(subscription.ended(0)) == r.ERROR_REASON_JOB_NOT_FOUND


class TestSharing:
    async def test_many_listeners(self, office: Office) -> None:
        """However many follow a job, one poller asks, and every one of them sees the end."""
        async with AsyncExitStack() as stack:
            subscriptions = [
                await stack.enter_async_context(office.watching.subscribe(BUCKET, JOB)) for _ in range(100)
            ]
            assert (office.telemetry.pollers, office.telemetry.watchers) == (1, 100)
            assert [subscription.cache for subscription in subscriptions] == ["miss", *["coalesced"] * 99]
            everybody = asyncio.gather(*map(states, subscriptions))
            await next_looks(office)
            set_state(office, SUCCESS)
            assert all(seen[-1] == SUCCESS for seen in await everybody)
            assert office.upstream.most_in_flight == 1
        assert office.telemetry.most_pollers == 1

    async def test_different_jobs(self, office: Office) -> None:
        """Each job has a poller of its own; the same id in another bucket is another job."""
        office.upstream.add_job(OTHER.name, JOB, SUCCESS)
        async with office.watching.subscribe(BUCKET, JOB) as one, office.watching.subscribe(OTHER, JOB) as other:
            assert office.telemetry.pollers == 2
            assert (await one.ended(0)).bucket == BUCKET.name
            assert (await other.ended(0)).bucket == OTHER.name

    async def test_latecomer(self, office: Office) -> None:
        """Who joins a poller sees what it saw last at once, without another question to the cloud."""
        async with office.watching.subscribe(BUCKET, JOB) as first:
            await first.ended(0)
            office.upstream.gate = asyncio.Event()
            async with office.watching.subscribe(BUCKET, JOB) as second:
                assert (await second.ended(0)).state == RUNNING

    async def test_all_but_one_leave(self, office: Office) -> None:
        """The poller goes on for the one that stays."""
        async with office.watching.subscribe(BUCKET, JOB) as staying:
            async with office.watching.subscribe(BUCKET, JOB):
                pass
            assert (office.telemetry.pollers, office.telemetry.watchers) == (1, 1)
            set_state(office, SUCCESS)
            assert (await states(staying))[-1] == SUCCESS

    async def test_last_one_leaves_between_polls(self, office: Office) -> None:
        """Nobody asks the cloud any more."""
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            await subscription.ended(0)
        assert (office.telemetry.pollers, office.telemetry.watchers) == (0, 0)
        await settled()
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("poll ")] == []

    async def test_last_one_leaves_during_a_poll(self, office: Office) -> None:
        """The poll in flight is cancelled, not waited for."""
        office.upstream.gate = asyncio.Event()
        async with office.watching.subscribe(BUCKET, JOB):
            await office.upstream.looked.wait()
            await settled()
        await settled()
        assert (office.upstream.cancelled, office.upstream.in_flight) == (1, 0)

    async def test_listener_that_is_cancelled(self, office: Office) -> None:
        """A caller that goes away releases the poller like one that leaves."""

        async def follow() -> None:
            async with office.watching.subscribe(BUCKET, JOB) as subscription:
                await states(subscription)

        task = asyncio.ensure_future(follow())
        await next_looks(office)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (office.telemetry.pollers, office.telemetry.watchers) == (0, 0)

    async def test_next_subscriber_after_the_last_left(self, office: Office) -> None:
        """A new poller starts, which looks for itself."""
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            await subscription.ended(0)
        set_state(office, SUCCESS)
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert subscription.cache == "miss"
            assert await states(subscription) == [SUCCESS]

    async def test_next_subscriber_after_an_error(self, office: Office) -> None:
        """A poller that failed is not joined, not even while its listeners are still there."""
        office.upstream.failures.append(UpstreamError(r.ERROR_REASON_UPSTREAM_ACCESS_DENIED, "no"))
        async with office.watching.subscribe(BUCKET, JOB) as failed:
            assert await reason_of(failed.ended(0)) == r.ERROR_REASON_UPSTREAM_ACCESS_DENIED
            await settled()
            async with office.watching.subscribe(BUCKET, JOB) as fresh:
                assert fresh.cache == "miss"
                assert (await fresh.ended(0)).state == RUNNING
                assert office.telemetry.pollers == 1

    async def test_next_subscriber_after_the_end(self, office: Office) -> None:
        """A poller that came to the end of its job is not joined either."""
        set_state(office, SUCCESS)
        async with office.watching.subscribe(BUCKET, JOB) as first:
            await states(first)
            await settled()
            assert office.telemetry.pollers == 0
            async with office.watching.subscribe(BUCKET, JOB) as second:
                assert second.cache == "miss"
                assert await states(second) == [SUCCESS]


THROTTLED = UpstreamError(r.ERROR_REASON_UPSTREAM_THROTTLED, "slow down", retry_after=1.0)


class TestFailures:
    async def test_fewer_than_patience(self, office: Office) -> None:
        """Polls that fail for reasons that may pass are nobody's business."""
        office.upstream.failures += [THROTTLED, THROTTLED]
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert (await subscription.ended(0)).state == RUNNING

    async def test_success_between_failures(self, office: Office) -> None:
        """Only failures in a row count."""
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            for _ in range(3):
                office.upstream.failures += [THROTTLED, THROTTLED]
                await next_looks(office, 3)
            assert (await subscription.ended(0)).state == RUNNING

    async def test_as_many_as_patience(self, office: Office) -> None:
        """Then every listener hears of it, also those who have seen the job before."""
        async with office.watching.subscribe(BUCKET, JOB) as one, office.watching.subscribe(BUCKET, JOB) as other:
            await one.ended(0)
            watching = asyncio.gather(states(one), states(other), return_exceptions=True)
            await settled()
            office.upstream.failures += [THROTTLED] * 3
            errors = await watching
        assert [getattr(error, "reason", None) for error in errors] == [r.ERROR_REASON_UPSTREAM_THROTTLED] * 2

    async def test_definite_error(self, office: Office) -> None:
        """What will not pass is told at the first failure."""
        office.upstream.failures.append(UpstreamError(r.ERROR_REASON_UPSTREAM_CREDENTIALS, "no"))
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert await reason_of(states(subscription)) == r.ERROR_REASON_UPSTREAM_CREDENTIALS
        assert len(office.upstream.asked) == 1

    async def test_bug(self, office: Office) -> None:
        """Even an exception that nobody expects reaches the listeners, who would wait for ever otherwise."""
        bug = ZeroDivisionError("a bug")
        office.upstream.failures.append(bug)
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            with pytest.raises(ZeroDivisionError) as caught:
                await states(subscription)
        assert caught.value is bug

    async def test_interval_after_failures(self) -> None:
        """Failed polls come at longer and longer intervals."""
        schedule = Schedule(floor=0.01, cap=10.0, fraction=0.0, patience=5)
        async with following(replace(QUICK, schedule=schedule)) as office:
            office.upstream.failures += [THROTTLED] * 4
            loop = asyncio.get_running_loop()
            begin = loop.time()
            async with office.watching.subscribe(BUCKET, JOB) as subscription:
                await subscription.ended(0)
            assert loop.time() - begin > 0.01 * (2 + 4 + 8 + 16) * 0.9


class TestIntervals:
    async def test_paused_job(self) -> None:
        """A paused job is looked at as seldom as possible, a young running one often."""
        schedule = Schedule(floor=0.001, cap=60.0, fraction=0.0)
        async with following(replace(QUICK, schedule=schedule)) as office:
            set_state(office, PAUSED)
            await beside_a_young_job(office)
            assert office.upstream.asked.count(("get", JOB)) == 1

    async def test_old_job(self) -> None:
        """The older a job, the seldom it is looked at; one whose age nobody knows counts as young."""
        schedule = Schedule(floor=0.001, cap=60.0, fraction=0.1)
        async with following(replace(QUICK, schedule=schedule)) as office:
            office.clock.time = office.upstream.jobs[BUCKET.name, JOB].create_time.seconds + 600
            await beside_a_young_job(office)
            assert office.upstream.asked.count(("get", JOB)) == 1
            office.upstream.jobs[BUCKET.name, JOB].ClearField("create_time")
            async with office.watching.subscribe(BUCKET, JOB):
                await next_looks(office, 3)

    async def test_clock_behind_the_clouds(self) -> None:
        """A job from the future counts as new."""
        async with following() as office:
            office.clock.time = 0
            async with office.watching.subscribe(BUCKET, JOB):
                await next_looks(office, 3)


class TestDrain:
    async def test_watchers_and_waiters(self, office: Office) -> None:
        """Everybody is told to come back, and nobody polls any more."""
        loop = asyncio.get_running_loop()
        office.upstream.add_job(OTHER.name, JOB, RUNNING)

        async def follow(kind: str) -> r.ErrorReason.ValueType:
            bucket = OTHER if kind == "other" else BUCKET
            async with office.watching.subscribe(bucket, JOB) as subscription:
                with pytest.raises(GatewayError) as caught:
                    await (subscription.ended(loop.time() + 60) if kind == "wait" else states(subscription))
                assert caught.value.retry_after == 1.0
                return caught.value.reason

        everybody = asyncio.gather(*map(follow, ("watch", "wait", "other", "watch")))
        await next_looks(office, 4)
        office.watching.drain()
        assert await everybody == [r.ERROR_REASON_SHUTTING_DOWN] * 4
        await settled()
        assert office.upstream.in_flight == 0

    async def test_during_the_first_look(self, office: Office) -> None:
        """Who has not seen anything yet is not kept waiting either."""
        office.upstream.gate = asyncio.Event()
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            waiting = asyncio.ensure_future(subscription.ended(0))
            await office.upstream.looked.wait()
            office.watching.drain()
            assert await reason_of(waiting) == r.ERROR_REASON_SHUTTING_DOWN

    async def test_new_ones(self, office: Office) -> None:
        """After the drain began nobody starts to follow."""
        office.watching.drain()
        with pytest.raises(GatewayError) as caught:
            async with office.watching.subscribe(BUCKET, JOB):
                pass
        assert caught.value.reason == r.ERROR_REASON_SHUTTING_DOWN
        assert office.upstream.asked == []

    async def test_close(self) -> None:
        """What still polls is stopped, and waited for."""
        office = Office()
        office.upstream.add_job(BUCKET.name, JOB, RUNNING)
        office.upstream.gate = asyncio.Event()
        async with office.watching.subscribe(BUCKET, JOB):
            await office.upstream.looked.wait()
            await settled()
            await office.watching.close()
            assert office.upstream.cancelled == 1
