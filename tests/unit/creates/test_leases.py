"""Page leases: what a replica may let its callers make while it cannot reach the store, and what becomes of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.creates.leases import LEASE_SECONDS
from docpreview_gateway.creates.pages import Pages
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.creates.records import State
from docpreview_gateway.model.callers import Caller, PageBudget
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from tests.fakes.creates import MemoryCreates
from tests.fakes.recorded import MemoryJournal, Recorded
from tests.unit.creates.worlds import BUCKET, TIMING, Held, World, name_of, selecting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview_gateway.creates.records import Record

CALLER = Caller("shop", budget=PageBudget(per_day=100, estimate=40, outage_pages=50))
MANY = 10**6


class Journal(MemoryJournal):
    """A journal on a disk that is full, at times."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False

    async def add(self, record: Record) -> None:
        if self.is_full:
            raise StoreError("the disk is full")
        await super().add(record)

    async def remove(self, keys: Sequence[str]) -> None:
        if self.is_full:
            raise StoreError("the disk is full")
        await super().remove(keys)


class Outage:
    """A replica with a lease of 50 pages, in a store that counts one more page of its caller, and cannot be reached."""

    def __init__(self) -> None:
        self.world = World()
        self.store = MemoryCreates(self.world.data)
        self.journal = Journal()
        self.parts = self.world.process(self.store, self.journal)

    async def begin(self, *, leased: bool = True) -> Outage:
        await self.world.create(selecting("1"), CALLER, at=self.parts)
        if leased:
            await self.parts.leases.renew()
        self.store.fail_before = MANY
        return self

    def end(self) -> None:
        self.store.fail_before = 0

    async def create(self, ranges: str, *, at: Recorded | None = None) -> str:
        """Reason of a create without id, or OK."""
        try:
            await self.world.create(selecting(ranges, ""), CALLER, at=at or self.parts, seconds=5)
        except GatewayError as error:
            return name_of(error)
        return "OK"


@pytest.fixture
async def outage() -> Outage:
    return await Outage().begin()


async def test_a_lease_is_charged_in_the_store_when_it_is_drawn(outage: Outage) -> None:
    assert outage.world.pages(CALLER) == Pages(0, 51)


async def test_a_lease_is_drawn_again_without_being_charged_again(outage: Outage) -> None:
    outage.end()
    for _ in range(3):
        await outage.parts.leases.renew()
    assert outage.world.pages(CALLER) == Pages(0, 51)


async def test_a_lease_takes_no_more_than_the_budget_has_left() -> None:
    outage = Outage()
    await outage.world.create(selecting("1-80"), CALLER, at=outage.parts)
    await outage.parts.leases.renew()
    assert outage.world.pages(CALLER) == Pages(0, 100)
    outage.store.fail_before = MANY
    assert await outage.create("1-21") == "LIMITER_UNAVAILABLE"
    assert await outage.create("1-20") == "OK"


async def test_leased_pages_can_be_spent_and_no_more_than_those(outage: Outage) -> None:
    assert [await outage.create("1-30") for _ in range(2)] == ["OK", "LIMITER_UNAVAILABLE"]
    assert await outage.create("1-20") == "OK"
    assert await outage.create("1") == "LIMITER_UNAVAILABLE"
    assert len(outage.world.cloud.jobs) == 3


async def test_each_spend_is_in_the_journal_before_the_create_is_sent(outage: Outage) -> None:
    held = Held(sent=False)
    outage.world.cloud.fates = [held]
    create = asyncio.create_task(outage.create("1-30"))
    await held.began.wait()
    assert [(record.asked, record.state) for record in await outage.journal.all()] == [(30, State.OPEN)]
    held.go.set()
    assert await create == "OK"
    assert [record.state for record in await outage.journal.all()] == [State.ACCEPTED]


async def test_nothing_is_sent_when_the_journal_cannot_be_written(outage: Outage) -> None:
    posts = outage.world.cloud.posts
    outage.journal.is_full = True
    assert await outage.create("1-30") == "LIMITER_UNAVAILABLE"
    assert outage.world.cloud.posts == posts


async def test_a_lease_is_not_spent_after_its_term(outage: Outage) -> None:
    await asyncio.sleep(LEASE_SECONDS)
    assert await outage.create("1-10") == "OK"
    await asyncio.sleep(1)
    assert await outage.create("1-10") == "LIMITER_UNAVAILABLE"


