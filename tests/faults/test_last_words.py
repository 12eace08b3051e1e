"""When an id may still be unknown after the rest of a storm, and when it may not."""

from __future__ import annotations

import random
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.faults.gateway_process import GatewayProcess
from tests.faults.history import History, Operation, violations
from tests.faults.storm import Clients, Intent, attributed, cloud, last_words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_emulator import Emulator

FOUR = [
    Intent(str(uuid.UUID(int=number, version=4)), "first", 0, twins=False, tries_other=False) for number in range(4)
]


class LostOnce(Clients):
    """The last of the four does not reach the gateway at first, of which it hears `reason`."""

    reason = "UNAVAILABLE"

    async def ask(self, intents: list[Intent]) -> list[Operation]:
        if len(intents) < len(FOUR):
            return await super().ask(intents)
        lost = intents[-1]
        return [*await super().ask(intents[:-1]), Operation(lost.request_id, lost.body, 0.0, reason=self.reason)]


class LeftAloneOnce(LostOnce):
    """It hears nothing until its time is over."""

    reason = "DEADLINE_EXCEEDED"


@asynccontextmanager
async def resting(folder: Path, kind: type[Clients] = Clients) -> AsyncIterator[tuple[Emulator, Clients]]:
    """A cloud, and the clients of four ids without a job."""
    async with (
        cloud() as emulator,
        GatewayProcess(folder, emulator.port) as gateway,
        kind([gateway.address], random.Random(1)) as clients,  # noqa: S311 - a seed makes it repeatable
    ):
        clients.intents = FOUR
        yield emulator, clients


async def test_last_attempt_that_is_lost_itself(tmp_path: Path) -> None:
    """Its create is as unknown as any, for as long as its own fence and visibility; then each id has its one job.

    Seed 2 on a busy machine: four such creates met a moment in which nothing was answered for the 2 s of a call.
    """
    async with resting(tmp_path) as (emulator, clients):
        emulator.add_fault(operation="create", kind="drop_before", times=4)
        history = History([], await last_words(emulator, clients), {}, attributed(emulator))
        assert (emulator.faults, violations(history), len(history.jobs)) == ([], [], 4)


async def test_list_that_is_refused_for_good(tmp_path: Path) -> None:
    """Nothing new was sent, so there is no excuse: the ids are violations."""
    async with resting(tmp_path) as (emulator, clients):
        emulator.add_fault(operation="create", kind="drop_after", times=4)
        emulator.add_fault(operation="list", kind="error", times=10_000)
        found = violations(History([], await last_words(emulator, clients), {}, attributed(emulator)))
        assert [line[:2] for line in found] == ["I5"] * 4


async def test_last_attempt_that_does_not_reach_the_gateway(tmp_path: Path) -> None:
    """It is made again, as any other gRPC client would by itself.

    Seed 3 on a busy machine: one of 10,000 calls, in the minutes in which connections are renewed.
    """
    async with resting(tmp_path, LostOnce) as (emulator, clients):
        history = History([], await last_words(emulator, clients), {}, attributed(emulator))
        assert (violations(history), len(history.jobs)) == ([], 4)


async def test_last_attempt_without_an_answer(tmp_path: Path) -> None:
    """A gateway that lets a caller wait in vain has no such excuse."""
    async with resting(tmp_path, LeftAloneOnce) as (emulator, clients):
        found = violations(History([], await last_words(emulator, clients), {}, attributed(emulator)))
        assert [line[:2] for line in found] == ["I5"]
