"""The shared poller of a job: how it starts, what subscribers see, and how it ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.jobs.polling import Schedule
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.model.trace_context import Trace
from tests.unit.conftest import BUCKET, OTHER, QUICK, Office

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.jobs.poller import WatchLimits
    from docpreview_gateway.jobs.watching import Subscription

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
    await run_ready_tasks()
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


async def run_ready_tasks() -> None:
    """Run all tasks that are ready."""
    for _ in range(5):
        await asyncio.sleep(0)


async def next_polls(office: Office, count: int = 2) -> None:
    """Wait for `count` more polls."""
    for _ in range(count):
        office.upstream.called.clear()
        await office.upstream.called.wait()
    await run_ready_tasks()


async def test_a_poller_has_the_traces_of_those_who_watch_its_job_now(office: Office) -> None:
    """Those without a trace leave none."""
    trace = Trace("a" * 32, "b" * 16, sampled=True)
    poller, _ = office.watching.join(BUCKET, JOB, Caller("shop"), None)
    office.watching.join(BUCKET, JOB, Caller("shop"), trace)
    assert poller.watcher_traces == [trace]
    office.watching.leave(poller, trace)
    assert poller.watcher_traces == []
    office.watching.leave(poller, None)


async def beside_a_young_job(office: Office) -> None:
    """Follow the job for as long as a job that has just begun to run is polled ten times."""
    office.upstream.add_job(BUCKET.name, "young", RUNNING).create_time.seconds = int(office.clock.time)
    async with office.watching.subscribe(BUCKET, JOB), office.watching.subscribe(BUCKET, "young"):
        while office.upstream.asked.count(("get", "young")) < 10:
            await next_polls(office, 1)


class TestFollowing:
    async def test_a_subscriber_gets_the_current_state_and_each_change_to_the_end(self, office: Office) -> None:
        """The subscription ends after a terminal state."""
        seen = []
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            async for job in subscription.states():
                assert job is not None
                seen.append(job.state)
                set_state(office, PAUSED if len(seen) == 1 else SUCCESS)
        assert seen == [RUNNING, PAUSED, SUCCESS]

    async def test_an_ended_job_gives_one_state_after_one_poll(self, office: Office) -> None:
        """The subscription ends after the first state."""
        set_state(office, SUCCESS)
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert await states(subscription) == [SUCCESS]
        assert len(office.upstream.asked) == 1

    async def test_an_unchanged_job_gives_heartbeats(self) -> None:
        """A heartbeat is None."""
        async with following(replace(QUICK, heartbeat=0.01)) as office:
            async with office.watching.subscribe(BUCKET, JOB) as subscription, aclosing(subscription.states()) as found:
                first, second, third = await anext(found), await anext(found), await anext(found)
            assert first is not None
            assert second is third is None

    async def test_a_slow_reader_gets_the_latest_state_and_not_those_between(self, office: Office) -> None:
        """States that were replaced before they were read are skipped."""
        async with office.watching.subscribe(BUCKET, JOB) as subscription, aclosing(subscription.states()) as found:
            assert (await anext(found)) is not None
            set_state(office, PAUSED)
            await next_polls(office, 3)
            set_state(office, SUCCESS)
            await next_polls(office, 1)
            job = await anext(found)
            assert job is not None
            assert job.state == SUCCESS
            with pytest.raises(StopAsyncIteration):
                await anext(found)

    async def test_a_subscription_has_the_clouds_latest_request_id(self, office: Office) -> None:
        """The id is that of the poller's latest request."""
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert subscription.upstream_request_id == ""
            await subscription.ended(0)
            assert subscription.upstream_request_id.startswith("upstream-")

    async def test_a_stream_ends_after_its_longest_lifetime(self) -> None:
        """WATCH_LIMIT_REACHED, with the seconds after which to watch again."""
        async with following(replace(QUICK, stream=0.05, heartbeat=0.02)) as office:
            async with office.watching.subscribe(BUCKET, JOB) as subscription:
                with pytest.raises(GatewayError) as caught:
                    await states(subscription)
            assert caught.value.reason == r.ERROR_REASON_WATCH_LIMIT_REACHED
            assert caught.value.retry_after == 1.0


