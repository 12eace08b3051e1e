"""Page budgets: creates reserve the pages that they may make, and are charged once for those that they made."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewOptions
from docpreview.v1.usage_service_pb2 import GetUsageRequest, Usage
from docpreview_gateway.creates.keys import is_unrecorded
from docpreview_gateway.creates.pages import Pages
from docpreview_gateway.creates.ports import Lease
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import ANONYMOUS, Caller, PageBudget
from docpreview_gateway.model.errors import GatewayError, LimitReached, UpstreamError
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.wire.user_data import read_marker, split_user_data
from tests.unit.creates.worlds import (
    COUNTED,
    DAY,
    FENCE,
    ONE,
    TIMING,
    Cloud,
    Held,
    World,
    name_of,
    request,
    selecting,
)


@pytest.fixture
def world() -> World:
    return World()


async def usage(world: World, caller: Caller = COUNTED) -> Usage:
    return await world.parts.usages.get_usage(GetUsageRequest(), Call("r", loop_time() + 10, caller))


async def refusal(world: World, ranges: str, caller: Caller = COUNTED) -> LimitReached:
    error = await world.error(selecting(ranges), caller)
    assert isinstance(error, LimitReached)
    return error


async def test_a_create_reserves_its_pages_before_it_is_sent(world: World) -> None:
    held = Held(sent=False)
    world.cloud.fates = [held]
    create = asyncio.create_task(world.create(selecting("1-7"), COUNTED))
    await held.began.wait()
    assert world.pages() == Pages(0, 7)
    held.go.set()
    await create
    assert world.pages() == Pages(0, 7)


async def test_a_create_without_id_is_counted_too(world: World) -> None:
    await world.create(request(""), COUNTED)
    assert world.pages() == Pages(0, 40)


async def test_a_create_beyond_the_budget_is_refused_before_it_is_sent(world: World) -> None:
    """The error names the budget, the pages left and the time to the next day. A smaller create is admitted."""
    await world.create(selecting("1-90"), COUNTED)
    error = await refusal(world, "1-11")
    assert name_of(error) == "PAGE_BUDGET_EXHAUSTED"
    assert error.subject == "caller:shop:pages_per_day"
    assert "11 pages, and shop has 10 of 100 left in this day" in error.message
    assert error.retry_after == pytest.approx(12 * 3600, abs=2)
    assert world.cloud.posts == 1
    await world.create(selecting("1-10"), COUNTED)


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        ("2026-11-30 23:00", "2026-12-01"),
        ("2026-12-31 12:00", "2027-01-01"),
        ("2028-02-01 00:00", "2028-03-01"),
        ("2027-02-28 23:59", "2027-03-01"),
        ("2028-02-29 01:00", "2028-03-01"),
    ],
)
async def test_a_month_that_is_used_up_is_refused_to_its_end(begins: str, ends: str) -> None:
    start, end = (datetime.fromisoformat(each).replace(tzinfo=UTC).timestamp() for each in (begins, ends))
    world = World(Cloud(begins_at=start))
    caller = Caller("shop", budget=PageBudget(per_day=50, per_month=50))
    await world.create(selecting("1-50"), caller)
    error = await refusal(world, "1", caller)
    assert error.subject == "caller:shop:pages_per_month"
    assert "0 of 50 left in this month" in error.message
    assert error.retry_after == pytest.approx(end - world.cloud.now(), abs=2)


@pytest.mark.parametrize(
    ("budget", "asked", "subject"),
    [
        (PageBudget(per_day=10), "1-11", "caller:shop:pages_per_day"),
        (PageBudget(per_month=10), "1-11", "caller:shop:pages_per_month"),
        (PageBudget(per_day=5, per_month=100), "1-6", "caller:shop:pages_per_day"),
        (PageBudget(per_day=0), "1", "caller:shop:pages_per_day"),
    ],
)
async def test_a_create_larger_than_the_whole_budget_is_refused_for_ever(
    world: World, budget: PageBudget, asked: str, subject: str
) -> None:
    """Without a date, because no day will be large enough."""
    error = await refusal(world, asked, Caller("shop", budget=budget))
    assert (name_of(error), error.subject, error.retry_after) == ("PAGE_BUDGET_TOO_SMALL", subject, None)
    assert world.cloud.posts == 0


async def test_a_create_larger_than_a_whole_day_is_refused_for_ever_though_the_month_is_used_up(world: World) -> None:
    """A retry in the next month would be refused again: it is told now that it never fits."""
    caller = Caller("shop", budget=PageBudget(per_day=50, per_month=60))
    await world.create(selecting("1-20"), caller)
    error = await refusal(world, "1-51", caller)
    assert (name_of(error), error.subject, error.retry_after) == (
        "PAGE_BUDGET_TOO_SMALL",
        "caller:shop:pages_per_day",
        None,
    )


async def test_a_create_that_fits_exactly_is_admitted(world: World) -> None:
    await world.create(selecting("1-100"), COUNTED)
    assert (await usage(world)).day.left_pages == 0


async def test_budgets_renew_with_the_next_day_and_the_next_month(world: World) -> None:
    """Two dates of the next day, at least 30 seconds apart, and the store counts to it."""
    caller = Caller("shop", budget=PageBudget(per_day=100, per_month=150))
    await world.create(selecting("1-100"), caller)
    await asyncio.sleep(DAY)
    await world.error(selecting("1-51"), caller)
    await asyncio.sleep(61)
    error = await refusal(world, "1-51", caller)
    assert error.subject == "caller:shop:pages_per_month"
    await world.create(selecting("1-50"), caller)
    found = await usage(world, caller)
    assert (found.day.left_pages, found.month.left_pages) == (50, 0)
    await asyncio.sleep(16 * DAY)
    await world.error(selecting("1"), caller)
    await asyncio.sleep(61)
    await world.create(selecting("1"), caller)
    assert (await usage(world, caller)).month.left_pages == 149


async def test_a_single_wrong_date_renews_no_budget(world: World) -> None:
    await world.create(selecting("1-100"), COUNTED)
    await asyncio.sleep(61)
    world.cloud.lies = [DAY]
    assert name_of(await refusal(world, "1")) == "PAGE_BUDGET_EXHAUSTED"
    await asyncio.sleep(61)
    assert name_of(await refusal(world, "1")) == "PAGE_BUDGET_EXHAUSTED"
    assert world.data.day == "2026-11-15"


async def test_a_second_wrong_date_hours_after_the_first_renews_no_budget(world: World) -> None:
    """Right ones between them speak against both."""
    await world.create(selecting("1-100"), COUNTED)
    for _ in range(3):
        await asyncio.sleep(3600)
        world.cloud.lies = [DAY]
        assert name_of(await refusal(world, "1")) == "PAGE_BUDGET_EXHAUSTED"
        await asyncio.sleep(61)
        assert name_of(await refusal(world, "1")) == "PAGE_BUDGET_EXHAUSTED"
    assert world.data.day == "2026-11-15"


async def test_a_refusal_by_an_old_time_asks_the_cloud_once(world: World) -> None:
    await world.create(selecting("1-100"), COUNTED)
    asked = len(world.cloud.lists)
    await refusal(world, "1")
    assert len(world.cloud.lists) == asked
    await asyncio.sleep(61)
    await refusal(world, "1")
    assert len(world.cloud.lists) == asked + 1


async def test_a_refusal_stands_when_the_cloud_cannot_be_asked_for_its_time(world: World) -> None:
    await world.create(selecting("1-100"), COUNTED)
    await asyncio.sleep(61)
    world.cloud.list_failures = [UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down")]
    assert name_of(await refusal(world, "1")) == "PAGE_BUDGET_EXHAUSTED"


async def test_a_repeated_id_reserves_once_and_is_charged_once(world: World) -> None:
    """Before and after the end of its job; nor does another request with the id reserve anything."""
    name = str(uuid.uuid4())
    job = await world.create(request(name), COUNTED)
    await world.create(request(name), COUNTED, at=world.process())
    assert name_of(await world.error(selecting("1-2", name), COUNTED)) == "REQUEST_ID_REUSED"
    assert world.pages() == Pages(0, 40)
    world.cloud.end(job.job_id, 7)
    await world.settle(60)
    await world.create(request(name), COUNTED)
    await world.settle(600)
    assert world.pages() == Pages(7, 0)


async def test_a_repeated_id_is_answered_though_the_budget_is_used_up(world: World) -> None:
    name = str(uuid.uuid4())
    job = await world.create(selecting("1-100", name), COUNTED)
    assert (await world.create(selecting("1-100", name), COUNTED)).job_id == job.job_id


async def test_refused_and_invalid_creates_leave_no_reservation(world: World) -> None:
    world.cloud.fates = [UpstreamError(reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND, "no")]
    for bad in (request(), request(options=PreviewOptions(quality=1000))):
        await world.error(bad, COUNTED)
    assert world.pages() == Pages(0, 0)
    assert world.records == []


async def test_a_create_that_does_not_say_how_many_pages_is_invalid_where_asked_pages_count(world: World) -> None:
    strict = replace(COUNTED, budget=PageBudget(per_day=100, count="asked"))
    assert name_of(await world.error(request(), strict)) == "INVALID_REQUEST"
    await world.create(selecting("1-3"), strict)
    assert world.pages() == Pages(0, 3)


async def test_an_unknown_outcome_keeps_its_pages_reserved_and_gives_them_back_when_absent(world: World) -> None:
    world.cloud.fates = ["never"]
    asked = request()
    assert name_of(await world.error(asked, COUNTED, seconds=2)) == "CREATE_OUTCOME_UNKNOWN"
    await world.settle(45 + FENCE - 10)
    assert world.pages() == Pages(0, 40)
    await world.settle(20)
    assert world.pages() == Pages(0, 0)
    assert world.record(asked, COUNTED) is None


async def test_an_unknown_outcome_without_id_is_charged_what_its_job_made(world: World) -> None:
    world.cloud.fates = ["lost"]
    world.cloud.lag = 30
    assert name_of(await world.error(request(""), COUNTED, seconds=2)) == "CREATE_OUTCOME_UNKNOWN"
    (job_id,) = world.cloud.jobs
    world.cloud.end(job_id, 7)
    await world.settle(TIMING.watch + 10)
    await world.settle(10)
    assert world.pages() == Pages(7, 0)


async def test_an_ambiguous_outcome_keeps_its_pages_and_is_charged_and_forgotten_in_the_end() -> None:
    """`keep_seconds` after its signature has ended."""
    world = World()
    world.cloud.echo = False
    world.cloud.fates = ["lost"]
    asked = request()
    await world.error(asked, COUNTED, seconds=2)
    await world.settle(TIMING.watch + 10)
    assert world.pages() == Pages(0, 40)
    for _ in range(30):
        await world.settle(3600)
    assert world.pages(day="2026-11-15") == Pages(40, 0)
    for _ in range(5):
        await world.settle(3600)
    assert world.record(asked, COUNTED) is None
    assert world.pages(day="2026-11-15") == Pages(40, 0)


async def test_a_job_may_make_more_pages_than_were_asked_and_all_are_charged(world: World) -> None:
    """Used pages may exceed the budget by that, and nothing else is admitted."""
    job = await world.create(request(), COUNTED)
    world.cloud.end(job.job_id, 500)
    await world.settle(10)
    assert world.pages() == Pages(500, 0)
    found = await usage(world)
    assert (found.day.left_pages, found.month.left_pages) == (0, 500)
    assert name_of(await world.error(selecting("1"), COUNTED)) == "PAGE_BUDGET_EXHAUSTED"


async def test_concurrent_creates_never_exceed_the_budget(world: World) -> None:
    processes = [world.process() for _ in range(3)]
    jobs = [world.create(selecting("1-7"), COUNTED, at=processes[n % 3]) for n in range(40)]
    done = await asyncio.gather(*jobs, return_exceptions=True)
    assert sum(not isinstance(each, GatewayError) for each in done) == 14
    assert world.pages() == Pages(0, 98)


async def test_leased_pages_of_a_replica_are_not_left_for_others(world: World) -> None:
    await world.create(selecting("1"), COUNTED)
    assert COUNTED.budget is not None
    await world.store.lease(Lease("other", COUNTED.name, world.data.day, 50, 0.0), COUNTED.budget)
    assert "49 of 100 left" in (await refusal(world, "1-50")).message


async def test_pages_over_the_budget_pass_in_shadow_mode_and_are_counted(world: World) -> None:
    shadow = replace(COUNTED, shadow=True)
    for _ in range(3):
        await world.create(request(), shadow)
    assert world.pages() == Pages(0, 120)
    assert [outcome for _, _, outcome in world.telemetry.limits] == ["allowed", "allowed", "shadowed"]


async def test_a_caller_without_a_budget_is_not_counted(world: World) -> None:
    await world.create(request(), ANONYMOUS)
    assert world.data.pages == {}
    assert await usage(world, ANONYMOUS) == Usage(caller="anonymous")


async def test_an_empty_budget_only_counts(world: World) -> None:
    caller = Caller("shop", budget=PageBudget())
    await world.create(selecting("1-900"), caller)
    assert world.pages(caller) == Pages(0, 900)
    found = await usage(world, caller)
    assert (found.day.reserved_pages, found.day.HasField("budget_pages")) == (900, False)


async def test_usage_tells_the_clouds_day_and_month_and_their_ends(world: World) -> None:
    job = await world.create(selecting("1-30"), COUNTED)
    world.cloud.end(job.job_id, 20)
    await world.settle(10)
    await world.create(selecting("1-5"), COUNTED)
    found = await usage(world)
    assert (found.day.used_pages, found.day.reserved_pages, found.day.budget_pages, found.day.left_pages) == (
        20,
        5,
        100,
        75,
    )
    assert f"{found.day.start_time.ToDatetime():%F} {found.day.end_time.ToDatetime():%F}" == "2026-11-15 2026-11-16"
    assert f"{found.month.start_time.ToDatetime():%F} {found.month.end_time.ToDatetime():%F}" == "2026-11-01 2026-12-01"


async def test_usage_cannot_be_told_without_the_store(world: World) -> None:
    world.store.fail_before = 1
    with pytest.raises(GatewayError) as caught:
        await usage(world)
    assert name_of(caught.value) == "LIMITER_UNAVAILABLE"


async def test_pages_are_counted_to_the_stores_day_by_a_process_that_believes_in_another(world: World) -> None:
    """The other process has heard a wrong `Date`, of yesterday."""
    await world.create(selecting("1-10"), COUNTED)
    other = world.process()
    world.cloud.lies = [-DAY]
    await world.create(selecting("1-20"), COUNTED, at=other)
    assert {record.day for record in world.records} == {"2026-11-15"}


async def test_a_create_without_store_and_lease_is_refused_and_nothing_is_sent(world: World) -> None:
    world.store.fail_before, world.store.failing = 1, {"begin"}
    error = await world.error(request(""), COUNTED)
    assert (name_of(error), error.retry_after) == ("LIMITER_UNAVAILABLE", 1)
    assert world.telemetry.limits == [("shop", "page_budget", "refused")]
    assert world.cloud.posts == 0


@pytest.mark.parametrize(
    ("caller", "outcome"),
    [(ONE, "degraded"), (replace(COUNTED, shadow=True), "degraded"), (COUNTED, "refused")],
    ids=["no budget", "shadow", "budget"],
)
async def test_a_create_that_cannot_be_counted_is_told_in_the_metric(
    world: World, caller: Caller, outcome: str
) -> None:
    world.store.fail_before = 9
    with suppress(GatewayError):
        await world.create(request(""), caller)
    assert world.telemetry.limits == [(caller.name, "page_budget", outcome)]


async def test_a_create_that_a_lease_pays_is_told_in_the_metric(world: World) -> None:
    leased = replace(COUNTED, budget=PageBudget(per_day=100, outage_pages=50))
    await world.create(selecting("1"), leased)
    await world.parts.leases.renew()
    world.store.fail_before = 9
    await world.create(request("", options=PreviewOptions(page_ranges="1-2")), leased)
    assert [outcome for _, _, outcome in world.telemetry.limits] == ["allowed", "degraded"]


async def test_a_create_within_a_budget_or_beyond_it_is_told_in_the_metric(world: World) -> None:
    """The last page fits, and in shadow mode the first one too many passes as `shadowed`."""
    await world.create(selecting("1-100"), COUNTED)
    await refusal(world, "1")
    assert [outcome for _, _, outcome in world.telemetry.limits] == ["allowed", "refused"]


async def test_a_create_with_an_id_is_not_sent_without_the_store_whatever_was_leased(world: World) -> None:
    leased = replace(COUNTED, budget=PageBudget(per_day=100, outage_pages=50))
    await world.create(selecting("1"), leased)
    await world.parts.leases.renew()
    world.store.fail_before = 9
    assert name_of(await world.error(selecting("1-2"), leased)) == "LEDGER_UNAVAILABLE"
    assert world.cloud.posts == 1


async def test_a_create_of_which_only_the_echo_needs_a_record_passes_without_the_store(world: World) -> None:
    """Nothing that its caller was promised is lost. The job's marker says that no record knows it."""
    world.store.fail_before = 9
    job_id = (await world.create(request(""), ONE)).job_id
    marker = read_marker(split_user_data(world.cloud.jobs[job_id][0].user_data)[1])
    assert marker is not None
    assert is_unrecorded(marker)
    assert (await world.create(request(""), replace(COUNTED, shadow=True))).job_id
