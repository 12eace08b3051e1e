"""Gateways that the cloud calls back: one alone, and two replicas behind one address."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import httpx

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client import DocPreviewClient
from docpreview_gateway.callbacks.trust import LEAST
from docpreview_gateway.jobs.polling import Schedule
from docpreview_gateway.settings.sections import CallbackSettings, SharedStateSettings, WatchSettings
from docpreview_gateway.settings.upstream import CacheSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.edge_process import free_port
from tests.integration.conftest import BUCKET, settings, until
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from docpreview_emulator import Emulator


class Polls(WatchSettings):
    """Polls by a schedule of a test."""

    of: Schedule

    def schedule(self) -> Schedule:
        return self.of


RARE = Polls(of=Schedule(floor=60, cap=60, backstop=600))
"""Polls that no test waits for: what is told is told by callbacks."""

RELIED_UPON = Polls(of=Schedule(floor=10, cap=10, backstop=600))
"""Likewise for replicas that rely upon callbacks. They look for what they have missed every ten seconds."""

SOON = Polls(of=Schedule(floor=0.3, cap=0.3, backstop=4.0))
"""Polls that are rare for seconds instead of a minute."""


def reads(emulator: Emulator) -> int:
    """Requests for single jobs that have reached the cloud."""
    return sum(request.operation == "get" for request in emulator.requests)


def address_in(emulator: Emulator) -> str:
    """The address that the last create asked for."""
    bodies = [request.body.decode() for request in emulator.requests if request.operation == "create"]
    return bodies[-1].partition("<CallBack>")[2].partition("</CallBack>")[0]


def outcomes(*gateways: Gateway) -> dict[str, float]:
    """What became of callbacks."""
    found: dict[str, float] = {}
    for gateway in gateways:
        for family in gateway.registry.collect():
            for sample in family.samples:
                if sample.name == "docpreview_callbacks_total":
                    outcome = sample.labels["outcome"]
                    found[outcome] = found.get(outcome, 0) + sample.value
    return found


def watchers(gateway: Gateway) -> float:
    return gateway.registry.get_sample_value("docpreview_watchers") or 0


async def running_job(client: DocPreviewClient) -> str:
    """The id of a new job, which stays unfinished until jobs are released."""
    job = await client.create(BUCKET, "a.pdf", output_object="out/${RequestToken}/${Number}.jpg")
    return str(job.job_id)


async def ended(waits: Sequence[asyncio.Task[PreviewJob]]) -> None:
    assert {job.state for job in await asyncio.gather(*waits)} == {PreviewJob.STATE_SUCCESS}


async def learned(emulator: Emulator, client: DocPreviewClient, *gateways: Gateway) -> None:
    """Make gateways rely upon callbacks, and hold later jobs."""
    for _ in range(LEAST):
        await client.wait(BUCKET, await running_job(client))
    await until(lambda: all(gateway.callbacks.trust.works(BUCKET) for gateway in gateways))
    emulator.hold_jobs()
    emulator.clear_requests()


@asynccontextmanager
async def called_back(emulator: Emulator, **changes: object) -> AsyncIterator[tuple[Gateway, DocPreviewClient, str]]:
    """A gateway that takes callbacks and polls once a minute, a client, and the address that creates ask for."""
    port = free_port()
    callbacks = CallbackSettings(public_url=f"http://127.0.0.1:{port}/cb", listen=f"127.0.0.1:{port}")
    async with (
        Gateway(settings(emulator, **{"callbacks": callbacks, "watch": RARE, **changes})) as gateway,
        DocPreviewClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        yield gateway, client, f"http://127.0.0.1:{port}"


async def told_at_another_replica(emulator: Emulator, gateway: Gateway, client: DocPreviewClient, base: str) -> float:
    """Seconds from a callback at one replica, at `base`, to the end of a wait at the other."""
    emulator.hold_jobs()
    job_id = await running_job(client)
    waiting = asyncio.create_task(client.wait(BUCKET, job_id))
    await until(lambda: watchers(gateway) == 1)
    emulator.add_fault("drop_before", "callback")
    emulator.release_jobs()
    await emulator.wait_for_job(job_id)
    token = address_in(emulator).rpartition("/")[2]
    async with httpx.AsyncClient(trust_env=False) as vendor:
        begin = time.monotonic()
        await vendor.post(f"{base}/cb/{token}", json={"JobsDetail": [{"JobId": job_id}]})
        await ended([waiting])
        return time.monotonic() - begin


class Balancer:
    """The address that the cloud calls. It passes connections on to `receivers` (ports) in turn, and can be away."""

    def __init__(self) -> None:
        self.port = free_port()
        self.receivers: list[int] = []
        self._turns = count()
        self._server: asyncio.Server | None = None

    async def back(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1000)

    async def away(self) -> None:
        """Nobody listens at the address from now on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receiver = self.receivers[next(self._turns) % len(self.receivers)]
        with closing(writer), suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", receiver)
            with closing(back):
                request = asyncio.create_task(_pass_on(reader, back))
                await _pass_on(there, writer)
                request.cancel()


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


@dataclass
class Replicas:
    """Two replicas with a Redis server, a client of each, and the address at which the cloud calls both."""

    emulator: Emulator
    balancer: Balancer
    gateways: tuple[Gateway, Gateway]
    clients: tuple[DocPreviewClient, DocPreviewClient]

    def rely(self) -> list[bool]:
        """Whether each of them relies upon callbacks."""
        return [gateway.callbacks.trust.works(BUCKET) for gateway in self.gateways]

    async def watched(self, jobs: int) -> dict[str, asyncio.Task[PreviewJob]]:
        """New jobs, made at the replicas in turn, each with a wait at the replica that has not made it."""
        before = sum(map(watchers, self.gateways))
        found = {}
        for number in range(jobs):
            job_id = await running_job(self.clients[number % 2])
            found[job_id] = asyncio.create_task(self.clients[1 - number % 2].wait(BUCKET, job_id))
        await until(lambda: sum(map(watchers, self.gateways)) == before + jobs)
        return found


@asynccontextmanager
async def two_replicas(
    emulator: Emulator, folder: Path, *, first_only: bool = False, **changes: object
) -> AsyncIterator[Replicas]:
    """Two replicas that rely upon callbacks and poll once a minute; jobs are held from here on.

    With `first_only` all callbacks go to the first one.
    """
    balancer = Balancer()
    callbacks = CallbackSettings(public_url=f"http://127.0.0.1:{balancer.port}/cb", listen="127.0.0.1:0")
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running_redis(folder))
        state = SharedStateSettings.model_validate({"url": server.url, "namespace": "docs", "timeout_seconds": 5.0})
        given = {
            "callbacks": callbacks,
            "watch": RELIED_UPON,
            "shared_state": state,
            "cache": CacheSettings(),
            **changes,
        }
        first, second = [await stack.enter_async_context(Gateway(settings(emulator, **given))) for _ in range(2)]
        ports = first.port, second.port
        one, other = [await stack.enter_async_context(DocPreviewClient(f"127.0.0.1:{port}")) for port in ports]
        balancer.receivers = [first.callback_port] if first_only else [first.callback_port, second.callback_port]
        await balancer.back()
        stack.push_async_callback(balancer.away)
        await learned(emulator, one, first, second)
        yield Replicas(emulator, balancer, (first, second), (one, other))