class TestWaiting:
    async def test_a_wait_returns_the_ended_job(self, office: Office) -> None:
        """The wait ends with the job."""
        loop = asyncio.get_running_loop()
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            waiting = asyncio.ensure_future(subscription.ended(loop.time() + SOON))
            await next_polls(office, 3)
            assert not waiting.done()
            set_state(office, SUCCESS)
            assert (await waiting).state == SUCCESS

    async def test_a_wait_returns_the_current_state_at_its_timeout(self, office: Office) -> None:
        """The timeout is not an error."""
        loop = asyncio.get_running_loop()
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert (await subscription.ended(loop.time() + 0.02)).state == RUNNING

    async def test_a_wait_of_no_time_awaits_the_first_poll(self, office: Office) -> None:
        """A state is returned even then."""
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert (await subscription.ended(0)).state == RUNNING

    async def test_a_wait_for_a_missing_job_raises_the_polls_error(self, office: Office) -> None:
        """JOB_NOT_FOUND."""
        async with office.watching.subscribe(BUCKET, "d2") as subscription:
            assert await reason_of(subscription.ended(0)) == r.ERROR_REASON_JOB_NOT_FOUND


class TestSharing:
    async def test_many_watchers_of_a_job_share_one_poller_and_all_see_its_end(self, office: Office) -> None:
        """A hundred subscribers cost one poll at a time."""
        async with AsyncExitStack() as stack:
            subscriptions = [
                await stack.enter_async_context(office.watching.subscribe(BUCKET, JOB)) for _ in range(100)
            ]
            assert (office.telemetry.pollers, office.telemetry.watchers) == (1, 100)
            assert [subscription.cache for subscription in subscriptions] == ["miss", *["coalesced"] * 99]
            followers = asyncio.gather(*map(states, subscriptions))
            await next_polls(office)
            set_state(office, SUCCESS)
            assert all(seen[-1] == SUCCESS for seen in await followers)
            assert office.upstream.most_in_flight == 1
        assert office.telemetry.most_pollers == 1

    async def test_each_job_of_each_bucket_has_a_poller_of_its_own(self, office: Office) -> None:
        """The same id in another bucket is another job."""
        office.upstream.add_job(OTHER.name, JOB, SUCCESS)
        async with office.watching.subscribe(BUCKET, JOB) as one, office.watching.subscribe(OTHER, JOB) as other:
            assert office.telemetry.pollers == 2
            assert (await one.ended(0)).bucket == BUCKET.name
            assert (await other.ended(0)).bucket == OTHER.name

    async def test_a_watcher_that_joins_late_gets_the_latest_state_immediately(self, office: Office) -> None:
        """Joining a poller needs no further poll."""
        async with office.watching.subscribe(BUCKET, JOB) as first:
            await first.ended(0)
            office.upstream.gate = asyncio.Event()
            async with office.watching.subscribe(BUCKET, JOB) as second:
                assert (await second.ended(0)).state == RUNNING

    async def test_a_poller_goes_on_for_its_last_subscriber(self, office: Office) -> None:
        """Other subscriptions may end at any time."""
        async with office.watching.subscribe(BUCKET, JOB) as staying:
            async with office.watching.subscribe(BUCKET, JOB):
                pass
            assert (office.telemetry.pollers, office.telemetry.watchers) == (1, 1)
            set_state(office, SUCCESS)
            assert (await states(staying))[-1] == SUCCESS

    async def test_polling_stops_with_the_last_subscription(self, office: Office) -> None:
        """No poll follows."""
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            await subscription.ended(0)
        assert (office.telemetry.pollers, office.telemetry.watchers) == (0, 0)
        await run_ready_tasks()
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("poll ")] == []

    async def test_the_last_subscription_cancels_a_poll_in_flight(self, office: Office) -> None:
        """The poll is not awaited."""
        office.upstream.gate = asyncio.Event()
        async with office.watching.subscribe(BUCKET, JOB):
            await office.upstream.called.wait()
            await run_ready_tasks()
        await run_ready_tasks()
        assert (office.upstream.cancelled, office.upstream.in_flight) == (1, 0)

    async def test_a_cancelled_subscriber_releases_the_poller(self, office: Office) -> None:
        """Cancellation ends a subscription like leaving its context."""

        async def follow() -> None:
            async with office.watching.subscribe(BUCKET, JOB) as subscription:
                await states(subscription)

        task = asyncio.ensure_future(follow())
        await next_polls(office)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (office.telemetry.pollers, office.telemetry.watchers) == (0, 0)

    async def test_a_subscriber_after_the_last_one_left_starts_a_new_poller(self, office: Office) -> None:
        """The new poller polls, and reuses no earlier state."""
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            await subscription.ended(0)
        set_state(office, SUCCESS)
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert subscription.cache == "miss"
            assert await states(subscription) == [SUCCESS]

    async def test_a_failed_poller_is_not_joined(self, office: Office) -> None:
        """A new poller starts even while the failed one has subscribers."""
        office.upstream.failures.append(UpstreamError(r.ERROR_REASON_UPSTREAM_ACCESS_DENIED, "no"))
        async with office.watching.subscribe(BUCKET, JOB) as failed:
            assert await reason_of(failed.ended(0)) == r.ERROR_REASON_UPSTREAM_ACCESS_DENIED
            await run_ready_tasks()
            async with office.watching.subscribe(BUCKET, JOB) as fresh:
                assert fresh.cache == "miss"
                assert (await fresh.ended(0)).state == RUNNING
                assert office.telemetry.pollers == 1

    async def test_a_poller_of_an_ended_job_is_not_joined(self, office: Office) -> None:
        """A new poller starts, although the first subscription is still open."""
        set_state(office, SUCCESS)
        async with office.watching.subscribe(BUCKET, JOB) as first:
            await states(first)
            await run_ready_tasks()
            assert office.telemetry.pollers == 0
            async with office.watching.subscribe(BUCKET, JOB) as second:
                assert second.cache == "miss"
                assert await states(second) == [SUCCESS]


