"""Creates are admitted for the pages they may make, and charged once for those they made, whatever happens between."""

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
from docpreview_gateway.creates.budgeted import FIRST_LOOK, MISSING_SECONDS, UNBOUND_SECONDS, PageQuotaStores
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
        """The id of the one job, once a record knows it."""
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
async def test_pages_of_a_create(options: dict[str, Any], pages: int) -> None:
    """Those that it names, or the estimate."""
    world = World()
    await world.create(**options)
    assert await world.today() == Pages(0, pages)


async def test_job_that_ended() -> None:
    """The pages that it made take the place of those set aside, also when nobody watches it."""
    world = World()
    job = await world.create()
    await world.charge_after(FIRST_LOOK)
    assert await world.today() == Pages(0, 40)
    world.office.upstream.finish(BUCKET.name, job.job_id, pages=7)
    await world.charge_after(60)
    await world.charge_after(600)
    assert await world.today() == Pages(7, 0)
    assert world.office.telemetry.page_counts["a", "day"] == (7, 0, 100)


async def test_charging_reads_jobs_as_the_gateway() -> None:
    """Reads that nobody asked for are not counted as a caller's."""
    world = World()
    await world.create()
    await world.charge_after(FIRST_LOOK)
    assert world.office.upstream.callers == [CALLER.name, "gateway"]


async def test_job_that_failed() -> None:
    """Nothing is charged."""
    world = World()
    job = await world.create()
    world.office.upstream.set_state(BUCKET.name, job.job_id, PreviewJob.STATE_FAILED)
    await world.charge_after(FIRST_LOOK)
    assert await world.today() == Pages(0, 0)


async def test_budget_used_up() -> None:
    """The error names the budget, says what is left and when the next day begins, and nothing was sent."""
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


async def test_next_day_and_month() -> None:
    """The day's budget is whole again; the month's is not."""
    world = World(Caller("a", budget=PageBudget(per_day=100, per_month=150)))
    await world.create(page_ranges="1-100")
    world.office.clock.time += 86400
    assert (await world.refusal(page_ranges="1-51")).subject == "caller:a:pages_per_month"
    await world.create(page_ranges="1-50")
    usage = await world.usage()
    assert (usage.day.left_pages, usage.month.left_pages) == (50, 0)
    world.office.clock.time += 31 * 86400
    assert await world.today() == Pages(0, 0)


async def test_a_refused_create_gives_its_pages_back_at_once() -> None:
    """Its pages are given back at once: the cloud refused, the request is wrong, or the bucket is not there."""
    world = World()
    world.office.upstream.failures.append(UpstreamError(r.ERROR_REASON_INPUT_OBJECT_NOT_FOUND, "no"))
    for bad in (request(), request(quality=1000), CreatePreviewJobRequest(bucket="nothing-1250000000")):
        with pytest.raises(GatewayError):
            await world.office.jobs.create(bad, world.call())
    assert await world.today() == Pages(0, 0)
    assert world.office.book.open == {}


async def test_repeated_request_id() -> None:
    """It is charged once, while its job runs and after it has ended; another request with the id changes nothing."""
    world, name = World(), str(uuid.uuid4())
    job = await world.create(name)
    assert await world.create(name) == job
    assert await world.today() == Pages(0, 40)
    with pytest.raises(GatewayError) as caught:
        await world.create(name, page_ranges="1")
    assert caught.value.reason == r.ERROR_REASON_REQUEST_ID_REUSED
    assert await world.today() == Pages(0, 40)
    world.office.upstream.finish(BUCKET.name, job.job_id, pages=7)
    await world.charge_after(FIRST_LOOK)
    await world.create(name)
    await world.charge_after(600)
    assert await world.today() == Pages(7, 0)


async def test_caller_that_leaves_its_create() -> None:
    """With `request_id` the create goes on, and is charged for what it makes."""
    world = World()
    cloud = world.office.upstream
    cloud.gate = asyncio.Event()
    leaving = asyncio.create_task(world.create(str(uuid.uuid4())))
    await cloud.looked.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    cloud.gate.set()
    cloud.finish(BUCKET.name, await world.made(), pages=7)
    await world.charge_after(UNBOUND_SECONDS)
    await world.charge_after(1)
    assert await world.today() == Pages(7, 0)


