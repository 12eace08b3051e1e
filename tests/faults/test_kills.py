"""A process that dies between any two steps of a create leaves what the next one brings to exactly one job."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_emulator import Emulator
from docpreview_gateway.model.errors import GatewayError
from tests.faults.dying_create import DOCUMENT, create
from tests.faults.gateway_process import BUCKET, REGION
from tests.faults.proxy import FlakyProxy, Weather

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ROOT = Path(__file__).parents[2]
NEVER = "never"

STEPS = {
    "W0: before it is recorded": ("before intent", 0),
    "W1: recorded, nothing sent": ("after intent", 0),
    "W1: about to be marked as sent": ("before sent", 0),
    "W2: marked as sent, nothing sent": ("after sent", 0),
    "W4: answered, the job not recorded": ("before accepted", 1),
    "W5: the job recorded, the caller not told": ("after accepted", 1),
}


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as running:
        running.hold_jobs()
        running.put_object(BUCKET, REGION, DOCUMENT, b"%PDF-1.4")
        yield running


async def dying(step: str, url: str, state: Path, request_id: str) -> asyncio.subprocess.Process:
    arguments = ("-m", "tests.faults.dying_create", step, url, str(state), request_id)
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT)


async def until_it_is_settled(url: str, state: Path, request_id: str) -> tuple[str, set[int]]:
    """The job that the same request gets in the end, and the errors on the way, in a process that does not die."""
    errors: set[int] = set()
    async with asyncio.timeout(30):
        while True:
            try:
                return (await create(NEVER, url, state, request_id)).job_id, errors
            except GatewayError as error:
                errors.add(error.reason)
                await asyncio.sleep(0.3)


async def until(happens: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happens():  # noqa: ASYNC110 - what others do, in threads and processes
            await asyncio.sleep(0.02)


def posts(emulator: Emulator) -> int:
    return sum(request.operation == "create" for request in emulator.requests)


@pytest.mark.parametrize(("step", "jobs_at_death"), STEPS.values(), ids=STEPS)
async def test_killed_at_a_step(emulator: Emulator, tmp_path: Path, step: str, jobs_at_death: int) -> None:
    """The same request makes the job that is missing or finds the one that is there; only one POST ever leaves."""
    request_id = str(uuid.uuid4())
    process = await dying(step, emulator.url, tmp_path, request_id)
    assert await process.wait() == -signal.SIGKILL
    assert emulator.accepted_jobs == jobs_at_death
    job_id, errors = await until_it_is_settled(emulator.url, tmp_path, request_id)
    assert [job.job_id for job in emulator.jobs] == [job_id]
    assert posts(emulator) == 1
    assert errors <= {reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN}


async def test_killed_while_the_answer_is_on_its_way(emulator: Emulator, tmp_path: Path) -> None:
    """W3: the job is found by a list, and nothing is sent again."""
    emulator.add_fault("drip", "create", seconds=30.0)
    request_id = str(uuid.uuid4())
    process = await dying(NEVER, emulator.url, tmp_path, request_id)
    await until(lambda: emulator.accepted_jobs == 1)
    process.kill()
    await process.wait()
    job_id, _ = await until_it_is_settled(emulator.url, tmp_path, request_id)
    assert [job.job_id for job in emulator.jobs] == [job_id]
    assert posts(emulator) == 1


async def test_killed_while_the_request_is_on_its_way(emulator: Emulator, tmp_path: Path) -> None:
    """W9: it arrives behind the job that replaced it, and is refused by its signature."""
    late = Weather(hold=1.0, least=6.0, longest=6.0)
    async with FlakyProxy(emulator.port, random.Random(1), late) as proxy:  # noqa: S311 - chance has no say in it
        url = f"http://127.0.0.1:{proxy.port}"
        request_id = str(uuid.uuid4())
        process = await dying(NEVER, url, tmp_path, request_id)
        await until(lambda: proxy.held > 0)
        process.kill()
        await process.wait()
        proxy.weather = Weather()
        job_id, errors = await until_it_is_settled(url, tmp_path, request_id)
        assert errors == {reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN}
        assert posts(emulator) == 1
        await proxy.delivered()
        await until(lambda: posts(emulator) == 2 and emulator.requests[-1].status is not None)
    assert (emulator.requests[-1].status, emulator.requests[-1].job_id) == (403, None)
    assert [job.job_id for job in emulator.jobs] == [job_id]
