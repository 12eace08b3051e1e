"""Two replica processes that share a Redis server: one of them calls the cloud for both (single-flight)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import (
    CreatePreviewJobRequest,
    GetPreviewJobRequest,
    ListPreviewJobsRequest,
    WatchPreviewJobRequest,
)
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from tests.integration.conftest import BUCKET, REGION, until
from tests.integration.gateway_processes import Running, configuration, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub
    from tests.redis_server import RedisServer

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
CROWD = 1000
CONNECTIONS = 10
"""Connections to each replica; a connection carries 100 streams."""

TICK = 1.0
CALLS_PER_TICK = 1.2
WITHIN_ONE_TICK = 1.2 * TICK + 0.5 + 0.3
"""A follower polls after 1.2 ticks without news; half a second is the lease of a read whose leader was lost."""


@dataclass
class Scene:
    """A cloud with a job that is held in Running, two replicas, and connections to each of them."""

    emulator: Emulator
    replicas: list[Running]
    ways: list[list[PreviewJobServiceAsyncStub]]
    job_id: str = ""

    def stub(self, number: int) -> PreviewJobServiceAsyncStub:
        """The stub of a caller; callers alternate between the replicas."""
        ways = self.ways[number % 2]
        return ways[number // 2 % len(ways)]

    async def create(self) -> str:
        request = CreatePreviewJobRequest(
            bucket=BUCKET, input_object="a.pdf", output=ObjectLocation(object="p-${Page}.jpg")
        )
        return str((await self.stub(0).CreatePreviewJob(request)).job_id)

    def calls(self) -> int:
        """Number of reads of the job that reached the cloud."""
        return sum(asked.operation == "get" for asked in self.emulator.requests)


@asynccontextmanager
async def scene(redis: RedisServer, folder: Path, **changes: object) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator())
        emulator.put_object(BUCKET, REGION, "a.pdf", DOCUMENT.read_bytes())
        emulator.hold_jobs()
        path = configuration(emulator, folder, shared_state={"url": redis.url}, **changes)
        replicas = [await stack.enter_async_context(running(path)) for _ in range(2)]
        options = (("grpc.use_local_subchannel_pool", 1),)
        ways = [
            [
                PreviewJobServiceStub(
                    await stack.enter_async_context(grpc.aio.insecure_channel(each.address, options=options))
                )
                for _ in range(CONNECTIONS)
            ]
            for each in replicas
        ]
        stage = Scene(emulator, replicas, ways)
        stage.job_id = await stage.create()
        yield stage


async def poll(stage: Scene, number: int, seconds: float) -> list[int]:
    """The states seen by a caller that polls once a second; callers start at different moments."""
    loop, request = asyncio.get_running_loop(), GetPreviewJobRequest(bucket=BUCKET, job_id=stage.job_id)
    seen: list[int] = []
    await asyncio.sleep(TICK * number / CROWD)
    end = loop.time() + seconds
    while (begun := loop.time()) < end:
        seen.append((await stage.stub(number).GetPreviewJob(request, timeout=20)).state)
        await asyncio.sleep(max(0.0, TICK - (loop.time() - begun)))
    return seen


async def watch(stage: Scene, number: int, seen: list[list[int]]) -> None:
    request = WatchPreviewJobRequest(bucket=BUCKET, job_id=stage.job_id)
    async for reply in stage.stub(number).WatchPreviewJob(request, timeout=200):
        if reply.HasField("job"):
            seen[number].append(reply.job.state)


@pytest.mark.alone
@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.long)])
class TestCrowd:
    async def test_a_thousand_polling_callers_cost_one_cloud_call_a_second(
        self, redis_server: RedisServer, tmp_path: Path, seconds: int
    ) -> None:
        """After the job's end they cost none."""
        async with scene(redis_server, tmp_path) as stage:
            loop = asyncio.get_running_loop()
            begin = loop.time()
            before = stage.calls()
            polled = await asyncio.gather(*(poll(stage, number, seconds) for number in range(CROWD)))
            calls, ticks = stage.calls() - before, (loop.time() - begin) / TICK
            assert sum(map(len, polled)) > 0.5 * CROWD * seconds
            assert calls <= CALLS_PER_TICK * ticks + 1
            stage.emulator.release_jobs()
            await until_ended(stage)
            before = stage.calls()
            polled = await asyncio.gather(*(poll(stage, number, 2) for number in range(CROWD)))
            assert {state for states in polled for state in states} == {PreviewJob.STATE_SUCCESS}
            assert stage.calls() == before

    async def test_a_thousand_watchers_at_two_replicas_cost_what_one_costs(
        self, redis_server: RedisServer, tmp_path: Path, seconds: int
    ) -> None:
        """All of them see the terminal state."""
        polls = {"poll_floor_seconds": TICK, "poll_cap_seconds": TICK}
        async with scene(redis_server, tmp_path, watch=polls) as stage:
            seen: list[list[int]] = [[] for _ in range(CROWD)]
            watching = [asyncio.ensure_future(watch(stage, number, seen)) for number in range(CROWD)]
            await until(lambda: all(seen))
            before = stage.calls()
            await asyncio.sleep(seconds)
            calls, ticks = stage.calls() - before, seconds / TICK
            assert 0.5 * ticks < calls <= CALLS_PER_TICK * ticks + 1
            stage.emulator.release_jobs()
            await asyncio.gather(*watching)
            assert {states[-1] for states in seen} == {PreviewJob.STATE_SUCCESS}
            before = stage.calls()
            await asyncio.sleep(2 * TICK)
            assert stage.calls() == before


async def until_ended(stage: Scene) -> None:
    """Wait until both replicas answer with the terminal state."""
    request = GetPreviewJobRequest(bucket=BUCKET, job_id=stage.job_id)
    for number in (0, 1):
        while (await stage.stub(number).GetPreviewJob(request)).state != PreviewJob.STATE_SUCCESS:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_killed_replica_costs_the_others_watchers_at_most_a_tick(
    redis_server: RedisServer, tmp_path: Path, lost: int
) -> None:
    """Whichever of the two was the poller."""
    polls = {"poll_floor_seconds": TICK, "poll_cap_seconds": TICK}
    async with scene(redis_server, tmp_path, watch=polls) as stage:
        seen: list[list[int]] = [[], []]
        watching = [asyncio.ensure_future(watch(stage, number, seen)) for number in (0, 1)]
        await until(lambda: all(seen))
        calls = stage.calls()
        await until(lambda: stage.calls() >= calls + 2)
        await stage.replicas[lost].kill()
        await asyncio.gather(watching[lost], return_exceptions=True)
        stage.emulator.set_job_state(stage.job_id, "Success")
        async with asyncio.timeout(WITHIN_ONE_TICK):
            await watching[1 - lost]
        assert seen[1 - lost][-1] == PreviewJob.STATE_SUCCESS


async def test_a_create_in_one_replica_invalidates_the_others_cached_list(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """The other replica's list soon includes the new job."""
    async with scene(redis_server, tmp_path, cache={"list_seconds": 60}) as stage:
        request = ListPreviewJobsRequest(bucket=BUCKET)
        assert len((await stage.stub(1).ListPreviewJobs(request)).jobs) == 1
        await stage.create()
        async with asyncio.timeout(5):
            while len((await stage.stub(1).ListPreviewJobs(request)).jobs) == 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