THROTTLED = UpstreamError(r.ERROR_REASON_UPSTREAM_THROTTLED, "slow down", retry_after=1.0)


class TestFailures:
    async def test_fewer_failures_than_patience_are_not_reported(self, office: Office) -> None:
        """Transient failures are hidden from subscribers."""
        office.upstream.failures += [THROTTLED, THROTTLED]
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert (await subscription.ended(0)).state == RUNNING

    async def test_a_success_resets_the_count_of_failures(self, office: Office) -> None:
        """Only consecutive failures count."""
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            for _ in range(3):
                office.upstream.failures += [THROTTLED, THROTTLED]
                await next_polls(office, 3)
            assert (await subscription.ended(0)).state == RUNNING

    async def test_as_many_failures_as_patience_reach_every_subscriber(self, office: Office) -> None:
        """Subscribers that already have a state get the error too."""
        async with office.watching.subscribe(BUCKET, JOB) as one, office.watching.subscribe(BUCKET, JOB) as other:
            await one.ended(0)
            watching = asyncio.gather(states(one), states(other), return_exceptions=True)
            await run_ready_tasks()
            office.upstream.failures += [THROTTLED] * 3
            errors = await watching
        assert [getattr(error, "reason", None) for error in errors] == [r.ERROR_REASON_UPSTREAM_THROTTLED] * 2

    async def test_a_definite_error_reaches_the_watcher_at_the_first_failure(self, office: Office) -> None:
        """A permanent error is not retried."""
        office.upstream.failures.append(UpstreamError(r.ERROR_REASON_UPSTREAM_CREDENTIALS, "no"))
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            assert await reason_of(states(subscription)) == r.ERROR_REASON_UPSTREAM_CREDENTIALS
        assert len(office.upstream.asked) == 1

    async def test_an_unexpected_exception_reaches_the_watchers(self, office: Office) -> None:
        """Otherwise the subscribers would wait forever."""
        bug = ZeroDivisionError("bug")
        office.upstream.failures.append(bug)
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            with pytest.raises(ZeroDivisionError) as caught:
                await states(subscription)
        assert caught.value is bug

    async def test_consecutive_failures_double_the_interval(self) -> None:
        """Four failures delay the first state by the doubled intervals."""
        schedule = Schedule(floor=0.01, cap=10.0, fraction=0.0, patience=5)
        async with following(replace(QUICK, schedule=schedule)) as office:
            office.upstream.failures += [THROTTLED] * 4
            loop = asyncio.get_running_loop()
            begin = loop.time()
            async with office.watching.subscribe(BUCKET, JOB) as subscription:
                await subscription.ended(0)
            assert loop.time() - begin > 0.01 * (2 + 4 + 8 + 16) * 0.9


