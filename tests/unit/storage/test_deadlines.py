"""Deadlines that share timers."""

from __future__ import annotations

import asyncio

import pytest

from docpreview_gateway.storage.deadlines import Deadlines

TICK = 0.05


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts the timers that are made."""

    timers = 0

    def call_at(self, *arguments: object, **options: object) -> asyncio.TimerHandle:
        self.timers += 1
        return super().call_at(*arguments, **options)  # type: ignore[arg-type]


async def sleeping(deadlines: Deadlines, deadline: float, seconds: float = 10.0) -> float:
    """Sleep within a deadline. Returns when it has ended."""
    with deadlines.until(deadline):
        await asyncio.sleep(seconds)
    return asyncio.get_running_loop().time()


async def test_a_body_is_cancelled_at_its_deadline_or_within_a_tick_of_it_and_raises_timeout_error() -> None:
    """Not before."""
    loop, deadlines = asyncio.get_running_loop(), Deadlines(TICK)
    deadline = loop.time() + 0.1
    with pytest.raises(TimeoutError):
        await sleeping(deadlines, deadline)
    assert loop.time() >= deadline
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_deadline_in_the_past_ends_a_body_when_it_waits() -> None:
    """As with asyncio.timeout_at."""
    with pytest.raises(TimeoutError):
        await sleeping(Deadlines(TICK), 0.0)


async def test_a_body_that_ends_in_time_keeps_its_result_and_its_errors() -> None:
    """And no timer is left that would cancel what comes after it."""
    loop, deadlines = asyncio.get_running_loop(), Deadlines(TICK)
    await sleeping(deadlines, loop.time() + 0.1, 0.0)
    with pytest.raises(ZeroDivisionError), deadlines.until(loop.time() + 0.1):
        raise ZeroDivisionError
    await asyncio.sleep(0.2)


async def test_a_cancellation_from_elsewhere_stays_a_cancellation() -> None:
    """Also when the deadline comes in the same turn of the loop."""
    loop, deadlines = asyncio.get_running_loop(), Deadlines(TICK)
    for wait in (0.0, 0.15):
        task = asyncio.create_task(sleeping(deadlines, loop.time() + 0.1))
        await asyncio.sleep(0)
        loop.call_later(wait, task.cancel)
        if wait:
            # Nobody lets the task run between the two.
            loop.call_soon(_hold, loop.time() + wait + TICK)
        await asyncio.wait((task,))
        assert task.cancelled()


def _hold(until: float) -> None:
    while asyncio.get_running_loop().time() < until:
        pass


async def test_of_two_deadlines_around_each_other_the_one_that_has_come_is_told() -> None:
    """The outer body goes on."""
    loop, deadlines = asyncio.get_running_loop(), Deadlines(TICK)
    with deadlines.until(loop.time() + 10):
        with pytest.raises(TimeoutError):
            await sleeping(deadlines, loop.time() + 0.01)
        await asyncio.sleep(0)


def test_deadlines_of_one_tick_share_a_timer() -> None:
    """However many there are; and those that come are told to all."""

    async def run() -> None:
        loop, deadlines = asyncio.get_running_loop(), Deadlines(TICK)
        assert isinstance(loop, CountingLoop)
        deadline = (int(loop.time() / TICK) + 2.5) * TICK
        before = loop.timers
        ended = asyncio.gather(*(sleeping(deadlines, deadline) for _ in range(100)), return_exceptions=True)
        await asyncio.sleep(0)
        assert loop.timers - before == 1 + 100  # one of the deadlines, and that of each body's sleep
        assert {type(error) for error in await ended} == {TimeoutError}

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(run())


async def test_a_deadline_that_is_near_comes_at_its_time() -> None:
    """A tick later the answer might be there, which a caller with this deadline has not asked for."""
    deadlines, loop = Deadlines(60.0), asyncio.get_running_loop()
    for seconds in (-1.0, 0.0, 0.01):
        begin = loop.time()
        with pytest.raises(TimeoutError), deadlines.until(begin + seconds):
            await asyncio.sleep(30)
        assert loop.time() - begin < 5
