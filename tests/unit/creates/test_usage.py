"""Metrics of callers' pages: what the store counts, whoever changed it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from docpreview_gateway.creates.pages import CallerPages
from docpreview_gateway.creates.usage import KEEP_SECONDS, PAGES_SECONDS, PageMetrics
from docpreview_gateway.model.callers import Caller, PageBudget
from tests.fakes.clock import FakeClock
from tests.fakes.creates import MemoryCreates
from tests.unit.creates.worlds import COUNTED, DAY, NOON, ONE, World, selecting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview_gateway.creates.ports import Lease

LEASED = Caller("leased", budget=PageBudget(per_day=100, estimate=40, outage_pages=50))


class Store(MemoryCreates):
    """A store in which something happens after the leases are read for the first time."""

    after_leases: Callable[[], Awaitable[None]] | None = None

    async def leases(self) -> list[Lease]:
        found = await super().leases()
        if (work := self.after_leases) is not None:
            self.after_leases = None
            await work()
        return found


class Metrics:
    """The metrics of a replica that makes no creates; another one makes them, `callers` are those of the policy."""

    def __init__(self, *callers: Caller) -> None:
        self.world = World()
        self.store = Store(self.world.data)
        self.callers = callers
        self.parts = self.world.process(self.store)
        self.metrics = PageMetrics(
            self.store,
            self.parts.days,
            lambda: self.callers,
            times=self.parts.times,
            clock=FakeClock(NOON),
            telemetry=self.world.telemetry,
        )

    async def shown(self) -> list[CallerPages]:
        await self.metrics.round()
        return self.world.telemetry.caller_pages


async def test_pages_are_those_of_the_store_also_when_another_replica_made_the_creates() -> None:
    found = Metrics(COUNTED, ONE)
    job = await found.world.create(selecting("1-30"), COUNTED)
    assert await found.shown() == [
        CallerPages("shop", "day", 0, 30, 0, 70),
        CallerPages("shop", "month", 0, 30, 0, 970),
    ]
    found.world.cloud.end(job.job_id, 20)
    await found.world.settle(10)
    assert (await found.shown())[0] == CallerPages("shop", "day", 20, 0, 0, 80)


async def test_callers_without_creates_have_their_whole_budget_and_those_without_budget_are_counted_only() -> None:
    counted_only = Caller("counts", budget=PageBudget())
    found = await Metrics(COUNTED, counted_only).shown()
    assert [each.left for each in found] == [100, 1000, None, None]
    assert {each.used + each.reserved for each in found} == {0}


async def test_leased_pages_are_told_apart_from_those_of_unfinished_jobs() -> None:
    found = Metrics(LEASED)
    await found.world.create(selecting("1"), LEASED, at=found.parts)
    await found.parts.leases.renew()
    assert await found.shown() == [
        CallerPages("leased", "day", 0, 1, 50, 49),
        CallerPages("leased", "month", 0, 1, 50, None),
    ]


async def test_a_lease_that_is_drawn_while_pages_are_read_is_not_taken_for_pages_of_jobs() -> None:
    """Both are done at the same interval, so this is no rare case."""
    found = Metrics(LEASED)
    await found.world.create(selecting("1"), LEASED, at=found.parts)
    found.store.after_leases = found.parts.leases.renew
    assert await found.shown() == [
        CallerPages("leased", "day", 0, 1, 50, 49),
        CallerPages("leased", "month", 0, 1, 50, None),
    ]


async def test_a_new_day_begins_with_no_pages_at_a_replica_that_made_none() -> None:
    found = Metrics(COUNTED)
    await found.world.create(selecting("1-30"), COUNTED)
    await found.shown()
    await asyncio.sleep(DAY)
    found.world.data.day = "2026-11-16"
    assert await found.shown() == [
        CallerPages("shop", "day", 0, 0, 0, 100),
        CallerPages("shop", "month", 0, 30, 0, 970),
    ]


async def test_a_caller_that_left_the_policy_is_not_shown_any_more() -> None:
    found = Metrics(COUNTED, LEASED)
    assert {each.caller for each in await found.shown()} == {"shop", "leased"}
    found.callers = (LEASED, replace(COUNTED, budget=None))
    assert {each.caller for each in await found.shown()} == {"leased"}


@pytest.mark.parametrize("failing", ["state", "leases", "count"])
async def test_the_last_pages_are_shown_for_a_while_when_the_store_fails_and_then_none(failing: str) -> None:
    found = Metrics(COUNTED)
    before = await found.shown()
    found.store.fail_before, found.store.failing = 10**6, {failing}
    await asyncio.sleep(PAGES_SECONDS)
    assert await found.shown() == before != []
    await asyncio.sleep(KEEP_SECONDS)
    assert await found.shown() == []


async def test_without_budgets_the_store_is_not_asked() -> None:
    found = Metrics(ONE)
    found.store.fail_before = 10**6
    assert await found.shown() == []
    assert found.store.fail_before == 10**6
