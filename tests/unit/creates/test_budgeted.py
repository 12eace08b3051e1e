"""Page budgets: creates reserve the pages that they may make and are charged once for the pages that they made."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview.v1.usage_service_pb2 import GetUsageRequest, Usage
from docpreview_gateway.creates.budgeted import FIRST_CHECK_SECONDS, MISSING_SECONDS, UNBOUND_SECONDS, PageQuotaStores
from docpreview_gateway.creates.pages import Pages, Reservation, ReservationResult
from docpreview_gateway.model.callers import ANONYMOUS, Caller, PageBudget
from docpreview_gateway.model.errors import GatewayError, LimitReached, UpstreamError
from tests.fakes.pages import FakePages
from tests.unit.conftest import BUCKET, Office, call

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Call

CALLER = Caller("a", budget=PageBudget(per_day=100, per_month=1000, estimate=40))


def request(request_id: str = "", **options: Any) -> CreatePreviewJobRequest:
    return CreatePreviewJobRequest(
        bucket=BUCKET.name,
        input_object="a.pdf",
        output=ObjectLocation(object="p-${Page}.jpg"),
        options=PreviewOptions(**options),
        request_id=request_id,
    )


class World:
    """One caller with a budget, and the cloud that makes its jobs."""

    def __init__(self, caller: Caller = CALLER) -> None:
        self.office = Office()
        self.office.upstream.objects.add((BUCKET.name, "a.pdf"))
        self.caller = caller

    def call(self) -> Call:
        return call()._replace(caller=self.caller)

    async def made(self) -> str:
        """The id of the only job, once its create is recorded."""
        while not any(record.job for record in self.office.records.records.values()):  # noqa: ASYNC110 - a few turns
            await asyncio.sleep(0)
        return next(iter(self.office.upstream.jobs))[1]

    async def create(self, request_id: str = "", **options: Any) -> PreviewJob:
        return await self.office.jobs.create(request(request_id, **options), self.call())

    async def refusal(self, **options: Any) -> LimitReached:
        with pytest.raises(LimitReached) as caught:
            await self.create(**options)
        return caught.value

    async def charge_after(self, seconds: float) -> None:
        self.office.clock.time += seconds
        await self.office.budgets.charge()

    async def usage(self) -> Usage:
        return await self.office.budgets.get_usage(GetUsageRequest(), self.call())

    async def today(self) -> Pages:
        day = (await self.usage()).day
        return Pages(day.used_pages, day.reserved_pages)


@pytest.mark.parametrize(
    ("options", "pages"),
    [
        ({}, 40),
        ({"page_ranges": "1,3-5"}, 4),
        ({"start_page": 2, "end_page": 11}, 10),
        ({"end_page": 3}, 3),
        ({"start_page": 2}, 40),
        ({"end_page": -1}, 40),
        ({"sheet_id": 1}, 40),
        ({"single_image": True}, 20),
    ],
)
async def test_a_create_reserves_the_pages_that_it_selects_or_the_estimate(options: dict[str, Any], pages: int) -> None:
    """Options that leave the number of pages open reserve the estimate."""
    world = World()
    await world.create(**options)
    assert await world.today() == Pages(0, pages)


async def test_an_ended_job_is_charged_once_for_the_pages_that_it_made() -> None:
    """The pages made replace the reserved ones, also when the job has no watchers."""
    world = World()
    job = await world.create()
    await world.charge_after(FIRST_CHECK_SECONDS)
    assert await world.today() == Pages(0, 40)
    world.office.upstream.finish(BUCKET.name, job.job_id, pages=7)
    await world.charge_after(60)
    await world.charge_after(600)
    assert await world.today() == Pages(7, 0)
    assert world.office.telemetry.page_counts["a", "day"] == (7, 0, 100)


async def test_charging_reads_jobs_as_the_gateway() -> None:
    """Checks of reservations have the caller `gateway`."""
    world = World()
    await world.create()
    await world.charge_after(FIRST_CHECK_SECONDS)
    assert world.office.upstream.callers == [CALLER.name, "gateway"]


async def test_a_failed_job_is_charged_nothing() -> None:
    """A failed job without pages is charged 0 pages."""
    world = World()
    job = await world.create()
    world.office.upstream.set_state(BUCKET.name, job.job_id, PreviewJob.STATE_FAILED)
    await world.charge_after(FIRST_CHECK_SECONDS)
    assert await world.today() == Pages(0, 0)


async def test_a_create_beyond_the_budget_is_rejected_before_it_is_sent() -> None:
    """The error names the budget, the pages left and the time until the next day. A smaller create is accepted."""
    world = World()
    await world.create(page_ranges="1-90")
    error = await world.refusal(page_ranges="1-11")
    assert error.reason == r.ERROR_REASON_PAGE_BUDGET_EXHAUSTED
    assert error.subject == "caller:a:pages_per_day"
    assert "11 pages, and a has 10 of 100 left in this day" in error.message
    assert error.final
    assert error.retry_after is not None
    end = datetime.fromtimestamp(world.office.clock.now() + error.retry_after, UTC)
    assert (end.hour, end.minute, end.second) == (0, 0, 0)
    assert [name for name, _ in world.office.upstream.asked] == ["create"]
    await world.create(page_ranges="1-10")


async def test_budgets_renew_with_the_next_day_and_the_next_month() -> None:
    """A new day renews the budget per day and leaves the budget per month."""
    world = World(Caller("a", budget=PageBudget(per_day=100, per_month=150)))
    await world.create(page_ranges="1-100")
    world.office.clock.time += 86400
    assert (await world.refusal(page_ranges="1-51")).subject == "caller:a:pages_per_month"
    await world.create(page_ranges="1-50")
    usage = await world.usage()
    assert (usage.day.left_pages, usage.month.left_pages) == (50, 0)
    world.office.clock.time += 31 * 86400
    assert await world.today() == Pages(0, 0)


async def test_a_rejected_create_releases_its_pages_immediately() -> None:
    """A refusal by the cloud, an invalid request and an unknown bucket leave no reservation."""
    world = World()
    world.office.upstream.failures.append(UpstreamError(r.ERROR_REASON_INPUT_OBJECT_NOT_FOUND, "no"))
    for bad in (request(), request(quality=1000), CreatePreviewJobRequest(bucket="nothing-1250000000")):
        with pytest.raises(GatewayError):
            await world.office.jobs.create(bad, world.call())
    assert await world.today() == Pages(0, 0)
    assert world.office.page_store.open == {}


async def test_a_repeated_request_id_is_charged_once() -> None:
    """Repeats reserve nothing, before and after the job's end; nor does another request with the id."""
    world, name = World(), str(uuid.uuid4())
    job = await world.create(name)
    assert await world.create(name) == job
    assert await world.today() == Pages(0, 40)
    with pytest.raises(GatewayError) as caught:
        await world.create(name, page_ranges="1")
    assert caught.value.reason == r.ERROR_REASON_REQUEST_ID_REUSED
    assert await world.today() == Pages(0, 40)
    world.office.upstream.finish(BUCKET.name, job.job_id, pages=7)
    await world.charge_after(FIRST_CHECK_SECONDS)
    await world.create(name)
    await world.charge_after(600)
    assert await world.today() == Pages(7, 0)


