"""No place is lost, whoever leaves when."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.upstream.middleware.waiting_room import NoSlotError, Slots, WrittenOffError
from docpreview_gateway.upstream.policies.adaptive_limit import LimitBounds

BOUNDS = LimitBounds(initial=3, lowest=3, highest=3, queue=20)


async def visit(slots: Slots, moments: random.Random) -> None:
    """Take a place, keep it for a few rounds of the loop, give it back."""
    seconds = moments.choice((0.051, 0.052, 30.0))
    try:
        number = await slots.take(Call("r1", asyncio.get_running_loop().time() + seconds))
    except (NoSlotError, WrittenOffError):
        return
    try:
        for _ in range(moments.randrange(5)):
            await asyncio.sleep(0)
    finally:
        slots.give_back(number)


async def crowd(seed: int, *, write_offs: bool) -> Slots:
    """Visitors that come and are cancelled at random moments."""
    slots, moments = Slots(BOUNDS), random.Random(seed)  # noqa: S311 - a repeatable choice of moments
    tasks: list[asyncio.Task[None]] = []
    for _ in range(60):
        tasks.append(asyncio.create_task(visit(slots, moments)))
        for _ in range(moments.randrange(3)):
            await asyncio.sleep(0)
        if moments.random() < 0.5:
            moments.choice(tasks).cancel()
        if write_offs and moments.random() < 0.1:
            slots.write_off()
        assert 0 <= slots.in_flight <= 3
        if moments.random() < 0.05:
            await asyncio.sleep(0.002)
    await asyncio.gather(*tasks, return_exceptions=True)
    return slots


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), write_offs=st.booleans())
def test_random_cancels_leave_every_permit_free_and_nobody_waiting(seed: int, write_offs: bool) -> None:  # noqa: FBT001 - hypothesis hands it in
    """When all have gone, all places are free and nobody waits; meanwhile never more are in than may be."""
    slots = asyncio.run(crowd(seed, write_offs=write_offs))
    assert (slots.in_flight, slots.queued) == (0, 0)


async def test_cancelled_in_the_moment_of_its_turn() -> None:
    """The place goes on to the next."""
    slots = Slots(LimitBounds(initial=1, lowest=1, highest=1))
    call = Call("r1", asyncio.get_running_loop().time() + 30)
    number = await slots.take(call)
    first, second = (asyncio.create_task(slots.take(call)) for _ in range(2))
    await asyncio.sleep(0)
    slots.give_back(number)
    first.cancel()
    assert await second == number
    with pytest.raises(asyncio.CancelledError):
        await first
    assert slots.in_flight == 1


async def test_limit_that_shrinks() -> None:
    """Who is in stays; nobody follows until there is room again."""
    slots = Slots(LimitBounds(initial=4, lowest=1, highest=4))
    call = Call("r1", asyncio.get_running_loop().time() + 30)
    for _ in range(4):
        await slots.take(call)
    waiting = asyncio.create_task(slots.take(call))
    await asyncio.sleep(0)
    slots.limit.value = 2
    slots.give_back(0)
    slots.give_back(0)
    assert (slots.in_flight, slots.queued) == (2, 1)
    slots.give_back(0)
    await waiting
    assert (slots.in_flight, slots.queued) == (2, 0)


async def in_turn(slots: Slots, served: list[str], caller: Caller, *, seconds: float = 30.0) -> None:
    number = await slots.take(Call("r1", asyncio.get_running_loop().time() + seconds, caller))
    served.append(caller.name)
    slots.give_back(number)


async def test_callers_with_weights() -> None:
    """Who weighs twice as much is served twice as often, and a single call is not kept waiting by a crowd."""
    slots = Slots(LimitBounds(initial=1, lowest=1, highest=1))
    number = await slots.take(Call("r0", asyncio.get_running_loop().time() + 30))
    served: list[str] = []
    heavy, light = Caller("heavy", weight=2.0), Caller("light")
    calls = [asyncio.create_task(in_turn(slots, served, caller)) for caller in (heavy, light) for _ in range(30)]
    await asyncio.sleep(0)
    calls.append(asyncio.create_task(in_turn(slots, served, Caller("single"))))
    await asyncio.sleep(0)
    slots.give_back(number)
    await asyncio.gather(*calls)
    assert served[:30].count("heavy") == pytest.approx(20, abs=1)
    assert served.index("single") < 5


async def test_a_full_queue_drops_the_least_urgent_call_of_the_busiest_caller() -> None:
    """The least urgent call of the greedy caller makes room for the first one of another."""
    slots = Slots(LimitBounds(initial=1, lowest=1, highest=1, queue=5))
    number = await slots.take(Call("r0", asyncio.get_running_loop().time() + 30))
    served: list[str] = []
    greedy = [asyncio.create_task(in_turn(slots, served, Caller("greedy"), seconds=30 + n)) for n in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(NoSlotError, match="queue"):
        await in_turn(slots, served, Caller("greedy"))
    modest = asyncio.create_task(in_turn(slots, served, Caller("modest")))
    await asyncio.sleep(0)
    with pytest.raises(NoSlotError, match="queue"):
        await greedy[-1]
    slots.give_back(number)
    await asyncio.gather(modest, *greedy[:-1])
    assert sorted(served) == ["greedy"] * 4 + ["modest"]
    assert (slots.in_flight, slots.queued) == (0, 0)


async def test_call_that_is_refused_before_it_comes() -> None:
    """Whatever `take` would say at once is known without coming, and asking changes nothing."""
    slots = Slots(LimitBounds(initial=1, lowest=1, highest=1, queue=2))
    now = asyncio.get_running_loop().time()
    greedy, modest = Call("r0", now + 30, Caller("greedy")), Call("r1", now + 30, Caller("modest"))
    slots.shed_if_late(greedy)
    number = await slots.take(greedy)
    slots.limit.usual_seconds = 1.0
    with pytest.raises(NoSlotError, match="deadline"):
        slots.shed_if_late(Call("r2", now + 1))
    slots.shed_if_late(Call("r2", now + 30))
    waiting = [asyncio.create_task(slots.take(greedy)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(NoSlotError, match="queue"):
        slots.shed_if_late(greedy)
    slots.shed_if_late(modest)
    assert slots.queued == 2
    for _ in range(3):
        slots.give_back(number)
    await asyncio.gather(*waiting)
