"""Clock skew far beyond `ledger.fence_slack_seconds`: never a second job, at the price of unknown outcomes."""

from __future__ import annotations

import asyncio
import random
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.faults.campaign import Clients, Intent, attributed, cloud
from tests.faults.gateway_process import RECONCILED, GatewayProcess
from tests.faults.history import History, violations

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
async def test_a_lost_reply_of_a_cloud_with_clock_skew_stays_unknown_and_is_not_sent_again(
    tmp_path: Path, ahead: float
) -> None:
    """The job is outside the time window of a list by the gateway's clock, so its absence proves nothing."""
    async with running(tmp_path) as (emulator, clients):
        emulator.clock.offset_seconds = ahead
        # A cloud that is ahead refuses the first signature as expired.
        emulator.add_fault(operation="create", kind="drop_after", skip=int(ahead > 0))
        answers = await clients.ask([INTENT])
        await asyncio.sleep(RECONCILED)
        answers += await clients.ask([INTENT])
        assert violations(History(answers, [], {}, attributed(emulator))) == []
        assert {each.reason for each in answers} <= {"CREATE_OUTCOME_UNKNOWN", "CLOCK_SKEW"}


async def test_an_unknown_outcome_stays_unknown_while_the_clocks_differ_and_then_gets_one_job(tmp_path: Path) -> None:
    """The cloud's clock jumps after the POST was lost; no list proves absence until the clocks agree again."""
    async with running(tmp_path) as (emulator, clients):
        emulator.add_fault(operation="create", kind="drop_before")
        answers = await clients.ask([INTENT])
        emulator.clock.offset_seconds = -600.0
        await asyncio.sleep(RECONCILED)
        answers += await clients.ask([INTENT])
        assert {each.reason for each in answers} == {"CREATE_OUTCOME_UNKNOWN"}
        assert emulator.accepted_jobs == 0
        emulator.clock.offset_seconds = 0.0
        final = await clients.ask([INTENT])
        assert violations(History(answers, final, {}, attributed(emulator))) == []


async def test_a_create_during_clock_skew_is_refused_with_clock_skew_and_made_afterwards(tmp_path: Path) -> None:
    """A create with `request_id` is refused while a known difference exceeds the slack."""
    async with running(tmp_path) as (emulator, clients):
        emulator.clock.offset_seconds = 1200.0
        refused = await clients.ask([INTENT])
        assert [each.reason for each in refused] == ["CLOCK_SKEW"]
        emulator.clock.offset_seconds = 0.0
        made = await clients.ask([INTENT])
        assert violations(History(refused, made, {}, attributed(emulator))) == []
