"""Permits: none is lost to cancellation, and the queue is fair."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.upstream.middleware.permits import NoPermitError, Permits, QueueExpiredError
from docpreview_gateway.upstream.policies.adaptive_limit import LimitBounds

BOUNDS = LimitBounds(initial=3, lowest=3, highest=3, queue=20)


async def hold(permits: Permits, moments: random.Random) -> None:
    """Acquire a permit, hold it for a few turns of the loop, and release it."""
    seconds = moments.choice((0.051, 0.052, 30.0))
    try:
        number = await permits.acquire(Call("r1", asyncio.get_running_loop().time() + seconds))
    except (NoPermitError, QueueExpiredError):
        return
    try:
        for _ in range(moments.randrange(5)):
            await asyncio.sleep(0)
    finally:
        permits.release(number)


async def many(seed: int, *, expiries: bool) -> Permits:
    """Start calls and cancel them at random moments."""
    permits, moments = Permits(BOUNDS), random.Random(seed)  # noqa: S311 - a repeatable choice of moments
    tasks: list[asyncio.Task[None]] = []
    for _ in range(60):
        tasks.append(asyncio.create_task(hold(permits, moments)))
        for _ in range(moments.randrange(3)):
            await asyncio.sleep(0)
        if moments.random() < 0.5:
            moments.choice(tasks).cancel()
        if expiries and moments.random() < 0.1:
            permits.expire()
        assert 0 <= permits.in_flight <= 3
        if moments.random() < 0.05:
            await asyncio.sleep(0.002)
    await asyncio.gather(*tasks, return_exceptions=True)
    return permits


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), expiries=st.booleans())
def test_random_cancels_leave_every_permit_free_and_the_queue_empty(seed: int, expiries: bool) -> None:  # noqa: FBT001 - hypothesis hands it in
    """At no time are more permits taken than the limit."""
    permits = asyncio.run(many(seed, expiries=expiries))
    assert (permits.in_flight, permits.queued) == (0, 0)


async def test_a_permit_granted_to_a_call_being_cancelled_goes_to_the_next() -> None:
    """The cancellation comes in the same turn of the loop as the grant."""
    permits = Permits(LimitBounds(initial=1, lowest=1, highest=1))
    call = Call("r1", asyncio.get_running_loop().time() + 30)
    number = await permits.acquire(call)
    first, second = (asyncio.create_task(permits.acquire(call)) for _ in range(2))
    await asyncio.sleep(0)
    permits.release(number)
    first.cancel()
    assert await second == number
    with pytest.raises(asyncio.CancelledError):
        await first
    assert permits.in_flight == 1


async def test_a_shrunk_limit_grants_no_permit_until_enough_are_released() -> None:
    """Permits that are held are not revoked."""
    permits = Permits(LimitBounds(initial=4, lowest=1, highest=4))
    call = Call("r1", asyncio.get_running_loop().time() + 30)
    for _ in range(4):
        await permits.acquire(call)
    waiting = asyncio.create_task(permits.acquire(call))
    await asyncio.sleep(0)
    permits.limit.value = 2
    permits.release(0)
    permits.release(0)
    assert (permits.in_flight, permits.queued) == (2, 1)
    permits.release(0)
    await waiting
    assert (permits.in_flight, permits.queued) == (2, 0)


async def test_a_call_that_can_no_longer_be_answered_in_time_is_rejected_when_its_turn_comes() -> None:
    """Its permit goes to the next, so that after a standstill calls in time are not late for those that are not."""
    permits = Permits(LimitBounds(initial=1, lowest=1, highest=1))
    now = asyncio.get_running_loop().time()
    number = await permits.acquire(Call("r0", now + 30))
    late, in_time = (asyncio.create_task(permits.acquire(Call("r1", now + seconds))) for seconds in (5, 30))
    await asyncio.sleep(0)
    permits.limit.given_up(10.0)
    permits.release(number)
    with pytest.raises(NoPermitError, match="deadline"):
        await late
    assert await in_time == number
    assert (permits.in_flight, permits.queued) == (1, 0)


async def in_turn(permits: Permits, served: list[str], caller: Caller, *, seconds: float = 30.0) -> None:
    number = await permits.acquire(Call("r1", asyncio.get_running_loop().time() + seconds, caller))
    served.append(caller.name)
    permits.release(number)


async def test_callers_are_served_by_weight() -> None:
    """A caller of weight 2 is served twice as often, and a single call does not wait behind many of others."""
    permits = Permits(LimitBounds(initial=1, lowest=1, highest=1))
    number = await permits.acquire(Call("r0", asyncio.get_running_loop().time() + 30))
    served: list[str] = []
    heavy, light = Caller("heavy", weight=2.0), Caller("light")
    calls = [asyncio.create_task(in_turn(permits, served, caller)) for caller in (heavy, light) for _ in range(30)]
    await asyncio.sleep(0)
    calls.append(asyncio.create_task(in_turn(permits, served, Caller("single"))))
    await asyncio.sleep(0)
    permits.release(number)
    await asyncio.gather(*calls)
    assert served[:30].count("heavy") == pytest.approx(20, abs=1)
    assert served.index("single") < 5


async def test_a_full_queue_drops_the_least_urgent_call_of_the_busiest_caller() -> None:
    """It is evicted for the first call of another caller."""
    permits = Permits(LimitBounds(initial=1, lowest=1, highest=1, queue=5))
    number = await permits.acquire(Call("r0", asyncio.get_running_loop().time() + 30))
    served: list[str] = []
    greedy = [asyncio.create_task(in_turn(permits, served, Caller("greedy"), seconds=30 + n)) for n in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(NoPermitError, match="queue"):
        await in_turn(permits, served, Caller("greedy"))
    modest = asyncio.create_task(in_turn(permits, served, Caller("modest")))
    await asyncio.sleep(0)
    with pytest.raises(NoPermitError, match="queue"):
        await greedy[-1]
    permits.release(number)
    await asyncio.gather(modest, *greedy[:-1])
    assert sorted(served) == ["greedy"] * 4 + ["modest"]
    assert (permits.in_flight, permits.queued) == (0, 0)


async def test_shed_if_late_raises_what_acquire_would_raise_immediately() -> None:
    """The check changes nothing."""
    permits = Permits(LimitBounds(initial=1, lowest=1, highest=1, queue=2))
    now = asyncio.get_running_loop().time()
    greedy, modest = Call("r0", now + 30, Caller("greedy")), Call("r1", now + 30, Caller("modest"))
    permits.shed_if_late(greedy)
    number = await permits.acquire(greedy)
    permits.limit.latency = 1.0
    with pytest.raises(NoPermitError, match="deadline"):
        permits.shed_if_late(Call("r2", now + 1))
    permits.shed_if_late(Call("r2", now + 30))
    waiting = [asyncio.create_task(permits.acquire(greedy)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(NoPermitError, match="queue"):
        permits.shed_if_late(greedy)
    permits.shed_if_late(modest)
    assert permits.queued == 2
    for _ in range(3):
        permits.release(number)
    await asyncio.gather(*waiting)