class TestIntervals:
    async def test_a_paused_job_is_polled_at_the_longest_interval(self) -> None:
        """A young running job is polled at the shortest one meanwhile."""
        schedule = Schedule(floor=0.001, cap=60.0, fraction=0.0)
        async with following(replace(QUICK, schedule=schedule)) as office:
            set_state(office, PAUSED)
            await beside_a_young_job(office)
            assert office.upstream.asked.count(("get", JOB)) == 1

    async def test_an_old_job_is_polled_less_often_than_a_young_one(self) -> None:
        """The interval grows with the age; a job of unknown age counts as young."""
        schedule = Schedule(floor=0.001, cap=60.0, fraction=0.1)
        async with following(replace(QUICK, schedule=schedule)) as office:
            office.clock.time = office.upstream.jobs[BUCKET.name, JOB].create_time.seconds + 600
            await beside_a_young_job(office)
            assert office.upstream.asked.count(("get", JOB)) == 1
            office.upstream.jobs[BUCKET.name, JOB].ClearField("create_time")
            async with office.watching.subscribe(BUCKET, JOB):
                await next_polls(office, 3)

    async def test_a_job_created_after_now_counts_as_new(self) -> None:
        """The clock may be behind the cloud's."""
        async with following() as office:
            office.clock.time = 0
            async with office.watching.subscribe(BUCKET, JOB):
                await next_polls(office, 3)


class TestDrain:
    async def test_a_drain_ends_all_watches_and_waits(self, office: Office) -> None:
        """SHUTTING_DOWN with the seconds after which to come back, and no further polls."""
        loop = asyncio.get_running_loop()
        office.upstream.add_job(OTHER.name, JOB, RUNNING)

        async def follow(kind: str) -> r.ErrorReason.ValueType:
            bucket = OTHER if kind == "other" else BUCKET
            async with office.watching.subscribe(bucket, JOB) as subscription:
                with pytest.raises(GatewayError) as caught:
                    await (subscription.ended(loop.time() + 60) if kind == "wait" else states(subscription))
                assert caught.value.retry_after == 1.0
                return caught.value.reason

        followers = asyncio.gather(*map(follow, ("watch", "wait", "other", "watch")))
        await next_polls(office, 4)
        office.watching.drain()
        assert await followers == [r.ERROR_REASON_SHUTTING_DOWN] * 4
        await run_ready_tasks()
        assert office.upstream.in_flight == 0

    async def test_a_drain_during_the_first_poll_ends_the_wait_for_it(self, office: Office) -> None:
        """Subscribers without a state are not kept waiting."""
        office.upstream.gate = asyncio.Event()
        async with office.watching.subscribe(BUCKET, JOB) as subscription:
            waiting = asyncio.ensure_future(subscription.ended(0))
            await office.upstream.called.wait()
            office.watching.drain()
            assert await reason_of(waiting) == r.ERROR_REASON_SHUTTING_DOWN

    async def test_a_watch_after_the_drain_began_is_refused(self, office: Office) -> None:
        """SHUTTING_DOWN, without a poll."""
        office.watching.drain()
        with pytest.raises(GatewayError) as caught:
            async with office.watching.subscribe(BUCKET, JOB):
                pass
        assert caught.value.reason == r.ERROR_REASON_SHUTTING_DOWN
        assert office.upstream.asked == []

    async def test_closing_stops_the_pollers_and_waits_for_them(self) -> None:
        """`close` cancels a poll in flight and awaits its end."""
        office = Office()
        office.upstream.add_job(BUCKET.name, JOB, RUNNING)
        office.upstream.gate = asyncio.Event()
        async with office.watching.subscribe(BUCKET, JOB):
            await office.upstream.called.wait()
            await run_ready_tasks()
            await office.watching.close()
            assert office.upstream.cancelled == 1
