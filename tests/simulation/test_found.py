"""What the simulated world, or reading for it, has found in the code: one story each."""

from __future__ import annotations

import asyncio

from docpreview_gateway.creates.store_memory import StoreMemory
from tests.simulation.cloud import EPOCH, CloudRules
from tests.simulation.faults import Fault
from tests.simulation.stories import FENCE, HOUR, Story, budget, request, tell

NO_ECHO = CloudRules(echo=False)


def test_an_id_that_stayed_ambiguous_is_never_told_an_empty_job() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request()) == "CREATE_OUTCOME_UNKNOWN"
        it.others_make(request())
        assert await it.repeat(it.r0, request()) == "CREATE_OUTCOME_AMBIGUOUS"
        await asyncio.sleep(HOUR)
        for _ in range(10):
            answer = await it.ask(it.r1, request())
            if answer.startswith("d0"):
                break  # forgotten, and made as a new one
            assert answer in {"CREATE_OUTCOME_AMBIGUOUS", "CREATE_IN_PROGRESS"}
            await asyncio.sleep(HOUR / 4)
        assert it.jobs == 1

    tell(story, Fault("lost"), cloud=NO_ECHO, keep=HOUR, pace=20.0)


def test_a_look_at_one_life_of_an_id_is_none_at_its_next_life() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request()) == "d0000"
        answer = "d0000"
        while answer == "d0000":
            await asyncio.sleep(HOUR / 2)
            answer = await it.ask(it.r1, request())
        assert answer == "d0001"
        it.world.faults.add(Fault("date", value=5 * HOUR))
        for _ in range(3):
            await asyncio.sleep(HOUR / 4)
            assert await it.ask(it.r0, request()) == "d0001"
            it.world.faults.add(Fault("date", passes=1, value=5 * HOUR))

    tell(story, keep=HOUR, pace=20.0)


def test_pages_of_a_create_that_was_handed_over_are_given_back_once() -> None:
    """The refusal of the cloud comes after the hand-over: the pages go back in the store, not to the lease."""

    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request(0)) == "d0000"
        await asyncio.sleep(40)
        it.cut_off(it.r0)
        it.world.faults.add(Fault("refused"))
        it.world.faults.add(Fault("queue", value=28))
        waiting = asyncio.ensure_future(it.ask(it.r0, request(1, has_id=False), seconds=40))
        await asyncio.sleep(2)
        it.reach(it.r0)
        await waiting
        it.cut_off(it.r0)
        for number in range(2, 8):
            await it.ask(it.r0, request(number, has_id=False))
        assert it.jobs <= 3

    tell(story, alice=budget(3, outage_pages=2))


def test_pages_that_are_spent_while_a_lease_is_renewed_are_not_granted_again() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request(0)) == "d0000"
        await asyncio.sleep(40)
        it.world.faults.add(Fault("slow answer lease", value=12))
        for number in range(1, 60):
            it.world.faults.add(Fault("fail before begin"))
            await it.ask(it.r0, request(number, has_id=False))
            await asyncio.sleep(1)
        it.cut_off(it.r0)
        for number in range(60, 70):
            await it.ask(it.r0, request(number, has_id=False))
        assert it.jobs <= 4

    tell(story, alice=budget(4, outage_pages=2))


def test_the_lease_of_a_day_that_has_ended_is_given_back() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request(0)) == "d0000"
        await asyncio.sleep(120)
        for number in range(1, 4):
            await it.ask(it.r0, request(number))
            await asyncio.sleep(45)
        await asyncio.sleep(60)
        days = {lease.day for lease in it.world.data.leases.values()}
        assert days <= {it.world.data.day}
        assert it.world.data.day == "2026-11-11"

    tell(story, cloud=CloudRules(begins_at=EPOCH + 86_400 - 60), alice=budget(9, outage_pages=2))


def test_a_restart_gives_back_the_lease_of_the_process_before() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request(0)) == "d0000"
        await asyncio.sleep(40)
        it.r0.life.kill()
        await asyncio.sleep(120)
        assert not it.world.data.leases

    tell(story, alice=budget(3, outage_pages=2))


def test_a_new_replica_with_a_wrong_clock_sees_that_an_empty_store_is_not_new() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request()) == "d0000"
        await asyncio.sleep(FENCE)
        it.world.empty_store()
        it.r1.memory, it.r1.wall.time = StoreMemory(None), it.r1.wall.time - 25 * HOUR
        it.r1.life.kill()
        it.r0.life.kill()
        assert await it.repeat(it.r1, request()) == "d0000"

    tell(story)


def test_a_new_replica_that_cannot_read_lists_does_not_take_an_empty_store_for_new() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request()) == "d0000"
        await asyncio.sleep(FENCE)
        it.r0.life.kill()
        it.world.empty_store()
        it.r1.memory = StoreMemory(None)
        it.r1.life.kill()
        for number in range(3):
            it.world.faults.add(Fault("broken list_jobs", passes=number))
        assert await it.repeat(it.r1, request()) == "d0000"

    tell(story)


def test_a_slow_first_look_at_a_store_that_others_use_is_no_loss() -> None:
    async def story(it: Story) -> None:
        assert await it.ask(it.r0, request()) == "d0000"
        await asyncio.sleep(FENCE)
        assert await it.ask(it.r1, request(1)) == "d0001"
        assert not it.r0.store.lost
        assert not it.r1.store.lost

    tell(story, Fault("slow answer state", passes=1, value=100))


def test_a_create_that_is_followed_waits_when_the_store_cannot_be_reached() -> None:
    async def story(it: Story) -> None:
        await it.ask(it.r0, request())
        assert await it.ask(it.r1, request()) in {"CREATE_OUTCOME_UNKNOWN", "CREATE_IN_PROGRESS", "d0000"}
        assert await it.repeat(it.r1, request()) == "d0000"

    tell(story, Fault("late", value=20), Fault("fail before find"), Fault("fail before find", passes=1))


def test_who_follows_a_create_is_not_told_the_job_of_another_request_with_its_id() -> None:
    """The followed attempt is released, and its id is begun anew with another request, between two polls."""

    async def story(it: Story) -> None:
        first = asyncio.ensure_future(it.ask(it.r0, request(0, "1")))
        await asyncio.sleep(0.5)
        following = asyncio.ensure_future(it.ask(it.r1, request(0, "1")))
        assert await first == "UPSTREAM_INVALID_ARGUMENT"
        others = asyncio.ensure_future(it.ask(it.r0, request(0, "1-2")))
        assert await following == "REQUEST_ID_REUSED"
        assert await others == "d0000"

    faults = Fault("queue", value=3), Fault("refused"), Fault("reply lost")
    tell(story, *faults, cloud=CloudRules(visibility=0.0))
