"""What goes wrong with callbacks, at two replicas behind one address that share a Redis server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_emulator import Emulator, Settings
from tests.integration.callback_worlds import SOON, ended, outcomes, reads, running_job, two_replicas
from tests.integration.conftest import BUCKET, REGION, until
from tests.integration.money import ONE_PAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

JOBS = 12


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    # A callback takes as long as the machine lets it: what is lost is lost by a fault.
    async with Emulator(settings=Settings(max_concurrent=500, callback_seconds=60.0)) as found:
        found.put_object(BUCKET, REGION, "a.pdf", ONE_PAGE)
        yield found


async def test_what_comes_is_told_at_whichever_replica_by_one_read_of_each_job(
    emulator: Emulator, tmp_path: Path
) -> None:
    """The measure of all that follows: nothing goes wrong."""
    async with two_replicas(emulator, tmp_path) as replicas, asyncio.timeout(60):
        jobs = await replicas.watched(JOBS)
        assert reads(emulator) == 0
        emulator.release_jobs()
        await ended([*jobs.values()])
        assert reads(emulator) == JOBS


async def test_ends_whose_callbacks_are_lost_are_found_by_the_rare_polls(emulator: Emulator, tmp_path: Path) -> None:
    """Each replica learns from what it has missed, and polls often from then on."""
    async with two_replicas(emulator, tmp_path, watch=SOON) as replicas, asyncio.timeout(60):
        jobs = await replicas.watched(JOBS)
        emulator.add_fault("drop_before", "callback", times=JOBS)
        emulator.release_jobs()
        await ended([*jobs.values()])
        await until(lambda: replicas.rely() == [False, False])
        emulator.hold_jobs()
        emulator.clear_requests()
        jobs = await replicas.watched(2)
        await until(lambda: reads(emulator) >= 8, seconds=4)
        emulator.release_jobs()
        await ended([*jobs.values()])


async def test_late_callbacks_are_told_when_they_come(emulator: Emulator, tmp_path: Path) -> None:
    async with two_replicas(emulator, tmp_path) as replicas, asyncio.timeout(60):
        jobs = await replicas.watched(JOBS)
        emulator.add_fault("latency", "callback", times=JOBS, seconds=1.0)
        emulator.release_jobs()
        await ended([*jobs.values()])
        assert reads(emulator) == JOBS
        assert replicas.rely() == [True, True]


async def test_callbacks_that_come_after_a_poll_has_found_the_end_are_read_no_more(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with two_replicas(emulator, tmp_path, watch=SOON) as replicas, asyncio.timeout(60):
        jobs = await replicas.watched(JOBS)
        emulator.add_fault("latency", "callback", times=JOBS, seconds=8.0)
        emulator.release_jobs()
        await ended([*jobs.values()])
        before = reads(emulator)
        await until(lambda: outcomes(*replicas.gateways).get("known", 0) == JOBS)
        assert reads(emulator) == before


async def test_doubled_callbacks_cost_each_replica_that_gets_one_a_read_at_most(
    emulator: Emulator, tmp_path: Path
) -> None:
    """The address passes them on to the replicas in turn."""
    async with two_replicas(emulator, tmp_path) as replicas, asyncio.timeout(60):
        jobs = await replicas.watched(JOBS)
        before = len(emulator.callbacks)
        emulator.add_fault("twice", "callback", times=JOBS)
        emulator.release_jobs()
        await ended([*jobs.values()])
        await until(lambda: len(emulator.callbacks) == before + 2 * JOBS)
        assert JOBS <= reads(emulator) <= 2 * JOBS
        assert replicas.rely() == [True, True]


async def test_a_callback_that_says_another_state_tells_the_one_that_the_cloud_has(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with two_replicas(emulator, tmp_path) as replicas, asyncio.timeout(60):
        jobs = await replicas.watched(JOBS)
        emulator.add_fault("other_state", "callback", times=JOBS)
        emulator.release_jobs()
        await ended([*jobs.values()])


async def test_a_callback_that_names_another_job_ends_neither(emulator: Emulator, tmp_path: Path) -> None:
    """The other one is read and still runs; the one that has ended is found by a rare poll."""
    async with two_replicas(emulator, tmp_path, watch=SOON) as replicas, asyncio.timeout(60):
        jobs = await replicas.watched(2)
        (first, told), (_, other) = jobs.items()
        emulator.add_fault("other_job", "callback")
        emulator.set_job_state(first, "Success")
        await until(lambda: reads(emulator) >= 1)
        assert not told.done()
        assert (await told).state == PreviewJob.STATE_SUCCESS
        assert not other.done()
        emulator.release_jobs()
        await ended([other])


async def test_a_callback_with_a_wrong_token_reads_nothing(emulator: Emulator, tmp_path: Path) -> None:
    """Its job is found by a rare poll."""
    async with two_replicas(emulator, tmp_path, watch=SOON) as replicas, asyncio.timeout(60):
        jobs = await replicas.watched(1)
        emulator.add_fault("wrong_token", "callback")
        emulator.release_jobs()
        await until(lambda: outcomes(*replicas.gateways).get("foreign", 0) == 1)
        assert reads(emulator) == 0
        await ended([*jobs.values()])


async def test_callbacks_that_are_ahead_of_the_clouds_state_are_told_a_second_later(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Without a poll."""
    async with two_replicas(emulator, tmp_path) as replicas, asyncio.timeout(30):
        jobs = await replicas.watched(JOBS)
        emulator.add_fault("early", "callback", times=JOBS, seconds=0.7)
        emulator.release_jobs()
        await ended([*jobs.values()])
        assert reads(emulator) <= 3 * JOBS
        assert replicas.rely() == [True, True]


