"""Crashes between any two steps of a create: the same request in a new process always ends with exactly one job."""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_emulator import Emulator
from docpreview_gateway.model.errors import GatewayError
from tests.faults.crashing_create import DOCUMENT, create
from tests.faults.gateway_process import BUCKET, REGION
from tests.integration.conftest import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
NEVER = "never"

STEPS = {
    "before it is recorded": ("before begin", 0),
    "recorded, nothing sent": ("after begin", 0),
    "answered, the job not recorded": ("before finish", 1),
    "the job recorded, the caller not answered": ("after finish", 1),
}


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as running:
        running.hold_jobs()
        running.put_object(BUCKET, REGION, DOCUMENT, b"%PDF-1.4")
        yield running


async def crashing(step: str, url: str, state: Path, request_id: str) -> asyncio.subprocess.Process:
    arguments = ("-m", "tests.faults.crashing_create", step, url, str(state), request_id)
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT)


async def until_reconciled(url: str, state: Path, request_id: str) -> tuple[str, set[int]]:
    """Repeat the request in a process that does not crash: its job, and the errors before."""
    errors: set[int] = set()
    async with asyncio.timeout(30):
        while True:
            try:
                return (await create(NEVER, url, state, request_id)).job_id, errors
            except GatewayError as error:
                errors.add(error.reason)
                await asyncio.sleep(0.3)


def posts(emulator: Emulator) -> int:
    return sum(request.operation == "create" for request in emulator.requests)


@pytest.mark.parametrize(("step", "jobs_at_crash"), STEPS.values(), ids=STEPS)
async def test_a_create_killed_at_any_step_ends_with_one_job_and_one_post(
    emulator: Emulator, tmp_path: Path, step: str, jobs_at_crash: int
) -> None:
    """The same request creates the missing job or finds the existing one."""
    request_id = str(uuid.uuid4())
    process = await crashing(step, emulator.url, tmp_path, request_id)
    assert await process.wait() == -signal.SIGKILL
    assert emulator.accepted_jobs == jobs_at_crash
    job_id, errors = await until_reconciled(emulator.url, tmp_path, request_id)
    assert [job.job_id for job in emulator.jobs] == [job_id]
    assert posts(emulator) == 1
    assert errors <= {reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN}


async def test_a_create_killed_before_its_reply_arrives_is_found_by_a_list(emulator: Emulator, tmp_path: Path) -> None:
    """No second POST is sent."""
    emulator.add_fault("drip", "create", seconds=30.0)
    request_id = str(uuid.uuid4())
    process = await crashing(NEVER, emulator.url, tmp_path, request_id)
    await until(lambda: emulator.accepted_jobs == 1)
    process.kill()
    await process.wait()
    job_id, _ = await until_reconciled(emulator.url, tmp_path, request_id)
    assert [job.job_id for job in emulator.jobs] == [job_id]
    assert posts(emulator) == 1


async def test_a_delayed_post_of_a_killed_process_is_refused_by_its_signature(
    emulator: Emulator, tmp_path: Path
) -> None:
    """It is carried out after the job that replaced it was made, and its signature has expired by then."""
    emulator.add_fault("latency", "create", seconds=15.0)
    request_id = str(uuid.uuid4())
    process = await crashing(NEVER, emulator.url, tmp_path, request_id)
    await until(lambda: posts(emulator) == 1)
    process.kill()
    await process.wait()
    job_id, _ = await until_reconciled(emulator.url, tmp_path, request_id)
    late, made = (request for request in emulator.requests if request.operation == "create")
    assert (late.status, made.job_id) == (None, job_id)
    await until(lambda: late.status is not None)
    assert (late.status, late.job_id) == (403, None)
    assert [job.job_id for job in emulator.jobs] == [job_id]
