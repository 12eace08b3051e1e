"""Many jobs with callbacks: one read of the cloud for each, and the old polls when callbacks are lost."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from docpreview_gateway.jobs.polling import Schedule
from tests.integration.callback_worlds import (
    SOON,
    Polls,
    address_in,
    called_back,
    ended,
    learned,
    outcomes,
    reads,
    running_job,
    watchers,
)
from tests.integration.conftest import BUCKET, REGION, until
from tests.integration.money import ONE_PAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.wiring.gateway import Gateway

EACH = 60
"""Jobs that one connection follows."""

MANY = 1020
SOAK = [pytest.mark.soak, pytest.mark.timeout(300)]

SLACK = 3.0
"""Seconds that a busy machine may add."""


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as found:
        found.put_object(BUCKET, REGION, "a.pdf", ONE_PAGE)
        yield found


@asynccontextmanager
async def clients(gateway: Gateway, count: int) -> AsyncIterator[list[DocPreviewClient]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(DocPreviewClient(f"127.0.0.1:{gateway.port}")) for _ in range(count)]


async def followed(gateway: Gateway, client: DocPreviewClient, jobs: int) -> list[asyncio.Task[PreviewJob]]:
    """Waits for so many new jobs."""
    before = watchers(gateway)
    waits = [asyncio.create_task(client.wait(BUCKET, await running_job(client))) for _ in range(jobs)]
    await until(lambda: watchers(gateway) >= before + jobs)
    return waits


async def delays(emulator: Emulator, waits: list[asyncio.Task[PreviewJob]]) -> list[float]:
    """Seconds from the end of each job at the cloud to that of its wait, the shortest first."""

    async def delay(wait: asyncio.Task[PreviewJob]) -> float:
        job = await wait
        told = emulator.clock.now()
        assert job.state == PreviewJob.STATE_SUCCESS
        return told - (emulator.job(job.job_id).ended or 0.0)

    found = sorted(await asyncio.gather(*map(delay, waits)))
    print(  # noqa: T201 - figures, shown by `make soak`
        f"{len(found)} jobs, {reads(emulator)} reads; from end to watcher: median {found[len(found) // 2]:.3f} s, "
        f"p99 {found[len(found) * 99 // 100]:.3f} s, longest {found[-1]:.3f} s"
    )
    return found


@pytest.mark.parametrize("jobs", [EACH, pytest.param(MANY, marks=SOAK)])
async def test_a_job_that_is_called_back_costs_one_read_from_create_to_end(emulator: Emulator, jobs: int) -> None:
    """Its running state is known from the create, so that a watcher makes no read when it comes."""
    async with (
        called_back(emulator) as (gateway, client, _),
        clients(gateway, jobs // EACH) as many,
        asyncio.timeout(60 + jobs / 5),
    ):
        await learned(emulator, client, gateway)
        waits = [wait for each in many for wait in await followed(gateway, each, EACH)]
        assert reads(emulator) == 0
        emulator.release_jobs()
        await delays(emulator, waits)
        assert reads(emulator) == jobs


async def test_a_job_that_is_not_known_is_read_at_once(emulator: Emulator) -> None:
    """One of another program, say: whatever callbacks do."""
    async with (
        called_back(emulator) as (_, stranger, _),
        called_back(emulator) as (gateway, client, _),
        asyncio.timeout(30),
    ):
        await learned(emulator, client, gateway)
        job_id = await running_job(stranger)
        wait = asyncio.create_task(client.wait(BUCKET, job_id))
        await until(lambda: reads(emulator) == 1)
        wait.cancel()


@pytest.mark.parametrize(
    ("jobs", "polls"),
    [
        (EACH, SOON.of),
        pytest.param(MANY, Schedule(floor=5.0, cap=5.0, backstop=40.0), marks=SOAK),
    ],
)
async def test_callbacks_that_stop_in_the_middle_leave_polls_as_often_as_before(
    emulator: Emulator, jobs: int, polls: Schedule
) -> None:
    """Nobody waits longer than for a rare poll, and once that has shown what is missing, than for a frequent one."""
    async with (
        called_back(emulator, watch=Polls(of=polls)) as (gateway, client, _),
        clients(gateway, jobs // EACH) as many,
        asyncio.timeout(120 + jobs / 5),
    ):
        trust = gateway.callbacks.trust
        await learned(emulator, client, gateway)
        waits = [wait for each in many for wait in await followed(gateway, each, EACH)]
        emulator.add_fault("drop_before", "callback", skip=jobs // 2, times=jobs - jobs // 2)
        emulator.release_jobs()
        longest = (await delays(emulator, waits))[-1]
        assert longest < 1.2 * polls.backstop + SLACK
        await until(lambda: not trust.works(BUCKET))
        emulator.hold_jobs()
        emulator.clear_requests()
        waits = await followed(gateway, client, 1)
        await until(lambda: reads(emulator) >= 4, seconds=8 * polls.cap)
        emulator.release_jobs()
        await ended(waits)
        # The last missing ones count after their grace, among the first that come.
        while not trust.works(BUCKET):
            await client.wait(BUCKET, await running_job(client))


async def test_a_flood_with_the_right_token_costs_a_read_of_a_job_and_second(emulator: Emulator) -> None:
    """And one without it none; neither changes what a job is or whether callbacks are relied upon."""
    emulator.hold_jobs()
    async with called_back(emulator) as (gateway, client, base), asyncio.timeout(240):
        job_id = await running_job(client)
        right, count = address_in(emulator), 10_000
        lie = {"EventName": "TaskFinish", "JobsDetail": [{"JobId": job_id, "State": "Success"}]}
        begun = time.monotonic()
        async with aiohttp.ClientSession() as stranger:

            async def lies(url: str) -> None:
                for _ in range(count // 20):
                    async with stranger.post(url, json=lie) as answer:
                        assert answer.status == 200

            for url, most in ((f"{base}/cb/{'A' * 22}", 0.0), (right, 1.0)):
                before = reads(emulator)
                await asyncio.gather(*(lies(url) for _ in range(20)))
                assert reads(emulator) - before <= most * (time.monotonic() - begun + 1)
        found = outcomes(gateway)
        assert found.pop("foreign") == count
        assert sum(found.values()) == count
        assert set(found) <= {"read", "repeated", "limited"}
        assert not gateway.callbacks.trust.works(BUCKET)
        assert (await client.get(BUCKET, job_id)).state == PreviewJob.STATE_RUNNING
