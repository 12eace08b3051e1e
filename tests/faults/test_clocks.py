"""A cloud whose clock is not ours, by far more than `ledger.fence_slack_seconds`: no second job, whatever it costs."""

from __future__ import annotations

import asyncio
import random
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.faults.gateway_process import SETTLED, GatewayProcess
from tests.faults.history import History, violations
from tests.faults.storm import Clients, Intent, attributed, cloud

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_emulator import Emulator

INTENT = Intent(str(uuid.UUID(int=7, version=4)), "first", 0, twins=False, tries_other=False)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Emulator, Clients]]:
    async with (
        cloud() as emulator,
        GatewayProcess(folder, emulator.port) as gateway,
        Clients([gateway.address], random.Random(1)) as clients,  # noqa: S311 - a seed makes it repeatable
    ):
        yield emulator, clients


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
async def test_lost_reply_of_a_cloud_with_another_time(tmp_path: Path, ahead: float) -> None:
    """The job is not where a list by our clock looks for it; so the outcome stays unknown, and nothing is sent anew."""
    async with running(tmp_path) as (emulator, clients):
        emulator.clock.offset_seconds = ahead
        # A cloud that is ahead refuses the first signature, which has ended for it.
        emulator.add_fault(operation="create", kind="drop_after", skip=int(ahead > 0))
        told = await clients.ask([INTENT])
        await asyncio.sleep(SETTLED)
        told += await clients.ask([INTENT])
        assert violations(History(told, [], {}, attributed(emulator))) == []
        assert {each.reason for each in told} <= {"CREATE_OUTCOME_UNKNOWN", "CLOCK_SKEW"}


async def test_clock_that_jumps_while_an_outcome_is_unknown(tmp_path: Path) -> None:
    """Nothing is believed to be absent until the clocks agree again; then the id gets its one job."""
    async with running(tmp_path) as (emulator, clients):
        emulator.add_fault(operation="create", kind="drop_before")
        told = await clients.ask([INTENT])
        emulator.clock.offset_seconds = -600.0
        await asyncio.sleep(SETTLED)
        told += await clients.ask([INTENT])
        assert {each.reason for each in told} == {"CREATE_OUTCOME_UNKNOWN"}
        assert emulator.accepted_jobs == 0
        emulator.clock.offset_seconds = 0.0
        last = await clients.ask([INTENT])
        assert violations(History(told, last, {}, attributed(emulator))) == []


async def test_clocks_that_differ_by_too_much_for_a_create(tmp_path: Path) -> None:
    """A create with `request_id` is refused with what to do about it; as soon as the clock is right it is made."""
    async with running(tmp_path) as (emulator, clients):
        emulator.clock.offset_seconds = 1200.0
        refused = await clients.ask([INTENT])
        assert [each.reason for each in refused] == ["CLOCK_SKEW"]
        emulator.clock.offset_seconds = 0.0
        made = await clients.ask([INTENT])
        assert violations(History(refused, made, {}, attributed(emulator))) == []
