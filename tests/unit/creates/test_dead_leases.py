"""Leases of replicas that are gone: what they paid for is charged, and the rest is given back."""

from __future__ import annotations

import asyncio

import pytest

from docpreview_gateway.creates.dead_leases import DeadLeases
from docpreview_gateway.creates.leases import LEASE_SECONDS
from docpreview_gateway.creates.pages import Pages
from docpreview_gateway.creates.rebuild import Scans
from tests.fakes.creates import MemoryCreates
from tests.fakes.recorded import KEYS
from tests.unit.creates.test_leases import CALLER, Outage
from tests.unit.creates.worlds import BUCKET, TIMING, selecting

TERM = LEASE_SECONDS + TIMING.watch


class Survivor:
    """A replica beside another one, which spent 30 of its 50 leased pages in an outage, made 3 of them, and is gone."""

    def __init__(self) -> None:
        self.outage = Outage()
        self.world = self.outage.world
        self.parts = self.world.process(MemoryCreates(self.world.data))
        self.parts.leases._replica = "two"
        self.scans = Scans(
            self.parts.history, KEYS, self.parts.times, timing=TIMING, caller_names=lambda: [CALLER.name]
        )
        self.dead = DeadLeases(
            self.parts.store,
            self.scans,
            [BUCKET],
            KEYS,
            self.parts.times,
            timing=TIMING,
            replica="two",
            seconds=LEASE_SECONDS,
        )

    async def begin(self, *, echo: bool = True) -> Survivor:
        self.world.cloud.echo = echo
        await self.outage.begin()
        assert await self.outage.create("1-30") == "OK"
        for job_id in self.world.cloud.jobs:
            self.world.cloud.end(job_id, 3)
        return self

    async def rounds(self, seconds: float) -> Pages:
        """The caller's pages after so many seconds of rounds."""
        for _ in range(int(seconds / 15)):
            await asyncio.sleep(15)
            await self.dead.round()
            await self.parts.settlement.round()
        return self.world.pages(CALLER)


@pytest.fixture
async def survivor() -> Survivor:
    return await Survivor().begin()


async def test_a_lease_is_left_alone_for_its_term_and_the_fence_of_what_it_paid(survivor: Survivor) -> None:
    await survivor.dead.round()
    pages = await survivor.rounds(TERM)
    assert pages.reserved >= 50


async def test_what_a_lost_replica_made_is_charged_and_the_rest_is_given_back(survivor: Survivor) -> None:
    assert await survivor.rounds(TERM + 300) == Pages(6, 0)
    assert survivor.world.data.leases == {}


async def test_a_replica_that_lives_keeps_its_lease(survivor: Survivor) -> None:
    survivor.outage.end()
    for _ in range(40):
        await survivor.rounds(15)
        await survivor.parts.history.hear(BUCKET)
        await survivor.outage.parts.history.hear(BUCKET)
        await survivor.outage.parts.leases.renew()
    assert [lease.pages for lease in survivor.world.data.leases.values()] == [50]


async def test_a_replica_that_comes_back_counts_nothing_twice(survivor: Survivor) -> None:
    """Its journal is handed over after others accounted for it."""
    await survivor.rounds(TERM + 300)
    again = survivor.world.process(MemoryCreates(survivor.world.data), survivor.outage.journal)
    await again.leases.renew()
    assert await survivor.rounds(300) == Pages(6, 0)


async def test_without_echo_the_whole_lease_is_charged() -> None:
    """Nobody can tell what it paid for."""
    survivor = await Survivor().begin(echo=False)
    pages = await survivor.rounds(TERM + 300)
    assert pages == Pages(53, 0)
    assert survivor.world.data.leases == {}


async def test_a_list_that_does_not_end_leaves_the_lease_as_it_is(survivor: Survivor) -> None:
    survivor.world.cloud.repeats = True
    await survivor.rounds(TERM + 300)
    assert len(survivor.world.data.leases) == 1
    survivor.world.cloud.repeats = False
    await survivor.rounds(60)
    assert survivor.world.data.leases == {}


async def test_a_store_that_fails_leaves_the_lease_for_the_next_round(survivor: Survivor) -> None:
    store = survivor.parts.store
    assert isinstance(store, MemoryCreates)
    await survivor.rounds(TERM)
    store.fail_before, store.failing = 3, {"leases", "lease"}
    await survivor.rounds(300)
    assert survivor.world.data.leases == {}


async def test_a_replica_leaves_its_own_leases_alone(survivor: Survivor) -> None:
    await survivor.world.create(selecting("1"), CALLER, at=survivor.parts)
    await survivor.parts.leases.renew()
    await survivor.rounds(TERM + 300)
    assert [lease.replica for lease in survivor.world.data.leases.values()] == ["two"]


async def test_a_lease_from_before_what_is_remembered_is_charged_whole(survivor: Survivor) -> None:
    """Records of that time may have been forgotten: their jobs would be counted again."""
    await survivor.rounds(60)
    await asyncio.sleep(TIMING.keep)
    await survivor.rounds(TERM + 300)
    assert survivor.world.pages(CALLER, "2026-11-15") == Pages(53, 0)
    assert survivor.world.data.leases == {}
    assert survivor.world.telemetry.ledger_events.count("orphan") == 0


async def test_a_lease_that_was_there_before_is_watched_from_the_first_look_on() -> None:
    """However long the process has been running."""
    survivor = Survivor()
    await asyncio.sleep(10 * TERM)
    await survivor.begin()
    await survivor.rounds(TERM)
    assert len(survivor.world.data.leases) == 1


async def test_what_a_lost_replica_sent_last_is_found_though_it_arrived_late(survivor: Survivor) -> None:
    """At the end of the lease's term, of the signature, and of what clocks may differ by."""
    world = survivor.world
    await asyncio.sleep(LEASE_SECONDS - 5)
    world.cloud.skew, world.cloud.fates = -55.0, [95.0]
    assert await survivor.outage.create("1-20") == "CREATE_OUTCOME_UNKNOWN"
    await asyncio.sleep(96)
    for job_id in world.cloud.jobs:
        world.cloud.end(job_id, 3)
    assert await survivor.rounds(TERM + 300) == Pages(9, 0)