class SlowPages(FakePages):
    """A book whose answers take a while."""

    def __init__(self) -> None:
        super().__init__()
        self.reserved = asyncio.Event()

    async def reserve(self, wanted: Reservation, budget: PageBudget | None, look_at: float) -> ReservationResult:
        found = await super().reserve(wanted, budget, look_at)
        self.reserved.set()
        await asyncio.Event().wait()
        return found

    async def release(self, reservation: str) -> None:
        await asyncio.sleep(0.01)
        await super().release(reservation)


async def test_a_drain_waits_for_pages_of_an_abandoned_create_to_be_released() -> None:
    """The caller left while the pages were being reserved: the book stays open until they are given back."""
    world, book = World(), SlowPages()
    world.office.budgets._books = PageQuotaStores(book)
    leaving = asyncio.create_task(world.create())
    await book.reserved.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert await world.today() == Pages(0, 40)
    await world.office.budgets.drained()
    assert await world.today() == Pages(0, 0)


async def test_create_that_never_began() -> None:
    """The process died between reservation and record: the pages are given back."""
    world = World()
    wanted = world.office.budgets._reservation(request(str(uuid.uuid4())), PreviewOptions(), CALLER)
    await world.office.book.reserve(wanted, None, world.office.clock.now() + UNBOUND_SECONDS)
    await world.charge_after(UNBOUND_SECONDS)
    assert await world.today() == Pages(0, 0)


async def test_create_of_unknown_outcome() -> None:
    """Without `request_id` nobody can tell what it made: what it asked for is charged."""
    world = World()
    world.office.upstream.failures.append(UpstreamError(r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "lost"))
    with pytest.raises(UpstreamError):
        await world.create()
    assert await world.today() == Pages(0, 40)
    await world.charge_after(UNBOUND_SECONDS)
    assert await world.today() == Pages(40, 0)


async def test_job_that_the_cloud_forgot() -> None:
    """What it asked for is charged, but not before a day has passed."""
    world = World()
    await world.create()
    world.office.upstream.jobs.clear()
    await world.charge_after(FIRST_LOOK)
    assert (await world.usage()).month.reserved_pages == 40
    await world.charge_after(MISSING_SECONDS)
    assert (await world.usage()).month.used_pages == 40


async def test_pages_over_the_quota_pass_in_shadow_mode_and_are_counted() -> None:
    """What would be refused passes, and is counted."""
    world = World(replace(CALLER, shadow=True))
    for _ in range(3):
        await world.create()
    assert await world.today() == Pages(0, 120)
    outcomes = [outcome for _, _, outcome in world.office.telemetry.limits]
    assert outcomes == ["allowed", "allowed", "shadowed"]


async def test_caller_without_a_budget() -> None:
    """Its pages are not counted, and its usage says so."""
    world = World(ANONYMOUS)
    await world.create()
    assert world.office.book.open == {}
    assert await world.usage() == Usage(caller="anonymous")


class TestShared:
    """The book that replicas share does not answer."""

    def world(self, *, fallback: FakePages | None, refuse: bool = False) -> World:
        world = World()
        office = world.office
        office.budgets._books = PageQuotaStores(office.book, fallback, refuse)
        office.book.down = True
        return world

    async def test_without_its_store_a_process_counts_alone_and_hands_over_later(self) -> None:
        """This process counts alone, within the budget; what it counted is handed over when the book is back."""
        fallback = FakePages()
        world = self.world(fallback=fallback)
        job = await world.create(page_ranges="1-90")
        assert (await world.refusal(page_ranges="1-20")).subject == "caller:a:pages_per_day"
        assert world.office.telemetry.limits == [("a", "page_budget", "degraded"), ("a", "page_budget", "refused")]
        await world.charge_after(60)
        world.office.book.down = False
        await world.charge_after(60)
        await world.charge_after(60)
        assert fallback.open == {}
        world.office.upstream.finish(BUCKET.name, job.job_id, pages=9)
        await world.charge_after(60)
        assert await world.today() == Pages(9, 0)

    async def test_without_store_and_fallback_creates_pass_uncounted(self) -> None:
        """Creates pass uncounted."""
        world = self.world(fallback=None)
        await world.create()
        assert world.office.telemetry.limits == [("a", "page_budget", "degraded")]

    async def test_without_its_store_a_strict_limiter_refuses_creates_and_usage(self) -> None:
        """Creates fail, and nothing was sent; the usage cannot be told."""
        world = self.world(fallback=FakePages(), refuse=True)
        for attempt in (world.create, world.usage):
            with pytest.raises(GatewayError) as caught:
                await attempt()
            assert caught.value.reason == r.ERROR_REASON_LIMITER_UNAVAILABLE
        assert world.office.upstream.asked == []