async def test_without_a_lease_nothing_is_sent() -> None:
    outage = await Outage().begin(leased=False)
    assert await outage.create("1") == "LIMITER_UNAVAILABLE"


async def test_a_caller_without_outage_pages_has_no_lease() -> None:
    world = World()
    caller = Caller("shop", budget=PageBudget(per_day=100))
    await world.create(selecting("1"), caller)
    await world.parts.leases.renew()
    assert world.data.leases == {}


async def test_what_was_spent_is_handed_over_once_and_charged_for_what_it_made(outage: Outage) -> None:
    assert await outage.create("1-30") == "OK"
    outage.end()
    await outage.parts.leases.renew()
    await outage.parts.leases.renew()
    assert await outage.journal.all() == []
    assert outage.world.pages(CALLER) == Pages(0, 81)
    for job_id in outage.world.cloud.jobs:
        outage.world.cloud.end(job_id, 3)
    await outage.world.settle(60, at=outage.parts)
    await outage.world.settle(60, at=outage.parts)
    assert outage.world.pages(CALLER) == Pages(6, 50)


@pytest.mark.parametrize("failing", ["hand_over", "lease"])
async def test_a_hand_over_whose_answer_is_lost_is_repeated_and_counts_once(outage: Outage, failing: str) -> None:
    assert await outage.create("1-30") == "OK"
    outage.end()
    outage.store.fail_after, outage.store.failing = 1, {failing}
    with pytest.raises(StoreError):
        await outage.parts.leases.renew()
    await outage.parts.leases.renew()
    assert outage.world.pages(CALLER) == Pages(0, 81)
    assert len(outage.world.records) == 2


async def test_what_was_spent_is_not_leased_again_until_it_is_handed_over(outage: Outage) -> None:
    """A renewal beside a hand-over that fails gives no pages twice."""
    assert await outage.create("1-30") == "OK"
    outage.store.fail_before, outage.store.failing = MANY, {"hand_over", "begin"}
    await outage.parts.leases.round()
    assert await outage.create("1-21") == "LIMITER_UNAVAILABLE"
    assert await outage.create("1-20") == "OK"


async def test_an_outage_that_comes_and_goes_never_overspends(outage: Outage) -> None:
    """Made pages are never more than the budget: by records or by leases."""
    made = 1
    for _ in range(20):
        outage.store.fail_before = MANY
        made += 10 * (await outage.create("1-10") == "OK")
        outage.end()
        made += 10 * (await outage.create("1-10") == "OK")
        await outage.parts.leases.round()
        assert made <= 100
        assert sum(outage.world.pages(CALLER)) <= 100
    assert made > 50


async def test_two_replicas_that_are_cut_off_never_overspend() -> None:
    outage = Outage()
    other_store = MemoryCreates(outage.world.data)
    other = outage.world.process(other_store, Journal())
    other.leases._replica = "two"
    for parts in (outage.parts, other):
        await outage.world.create(selecting("1"), CALLER, at=parts)
        await parts.leases.renew()
    outage.store.fail_before = other_store.fail_before = MANY
    told = [await outage.create("1-10", at=parts) for parts in (outage.parts, other) for _ in range(8)]
    assert 2 + 10 * told.count("OK") <= 100
    assert told.count("OK") == 9


async def test_a_create_that_was_refused_or_not_sent_gives_its_pages_back_to_the_lease(outage: Outage) -> None:
    outage.world.cloud.fates = ["unsent", UpstreamError(reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND, "no")]
    assert await outage.create("1-50") == "UPSTREAM_UNREACHABLE"
    assert await outage.create("1-50") == "INPUT_OBJECT_NOT_FOUND"
    assert await outage.journal.all() == []
    assert await outage.create("1-50") == "OK"


async def test_a_caller_that_leaves_before_the_first_byte_gives_its_pages_back_to_the_lease(outage: Outage) -> None:
    held = Held(sent=False)
    outage.world.cloud.fates = [held]
    create = asyncio.create_task(outage.create("1-50"))
    await held.began.wait()
    create.cancel()
    await asyncio.gather(create, return_exceptions=True)
    await outage.parts.creates.drained()
    assert await outage.create("1-50") == "OK"


