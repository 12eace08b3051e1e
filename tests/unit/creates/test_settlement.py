"""The loop over records that are due: outcomes, charges, and what may be forgotten."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview_gateway.creates.pages import Pages
from docpreview_gateway.creates.records import State
from docpreview_gateway.creates.settlement import CLAIM_SECONDS, FORGET_SECONDS, LONGEST_INTERVAL_SECONDS, OPEN_SECONDS
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.operations import GetJob
from tests.unit.creates.worlds import (
    BUCKET,
    COUNTED,
    DAY,
    EXCLUSIVE,
    FENCE,
    TIMING,
    World,
    name_of,
    request,
    selecting,
)

DOWN = UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down")
TODAY = "2026-11-15"


@pytest.fixture
def world() -> World:
    return World()


async def test_an_ended_job_is_charged_once_for_the_pages_that_it_made(world: World) -> None:
    job = await world.create(request(), COUNTED)
    await world.settle(3)
    assert world.pages() == Pages(0, 40)
    world.cloud.end(job.job_id, 7)
    await world.settle(60)
    await world.settle(600)
    assert world.pages() == Pages(7, 0)
    assert [record.state for record in world.records] == [State.CHARGED]


@pytest.mark.parametrize(
    ("state", "made"),
    [(PreviewJob.STATE_FAILED, 0), (PreviewJob.STATE_FAILED, 3), (PreviewJob.STATE_CANCELLED, 2)],
)
async def test_a_job_that_failed_is_charged_what_it_made(
    world: World, state: PreviewJob.State.ValueType, made: int
) -> None:
    job = await world.create(request(), COUNTED)
    world.cloud.end(job.job_id, made, state=state)
    await world.settle(3)
    assert world.pages() == Pages(made, 0)


async def test_a_pdf_is_charged_all_of_its_pages(world: World) -> None:
    asked = request(options=PreviewOptions(target_format=PreviewOptions.TARGET_FORMAT_PDF))
    asked.output.object = "out/${Number}.pdf"
    job = await world.create(asked, COUNTED)
    world.cloud.end(job.job_id, 30)
    world.cloud.jobs[job.job_id][0].result.succeeded_page_count = 1
    await world.settle(3)
    assert world.pages() == Pages(30, 0)


async def test_a_job_is_looked_at_as_the_gateway_and_ever_more_seldom(world: World) -> None:
    await world.create(request(), COUNTED)
    world.cloud.calls.clear()
    world.cloud.asked.clear()
    for _ in range(600):
        await world.settle(2)
    looks = sum(isinstance(each, GetJob) for each in world.cloud.asked)
    assert {call.caller.name for call in world.cloud.calls} == {"gateway"}
    assert 10 <= looks <= 40
    await world.settle(LONGEST_INTERVAL_SECONDS + CLAIM_SECONDS)
    assert sum(isinstance(each, GetJob) for each in world.cloud.asked) >= looks


class Trusted:
    """Callbacks that come for jobs of one queue only."""

    def works(self, bucket: str, queue_id: str) -> bool:
        return (bucket, queue_id) == (BUCKET.name, "p1")


@pytest.mark.parametrize(("queue_id", "most"), [("p1", 2), ("p2", 40)])
async def test_a_job_whose_queue_calls_back_is_hardly_looked_at(world: World, queue_id: str, most: int) -> None:
    """The callback is the look; one of another queue is looked at as without callbacks."""
    job = await world.create(request(), COUNTED)
    world.cloud.jobs[job.job_id][0].queue_id = queue_id
    at = world.process(callbacks=Trusted())
    await at.history.hear(BUCKET)
    world.cloud.asked.clear()
    for _ in range(100):
        await world.settle(2, at=at)
    assert max(1, most // 8) <= sum(isinstance(each, GetJob) for each in world.cloud.asked) <= most


async def test_a_record_is_looked_at_by_one_process_at_a_time(world: World) -> None:
    await world.create(request(), COUNTED)
    other = world.process()
    await other.history.hear(BUCKET)
    await asyncio.sleep(3)
    before = len(world.cloud.asked)
    await asyncio.gather(world.settle(), world.settle(at=other))
    assert len(world.cloud.asked) == before + 1


async def test_a_job_that_cannot_be_read_is_looked_at_again_and_disturbs_no_other(world: World) -> None:
    world.cloud.get_failures = [DOWN]
    jobs = [await world.create(selecting("1-5"), COUNTED) for _ in range(2)]
    for job in jobs:
        world.cloud.end(job.job_id, 2)
    await world.settle(3)
    assert world.pages() == Pages(2, 5)
    await world.settle(CLAIM_SECONDS + 1)
    assert world.pages() == Pages(4, 0)


async def test_a_job_that_the_cloud_does_not_know_is_charged_what_was_asked_after_a_day(world: World) -> None:
    await world.create(request(), COUNTED)
    world.cloud.jobs.clear()
    for _ in range(20):
        await world.settle(3600)
    assert world.pages(day=TODAY) == Pages(0, 40)
    for _ in range(5):
        await world.settle(3600)
    assert world.pages(day=TODAY) == Pages(40, 0)


async def test_a_wrong_date_charges_no_job_that_the_cloud_does_not_know_for_a_moment(world: World) -> None:
    job = await world.create(request(), COUNTED)
    hidden = world.cloud.jobs.pop(job.job_id)
    await asyncio.sleep(3)
    world.cloud.lies = [30 * DAY]
    await world.parts.history.hear(BUCKET)
    await world.settle()
    assert world.pages() == Pages(0, 40)
    world.cloud.jobs[job.job_id] = hidden


async def test_a_job_is_charged_to_the_day_of_its_create(world: World) -> None:
    job = await world.create(request(), COUNTED)
    await asyncio.sleep(2 * DAY)
    world.cloud.end(job.job_id, 7)
    await world.settle()
    assert world.pages(day=TODAY) == Pages(7, 0)
    assert world.pages() == Pages(0, 0)


async def test_records_of_a_bucket_that_is_not_configured_any_more_are_charged_what_was_asked() -> None:
    """Accepted ones and unknown ones: nobody can ask for them. Then they are forgotten as others are."""
    world = World()
    await world.create(request(bucket=EXCLUSIVE), COUNTED)
    world.cloud.fates = ["never"]
    await world.error(request(bucket=EXCLUSIVE), COUNTED, seconds=2)
    world.buckets = (BUCKET,)
    after = world.process()
    await after.history.hear(BUCKET)
    await world.settle(TIMING.watch + 60, at=after)
    assert world.pages() == Pages(80, 0)
    for _ in range(60):
        await after.history.hear(BUCKET)
        await world.settle(1800, at=after)
    assert world.records == []
    assert world.pages(day=TODAY) == Pages(80, 0)


async def test_a_lost_reply_is_found_by_the_loop_and_the_next_repeat_gets_the_job(world: World) -> None:
    world.cloud.fates = ["lost"]
    world.cloud.lag = 40
    asked = request()
    assert name_of(await world.error(asked, COUNTED, seconds=2)) == "CREATE_OUTCOME_UNKNOWN"
    await world.settle(TIMING.watch + 10)
    record = world.record(asked, COUNTED)
    assert record is not None
    assert record.state is State.ACCEPTED
    lists = len(world.cloud.lists)
    assert (await world.create(asked, COUNTED)).job_id == record.job_id
    assert len(world.cloud.lists) == lists


async def test_creates_of_dead_processes_are_found_or_released_by_another(world: World) -> None:
    found, gone = request(), request()
    world.cloud.fates = ["lost", "never"]
    world.cloud.lag = 40
    for asked in (found, gone):
        await world.error(asked, COUNTED, seconds=2)
    other = world.process()
    await other.history.hear(BUCKET)
    for _ in range(8):
        await world.settle(60, at=other)
    record = world.record(found, COUNTED)
    assert record is not None
    assert record.job_id
    assert world.record(gone, COUNTED) is None
    assert world.pages() == Pages(0, 40)
    assert world.telemetry.unreconciled_creates[-1][0] == 0


async def test_open_records_are_told_with_the_age_of_the_oldest(world: World) -> None:
    world.cloud.fates = ["never"]
    await world.error(request(), COUNTED, seconds=2)
    await world.settle(TIMING.watch + 60)
    count, age = next(each for each in world.telemetry.unreconciled_creates if each[0])
    assert count == 1
    assert age == pytest.approx(TIMING.watch + 60, abs=10)


async def test_of_several_open_records_the_oldest_is_told(world: World) -> None:
    for _ in range(2):
        world.cloud.fates = ["never"]
        await world.error(request(), COUNTED, seconds=2)
        await asyncio.sleep(30)
    await world.settle(TIMING.watch)
    age = next(age for count, age in world.telemetry.unreconciled_creates if count == 2)
    assert age == pytest.approx(TIMING.watch + 60, abs=10)


async def test_an_open_record_at_which_others_look_is_not_told_for_ever() -> None:
    world = World()
    world.cloud.echo = False
    world.cloud.fates = ["lost"]
    await world.error(request(), COUNTED, seconds=2)
    await world.settle(TIMING.watch + 60)
    (standing,) = world.records
    world.data.delete(standing.key)
    await world.settle(OPEN_SECONDS - 60)
    assert world.telemetry.unreconciled_creates[-1][0] == 1
    await world.settle(90)
    assert world.telemetry.unreconciled_creates[-1][0] == 0


async def test_a_process_that_heard_nothing_settles_nothing(world: World) -> None:
    await world.create(request(), COUNTED)
    await asyncio.sleep(DAY * 30)
    other = world.process()
    calls = sum(world.store.calls.values())
    await world.settle(at=other)
    assert len(world.records) == 1
    assert sum(world.store.calls.values()) == calls


async def test_a_round_without_the_store_is_repeated(world: World) -> None:
    job = await world.create(request(), COUNTED)
    world.cloud.end(job.job_id, 7)
    world.store.fail_before = 1
    await world.settle(3)
    await world.settle(3)
    assert world.pages() == Pages(7, 0)


async def test_a_wrong_date_of_the_reply_to_a_create_does_not_put_off_its_charge(world: World) -> None:
    await world.create(request(), COUNTED)
    world.cloud.lies = [30 * DAY]
    job = await world.create(request(), COUNTED)
    await world.parts.history.hear(BUCKET)
    world.cloud.end(job.job_id, 7)
    await world.settle(300)
    assert world.pages() == Pages(7, 40)


async def test_a_wrong_date_before_a_look_does_not_put_off_the_next_one(world: World) -> None:
    job = await world.create(request(), COUNTED)
    await asyncio.sleep(3)
    world.cloud.lies = [30 * DAY]
    await world.parts.history.hear(BUCKET)
    await world.settle()
    world.cloud.end(job.job_id, 7)
    await world.settle(600)
    assert world.pages() == Pages(7, 0)


async def test_a_create_that_stays_ambiguous_is_looked_at_ever_less_often() -> None:
    """At most every five minutes, not every two seconds for a day; it counts as unknown all the time."""
    world = World()
    world.cloud.echo = False
    world.cloud.fates = ["lost"]
    await world.error(request(), COUNTED, seconds=2)
    lists = []
    for _ in range(3):
        before = len(world.cloud.lists)
        for _ in range(300):
            await world.settle(4)
        lists.append(len(world.cloud.lists) - before)
    assert world.telemetry.ledger_events[-1] == "ambiguous"
    assert lists[-1] <= 10
    assert world.telemetry.unreconciled_creates[-1][0] == 1


async def test_an_id_that_stayed_ambiguous_is_so_until_it_is_forgotten() -> None:
    """Its pages are charged by then, and it has no job."""
    world = World()
    world.cloud.echo = False
    world.cloud.fates = ["lost"]
    asked = request()
    await world.error(asked, COUNTED, seconds=2)
    await world.settle(TIMING.keep + 300)
    record = world.record(asked, COUNTED)
    assert record is not None
    if record.state is State.OPEN:
        await world.settle(TIMING.watch + 60)
    await world.settle(2)
    assert world.telemetry.unreconciled_creates[-1][0] == 0
    assert name_of(await world.error(asked, COUNTED, seconds=5)) == "CREATE_OUTCOME_AMBIGUOUS"
    assert world.pages(day=TODAY) == Pages(40, 0)
    assert world.cloud.posts == 1


class TestForgetting:
    """Two looks, at least an hour apart, each with a fresh `Date`, at a record that has expired by the cloud's time."""

    async def ended(self, world: World) -> None:
        job = await world.create(request(), COUNTED)
        world.cloud.end(job.job_id, 7)
        await world.settle(3)

    async def test_a_record_is_remembered_until_it_expires_and_an_hour_longer(self, world: World) -> None:
        await self.ended(world)
        await world.settle(TIMING.keep - 60)
        await world.settle(120)
        assert len(world.records) == 1
        await world.settle(FORGET_SECONDS - 60)
        assert len(world.records) == 1
        await world.settle(60 + CLAIM_SECONDS)
        assert world.records == []
        assert world.pages(day=TODAY) == Pages(7, 0)

    async def test_each_look_has_a_fresh_date(self, world: World) -> None:
        await self.ended(world)
        asked = len(world.cloud.lists)
        await world.settle(TIMING.keep + 120)
        assert len(world.cloud.lists) == asked + 1
        await world.settle(FORGET_SECONDS + CLAIM_SECONDS)
        assert len(world.cloud.lists) == asked + 2

    async def test_nothing_is_forgotten_while_the_cloud_cannot_be_asked(self, world: World) -> None:
        await self.ended(world)
        world.cloud.list_failures = [DOWN] * 100
        for _ in range(50):
            await world.settle(3600)
        assert len(world.records) == 1

    async def test_nothing_is_forgotten_by_replies_without_a_date(self, world: World) -> None:
        await self.ended(world)
        world.cloud.has_dates = False
        for _ in range(50):
            await world.settle(3600)
        assert len(world.records) == 1

    async def test_a_wrong_date_far_ahead_forgets_nothing(self, world: World) -> None:
        """The look at the right time that follows disagrees."""
        await self.ended(world)
        await asyncio.sleep(3600)
        world.cloud.lies = [30 * DAY]
        await world.parts.history.hear(BUCKET)
        for _ in range(20):
            await world.settle(1800)
        assert len(world.records) == 1

    async def test_two_wrong_dates_with_a_right_one_between_them_forget_nothing(self, world: World) -> None:
        """A look that disagrees clears the note of the first."""
        await self.ended(world)
        for _ in range(4):
            await asyncio.sleep(3000)
            world.cloud.lies = [30 * DAY]
            await world.parts.history.hear(BUCKET)
            await world.settle()
            await world.parts.history.hear(BUCKET)
            for key in list(world.data.records):
                await world.store.postpone([key], 0.0)
            await world.settle()
        assert len(world.records) == 1

    async def test_another_process_looks_twice_for_itself(self, world: World) -> None:
        await self.ended(world)
        await world.settle(TIMING.keep + 120)
        other = world.process()
        await asyncio.sleep(2 * FORGET_SECONDS)
        await other.history.hear(BUCKET)
        await world.settle(at=other)
        assert len(world.records) == 1
        for _ in range(3):
            await world.settle(FORGET_SECONDS, at=other)
        assert world.records == []

    async def test_an_id_that_was_forgotten_is_a_new_create_that_is_reserved_and_charged(self, world: World) -> None:
        asked = request()
        first = await world.create(asked, COUNTED)
        world.cloud.end(first.job_id, 7)
        await world.settle(3)
        await world.settle(TIMING.keep + 120)
        await world.settle(FORGET_SECONDS + CLAIM_SECONDS)
        assert world.record(asked, COUNTED) is None
        world.cloud.fates = ["lost"]
        second = await world.create(asked, COUNTED)
        assert second.job_id != first.job_id
        assert world.cloud.posts == 2