async def test_callbacks_in_another_order_than_the_ends_are_all_told_by_one_read_each(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with two_replicas(emulator, tmp_path) as replicas, asyncio.timeout(30):
        jobs = await replicas.watched(JOBS)
        emulator.add_fault("reverse", "callback", times=JOBS)
        for job_id in jobs:
            emulator.set_job_state(job_id, "Success")
        await ended([*jobs.values()])
        assert reads(emulator) == JOBS


async def test_a_receiver_that_is_away_and_comes_back_is_relied_upon_again(emulator: Emulator, tmp_path: Path) -> None:
    """The cloud finds nobody at the address meanwhile, and repeats nothing: polls find the ends."""
    async with two_replicas(emulator, tmp_path, watch=SOON) as replicas, asyncio.timeout(120):
        await replicas.balancer.away()
        jobs = await replicas.watched(JOBS)
        emulator.release_jobs()
        await ended([*jobs.values()])
        await until(lambda: replicas.rely() == [False, False])
        assert [each.status for each in emulator.callbacks[-JOBS:]] == [None] * JOBS
        await replicas.balancer.back()
        while replicas.rely() != [True, True]:
            await replicas.clients[0].wait(BUCKET, await running_job(replicas.clients[0]))
        emulator.hold_jobs()
        emulator.clear_requests()
        jobs = await replicas.watched(1)
        emulator.release_jobs()
        await ended([*jobs.values()])
        assert reads(emulator) == 1


async def test_two_hundred_jobs_that_end_at_once_are_all_told_within_moments(
    emulator: Emulator, tmp_path: Path
) -> None:
    """By the replica that gets all of their callbacks, at both: none is dropped, and none waits for a poll."""
    async with two_replicas(emulator, tmp_path, first_only=True) as replicas, asyncio.timeout(120):
        jobs = await replicas.watched(200)
        for job_id in jobs:
            emulator.set_job_state(job_id, "Success")
        await ended([*jobs.values()])
        assert reads(emulator) == 200
        assert set(outcomes(*replicas.gateways)) == {"read"}


async def test_a_replica_without_callbacks_hears_of_an_end_within_a_tenth_of_a_second(
    emulator: Emulator, tmp_path: Path
) -> None:
    """From the answer to the callback at the other one, by messages of Redis. It relies upon the other's callbacks."""
    async with two_replicas(emulator, tmp_path, first_only=True) as replicas, asyncio.timeout(60):
        delays = [1.0]
        # Others may use the machine too: one of many.
        while min(delays) >= 0.1 and len(delays) < 20:
            told = len(emulator.callbacks)
            [(job_id, wait)] = (await replicas.watched(1)).items()
            emulator.set_job_state(job_id, "Success")
            await until(lambda: len(emulator.callbacks) > told)  # noqa: B023 - awaited here
            called_at = time.monotonic()
            await ended([wait])
            delays.append(time.monotonic() - called_at)
        assert outcomes(replicas.gateways[1]) == {}
        assert reads(emulator) == len(delays) - 1
        assert min(delays) < 0.1