async def test_a_lost_reply_keeps_its_pages_and_is_found_after_the_outage(outage: Outage) -> None:
    outage.world.cloud.lag = 30
    outage.world.cloud.fates = ["lost"]
    assert await outage.create("1-50") == "CREATE_OUTCOME_UNKNOWN"
    assert await outage.create("1") == "LIMITER_UNAVAILABLE"
    outage.end()
    await outage.parts.leases.renew()
    for job_id in outage.world.cloud.jobs:
        outage.world.cloud.end(job_id, 3)
    for _ in range(6):
        await outage.world.settle(61, at=outage.parts)
        await outage.parts.leases.renew()
    assert outage.world.pages(CALLER) == Pages(6, 50)


async def test_a_lost_request_gives_its_pages_back_when_it_is_proven_absent(outage: Outage) -> None:
    outage.world.cloud.fates = ["never"]
    assert await outage.create("1-50") == "CREATE_OUTCOME_UNKNOWN"
    outage.end()
    await outage.parts.leases.renew()
    assert outage.world.pages(CALLER) == Pages(0, 51 + 49)
    for _ in range(8):
        await outage.world.settle(61, at=outage.parts)
        await outage.parts.leases.renew()
    assert sum(outage.world.pages(CALLER)) == 51


async def test_a_process_that_died_hands_over_at_its_next_start(outage: Outage) -> None:
    """What it spent is in the journal; what it did not spend goes back."""
    assert await outage.create("1-30") == "OK"
    again = outage.world.process(MemoryCreates(outage.world.data), outage.journal)
    await again.leases.renew()
    assert outage.world.pages(CALLER) == Pages(0, 31)
    assert outage.world.data.leases == {}
    assert await outage.journal.all() == []


async def test_a_process_that_ends_gives_its_leases_back(outage: Outage) -> None:
    assert await outage.create("1-30") == "OK"
    outage.end()
    await outage.parts.leases.end()
    assert outage.world.pages(CALLER) == Pages(0, 31)
    assert outage.world.data.leases == {}


async def test_a_lease_of_yesterday_is_given_back_and_cannot_be_spent_today(outage: Outage) -> None:
    outage.end()
    await asyncio.sleep(86400)
    for _ in range(3):
        await outage.parts.history.hear(BUCKET)
        await outage.create("1")
        await asyncio.sleep(31)
    for _ in range(2):
        await outage.parts.leases.renew()
    assert outage.world.data.day == "2026-11-16"
    assert [lease.day for lease in outage.world.data.leases.values()] == ["2026-11-16"]
    assert outage.world.pages(CALLER, "2026-11-15").reserved < 51


@pytest.mark.parametrize("now", [Caller("shop", budget=PageBudget(per_day=100)), Caller("shop")])
async def test_a_caller_whose_outage_pages_are_taken_away_has_no_lease_any_more(outage: Outage, now: Caller) -> None:
    outage.end()
    await outage.world.create(selecting("1"), now, at=outage.parts)
    await outage.parts.leases.renew()
    assert outage.world.data.leases == {}
    assert outage.world.pages(CALLER).reserved <= 2


async def test_the_watch_of_a_create_is_longer_than_its_signature() -> None:
    """What the term of a lease and the fence rest on."""
    assert TIMING.watch > TIMING.signature + TIMING.fence_slack


async def test_a_create_that_is_given_up_after_its_hand_over_is_released_in_the_store(outage: Outage) -> None:
    """Its pages are not the lease's any more, and nobody should wait for the end of its signature."""
    held = Held(sent=False)
    outage.world.cloud.fates = [held]
    create = asyncio.create_task(outage.create("1-20"))
    await held.began.wait()
    outage.end()
    await outage.parts.leases.renew()
    assert len(outage.world.records) == 2
    create.cancel()
    await asyncio.gather(create, return_exceptions=True)
    await outage.parts.creates.drained()
    assert len(outage.world.records) == 1
    assert outage.world.pages(CALLER).reserved == 51


async def test_a_leased_create_that_is_refused_for_the_clock_gives_its_pages_back(outage: Outage) -> None:
    """It is not sent again: there is no store to begin another attempt in."""
    outage.world.cloud.fates = [UpstreamError(reasons.ERROR_REASON_CLOCK_SKEW, "not valid now")]
    assert await outage.create("1-50") == "CLOCK_SKEW"
    assert await outage.create("1-50") == "OK"
