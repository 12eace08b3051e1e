"""The time limit of all waits of one read for shared state."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call, SharedRead
from docpreview_gateway.storage.redis_client import RedisClient
from docpreview_gateway.upstream.middleware.shared_reads import SharedReads
from docpreview_gateway.upstream.operations import GetJob
from docpreview_gateway.upstream.redis_single_flight import RedisSingleFlight
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
JOB = "d" + "1" * 32


class SlowServer:
    """A server that grants every lease, slowly."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.commands: list[str] = []

    async def send(self, *command: str | bytes | float) -> object:
        self.commands.append(str(command[0]))
        await asyncio.sleep(self.seconds)
        return 1


@asynccontextmanager
async def single_flight_over(server: SlowServer, *, seconds: float) -> AsyncIterator[RedisSingleFlight]:
    """A single-flight whose other replicas publish nothing."""
    listening = asyncio.Event()

    @asynccontextmanager
    async def messages() -> AsyncIterator[AsyncIterator[bytes]]:
        async def none() -> AsyncIterator[bytes]:
            listening.set()
            await asyncio.sleep(3600)
            yield b""

        yield none()

    redis = RedisClient(server.send, name="shared cache", seconds=seconds, fallback="continuing without it")
    single_flight = RedisSingleFlight(redis, "tests")
    task = asyncio.create_task(single_flight.listen(messages, lambda _bucket: None))
    await listening.wait()
    try:
        yield single_flight
    finally:
        await single_flight.close()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("waited", "outcome", "asks"), [(0.0, "leader", True), (0.9, "local", True), (1.0, "local", False)]
)
async def test_a_read_waits_for_shared_state_for_the_rest_of_its_time(
    waited: float,
    outcome: str,
    asks: bool,  # noqa: FBT001 - a parameter
) -> None:
    """After that the replica reads by itself; the wait is added to `SharedRead.waited`."""
    server, cloud, telemetry = SlowServer(0.2), FakeUpstream(), FakeTelemetry()
    cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    async with single_flight_over(server, seconds=1.0) as single_flight:
        reads = SharedReads(cloud, single_flight, clock=FakeClock(0.0), telemetry=telemetry)
        deadline = time.monotonic() + 30
        read = SharedRead(deadline, waited)
        call = Call("r", deadline, shared_read=read)
        assert (await reads(GetJob(BUCKET, JOB), call)).job_id == JOB
        assert telemetry.shared_reads == [outcome]
        assert bool(server.commands) is asks
        assert waited <= read.waited < waited + 0.5
