"""Fan-out: many watchers of one job cost the cloud no more calls than one watcher."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import WatchPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from docpreview_gateway.settings.sections import WatchSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, REGION, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
WATCHERS = 1000
CONNECTIONS = 12
POLL_SECONDS = 0.2
SHORTEST_POLL_SECONDS = 0.8 * POLL_SECONDS
"""Jitter of polls, 20 %."""


class Watchers:
    """Watches of one job over several connections, since a connection carries at most 100 streams."""

    def __init__(self, stubs: list[PreviewJobServiceAsyncStub], job_id: str, count: int) -> None:
        self._count = count
        self._first_seen = 0
        self._all_watch = asyncio.Event()
        request = WatchPreviewJobRequest(bucket=BUCKET, job_id=job_id)
        # The server refuses more than 500 calls that wait for its event loop.
        self._opening = asyncio.Semaphore(100)
        self._tasks = [
            asyncio.ensure_future(self._watch(stubs[number % len(stubs)], request)) for number in range(count)
        ]

    async def _watch(self, stub: PreviewJobServiceAsyncStub, request: WatchPreviewJobRequest) -> int:
        seen = PreviewJob.STATE_UNSPECIFIED
        await self._opening.acquire()
        async for reply in stub.WatchPreviewJob(request, timeout=90):
            if reply.HasField("job"):
                if seen == PreviewJob.STATE_UNSPECIFIED:
                    self._opening.release()
                    self._first_seen += 1
                    if self._first_seen == self._count:
                        self._all_watch.set()
                seen = reply.job.state
        return seen

    async def all_watch(self) -> None:
        """Wait until each watcher has received the current state."""
        await asyncio.wait_for(self._all_watch.wait(), 60)

    async def last_states(self) -> list[int]:
        """The last state of each watcher, once its stream has ended."""
        return await asyncio.wait_for(asyncio.gather(*self._tasks), 60)


class Scene:
    """An emulator with a job that is held in Running, a gateway, and connections to it."""

    def __init__(self, emulator: Emulator, stubs: list[PreviewJobServiceAsyncStub], job_id: str) -> None:
        self.emulator = emulator
        self._stubs = stubs
        self._job_id = job_id

    async def watch(self, count: int) -> Watchers:
        """Start watchers and wait until each has received the current state."""
        watchers = Watchers(self._stubs, self._job_id, count)
        await watchers.all_watch()
        return watchers

    def polls(self) -> int:
        """Number of reads of the job that reached the emulator."""
        return sum(asked.operation == "get" for asked in self.emulator.requests)


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    watch = WatchSettings(poll_floor_seconds=POLL_SECONDS, poll_cap_seconds=POLL_SECONDS)
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator())
        gateway = await stack.enter_async_context(Gateway(settings(emulator, watch=watch)))
        address = f"127.0.0.1:{gateway.port}"
        options = (("grpc.use_local_subchannel_pool", 1),)
        stubs = [
            PreviewJobServiceStub(await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options)))
            for _ in range(CONNECTIONS)
        ]
        client = await stack.enter_async_context(DocPreviewClient(address))
        emulator.put_object(BUCKET, REGION, "seven.pdf", DOCUMENT.read_bytes())
        emulator.hold_jobs()
        job = await client.create(BUCKET, "seven.pdf", output_object="out/p-${Page}.png")
        yield Scene(emulator, stubs, job.job_id)


async def test_a_thousand_watchers_of_one_job_cost_the_polls_of_one() -> None:
    """All of them see SUCCESS."""
    costs = {}
    for count in (1, WATCHERS):
        async with scene() as stage:
            loop = asyncio.get_running_loop()
            begin = loop.time()
            watchers = await stage.watch(count)
            await asyncio.sleep(2)
            most_of_one_schedule = (loop.time() - begin) / SHORTEST_POLL_SECONDS + 1
            costs[count] = stage.polls()
            assert 2 < costs[count] <= most_of_one_schedule
            stage.emulator.release_jobs()
            assert await watchers.last_states() == [PreviewJob.STATE_SUCCESS] * count
    # A thousand watchers take longer to arrive, so their poller runs longer: a few more polls.
    assert costs[WATCHERS] < 10 * costs[1]


async def test_a_watcher_keeps_its_poller_while_others_come_and_go() -> None:
    """The poller runs until the terminal state."""
    async with scene() as stage:
        first = await stage.watch(1)
        passing = await stage.watch(50)
        before = stage.polls()
        for task in passing._tasks:
            task.cancel()
        await asyncio.gather(*passing._tasks, return_exceptions=True)
        assert stage.polls() - before <= 2
        stage.emulator.release_jobs()
        assert await first.last_states() == [PreviewJob.STATE_SUCCESS]
