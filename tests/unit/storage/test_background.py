"""Tasks that outlive their call, and repeated rounds."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.storage.background import BackgroundTasks, loop_time, repeated
from tests.simulation.virtual_loop import in_virtual_time


async def test_a_drain_waits_for_all_tasks_and_for_those_they_start() -> None:
    """A task that starts another one is not the last."""
    tasks, done = BackgroundTasks(), list[str]()

    async def second() -> None:
        await asyncio.sleep(0)
        done.append("second")

    async def first() -> None:
        await asyncio.sleep(0)
        done.append("first")
        _ = tasks.start(second(), "second")

    assert tasks.start(first(), "first").get_name() == "first"
    await tasks.drain()
    assert done == ["first", "second"]


async def test_cancelled_tasks_have_ended_when_cancel_returns() -> None:
    """Their clean-up included."""
    tasks, cleaned = BackgroundTasks(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    task = tasks.start(work(), "work")
    await asyncio.sleep(0)
    await tasks.cancel()
    assert task.cancelled()
    assert cleaned.is_set()


@pytest.mark.parametrize(
    ("error", "logged"), [(ValueError("broken"), 1), (GatewayError(reasons.ERROR_REASON_INTERNAL, "refused"), 0)]
)
async def test_an_unexpected_error_of_a_task_is_logged_with_its_name(error: Exception, logged: int) -> None:
    """A GatewayError is what the task was to find out."""

    async def work() -> None:
        raise error

    tasks = BackgroundTasks()
    with capture_logs() as lines:
        _ = tasks.start(work(), "work")
        await tasks.drain()
    assert [line["task"] for line in lines] == ["work"] * logged


async def test_rounds_go_on_after_a_failed_one_until_the_context_ends() -> None:
    """An error ends its round only, and is logged."""
    rounds, third = list[int](), asyncio.Event()

    async def work() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise ValueError("broken")
        if len(rounds) == 3:
            third.set()

    with capture_logs() as lines:
        async with repeated(work, 0.001):
            await third.wait()
        count = len(rounds)
        await asyncio.sleep(0.01)
    assert len(rounds) == count
    assert [line["event"] for line in lines] == ["background round failed"]


def test_rounds_with_a_spread_come_at_changing_pauses_and_so_nobody_is_always_first() -> None:
    """Of two processes with a queue in common, each looks before the other in a good part of the rounds."""
    looks: list[tuple[float, str]] = []

    async def one() -> None:
        looks.append((loop_time(), "one"))

    async def two() -> None:
        looks.append((loop_time(), "two"))

    async def rounds() -> None:
        async with repeated(one, 1.0, spread=0.5), repeated(two, 1.0, spread=0.5):
            await asyncio.sleep(1000)

    in_virtual_time(rounds)
    times = [time for time, name in looks if name == "one"]
    pauses = [after - before for before, after in pairwise(times)]
    assert 0.5 <= min(pauses) < 0.6
    assert 1.4 < max(pauses) <= 1.5
    # What becomes due is taken by whoever looks next: neither's share of the time is small.
    shares = {"one": 0.0, "two": 0.0}
    for (before, _), (after, name) in pairwise(looks):
        shares[name] += after - before
    assert min(shares.values()) > 0.4 * sum(shares.values())