async def test_a_process_without_calls_asks_for_the_time_itself_and_settles_what_others_left(world: World) -> None:
    job = await world.create(request(), COUNTED)
    world.cloud.end(job.job_id, 7)
    await asyncio.sleep(60)
    other = world.process()
    for _ in range(5):
        await world.settle(2, at=other)
    assert world.pages() == Pages(7, 0)
    assert [list_.size for list_ in world.cloud.lists[1:]] == [1]


async def test_a_process_that_has_heard_the_time_does_not_ask_for_it_in_each_round(world: World) -> None:
    await world.create(request(), COUNTED)
    asked = len(world.cloud.lists)
    for _ in range(10):
        await world.settle(2)
    assert len(world.cloud.lists) == asked


async def test_an_outage_is_logged_once_and_so_is_the_next_one(world: World) -> None:
    await world.create(request(), COUNTED)
    with structlog.testing.capture_logs() as lines:
        for failures in (3, 0, 2):
            world.store.fail_before = failures
            for _ in range(3):
                await world.settle(2)
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["settlement round failed"] * 2


async def test_a_create_that_may_still_be_accepted_is_looked_at_again_when_its_absence_can_be_proven(
    world: World,
) -> None:
    """Not in every minute: each look is a list of the cloud."""
    world.cloud.fates = ["never"]
    asked = request()
    await world.error(asked, COUNTED, seconds=2)
    other = world.process()
    await other.history.hear(BUCKET)
    await world.settle(TIMING.signature + FENCE + 5, at=other)
    assert world.record(asked, COUNTED) is not None
    ((_, look_at),) = world.data.records.values()
    assert look_at == pytest.approx(world.cloud.now() + TIMING.watch, abs=2)


async def test_a_job_is_looked_at_again_after_a_quarter_of_its_age(world: World) -> None:
    await world.create(request(), COUNTED)
    await world.settle(600)
    ((_, look_at),) = world.data.records.values()
    assert look_at == pytest.approx(world.cloud.now() + 150, abs=1)
    await world.settle(7200)
    ((_, look_at),) = world.data.records.values()
    assert look_at == pytest.approx(world.cloud.now() + 300, abs=1)


async def test_a_look_at_a_job_ends_after_ten_seconds(world: World) -> None:
    """One that hangs does not keep the records behind it."""
    await world.create(request(), COUNTED)
    world.cloud.calls.clear()
    await asyncio.sleep(3)
    now = asyncio.get_running_loop().time()
    await world.settle()
    deadlines = [call.deadline for call, each in zip(world.cloud.calls, world.cloud.asked[-1:], strict=True)]
    assert deadlines == [pytest.approx(now + 10, abs=0.1)]