async def test_a_create_with_request_id_is_charged_after_its_caller_is_cancelled() -> None:
    """The create goes on, and its job is charged."""
    world = World()
    cloud = world.office.upstream
    cloud.gate = asyncio.Event()
    leaving = asyncio.create_task(world.create(str(uuid.uuid4())))
    await cloud.called.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    cloud.gate.set()
    cloud.finish(BUCKET.name, await world.made(), pages=7)
    await world.charge_after(UNBOUND_SECONDS)
    await world.charge_after(1)
    assert await world.today() == Pages(7, 0)


class SlowPages(FakePages):
    """A slow page quota store."""

    def __init__(self) -> None:
        super().__init__()
        self.reserved = asyncio.Event()

    async def reserve(self, wanted: Reservation, budget: PageBudget | None, due_at: float) -> ReservationResult:
        found = await super().reserve(wanted, budget, due_at)
        self.reserved.set()
        await asyncio.Event().wait()
        return found

    async def release(self, reservation: str) -> None:
        await asyncio.sleep(0.01)
        await super().release(reservation)


async def test_a_drain_waits_for_pages_of_an_abandoned_create_to_be_released() -> None:
    """The caller left while the pages were being reserved: the store stays open until they are released."""
    world, store = World(), SlowPages()
    world.office.budgets._stores = PageQuotaStores(store)
    leaving = asyncio.create_task(world.create())
    await store.reserved.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert await world.today() == Pages(0, 40)
    await world.office.budgets.drained()
    assert await world.today() == Pages(0, 0)


async def test_a_reservation_whose_create_was_never_recorded_is_released() -> None:
    """The process died between the reservation and the record of the create."""
    world = World()
    wanted = world.office.budgets._reservation(request(str(uuid.uuid4())), PreviewOptions(), CALLER)
    await world.office.page_store.reserve(wanted, None, world.office.clock.now() + UNBOUND_SECONDS)
    await world.charge_after(UNBOUND_SECONDS)
    assert await world.today() == Pages(0, 0)


async def test_a_create_of_unknown_outcome_is_charged_its_reservation() -> None:
    """Without `request_id` the job cannot be found, so all reserved pages are charged."""
    world = World()
    world.office.upstream.failures.append(UpstreamError(r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "lost"))
    with pytest.raises(UpstreamError):
        await world.create()
    assert await world.today() == Pages(0, 40)
    await world.charge_after(UNBOUND_SECONDS)
    assert await world.today() == Pages(40, 0)


async def test_a_job_that_the_cloud_does_not_know_is_charged_its_reservation_after_a_day() -> None:
    """JOB_NOT_FOUND is believed only after a day."""
    world = World()
    await world.create()
    world.office.upstream.jobs.clear()
    await world.charge_after(FIRST_CHECK_SECONDS)
    assert (await world.usage()).month.reserved_pages == 40
    await world.charge_after(MISSING_SECONDS)
    assert (await world.usage()).month.used_pages == 40


async def test_pages_over_the_budget_pass_in_shadow_mode_and_are_counted() -> None:
    """A create that would be rejected passes, and is counted as shadowed."""
    world = World(replace(CALLER, shadow=True))
    for _ in range(3):
        await world.create()
    assert await world.today() == Pages(0, 120)
    outcomes = [outcome for _, _, outcome in world.office.telemetry.limits]
    assert outcomes == ["allowed", "allowed", "shadowed"]


async def test_a_caller_without_a_budget_is_not_counted() -> None:
    """Nothing is reserved, and the usage has no periods."""
    world = World(ANONYMOUS)
    await world.create()
    assert world.office.page_store.open == {}
    assert await world.usage() == Usage(caller="anonymous")


class TestShared:
    """The page quota store that replicas share is unavailable."""

    def world(self, *, fallback: FakePages | None, refuse: bool = False) -> World:
        world = World()
        office = world.office
        office.budgets._stores = PageQuotaStores(office.page_store, fallback, refuse)
        office.page_store.down = True
        return world

    async def test_without_its_store_a_process_counts_locally_and_merges_later(self) -> None:
        """The process enforces the budget by its own count and moves it to the store when that is back."""
        fallback = FakePages()
        world = self.world(fallback=fallback)
        job = await world.create(page_ranges="1-90")
        assert (await world.refusal(page_ranges="1-20")).subject == "caller:a:pages_per_day"
        assert world.office.telemetry.limits == [("a", "page_budget", "degraded"), ("a", "page_budget", "refused")]
        await world.charge_after(60)
        world.office.page_store.down = False
        await world.charge_after(60)
        await world.charge_after(60)
        assert fallback.open == {}
        world.office.upstream.finish(BUCKET.name, job.job_id, pages=9)
        await world.charge_after(60)
        assert await world.today() == Pages(9, 0)

    async def test_without_store_and_fallback_creates_pass_uncounted(self) -> None:
        """The create passes uncounted, with the outcome `degraded`."""
        world = self.world(fallback=None)
        await world.create()
        assert world.office.telemetry.limits == [("a", "page_budget", "degraded")]

    async def test_without_its_store_a_strict_limiter_refuses_creates_and_usage(self) -> None:
        """Creates and reads of the usage fail with LIMITER_UNAVAILABLE, and nothing is sent."""
        world = self.world(fallback=FakePages(), refuse=True)
        for attempt in (world.create, world.usage):
            with pytest.raises(GatewayError) as caught:
                await attempt()
            assert caught.value.reason == r.ERROR_REASON_LIMITER_UNAVAILABLE
        assert world.office.upstream.asked == []
