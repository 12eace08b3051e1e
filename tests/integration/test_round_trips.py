"""How often a read asks Redis, as the server's MONITOR has it."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview_gateway.settings.upstream import CacheSettings
from docpreview_gateway.upstream import redis_single_flight
from tests.deployments import NAMESPACE
from tests.integration.conftest import BUCKET, REGION, until
from tests.integration.test_shared_state import BRIEF, Pair, replicas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.redis_server import RedisServer

RENEWAL = re.compile(f"{redis_single_flight._RENEW.hash}|return redis.call.'PEXPIRE'")


@dataclass
class Monitor:
    """Commands about a job, as clients sent them. What a script calls is none of them.

    Renewals of a lease are left out: they are sent for a read that takes longer than a sixth of a second.
    """

    reader: asyncio.StreamReader
    server: RedisServer
    sent: int = 0

    async def commands(self, job_id: str) -> list[str]:
        """The names of those since the last look."""
        self.sent += 1
        mark, found = f"mark-{self.sent}", list[str]()
        self.server.command("ECHO", mark)
        about = f"docpreview:2:{NAMESPACE}:{{job:{REGION}:{BUCKET}:{job_id}}}:"
        while mark not in (line := (await self.reader.readline()).decode(errors="replace")):
            command = re.match(r'\+[\d.]+ \[\d+ [\d.:]+\] "(\w+)"', line)
            if command is not None and about in line and not RENEWAL.search(line):
                found.append(command[1])
        return found


@asynccontextmanager
async def monitored(server: RedisServer) -> AsyncIterator[Monitor]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**20)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    try:
        yield Monitor(reader, server)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def pair(redis_server: RedisServer) -> AsyncIterator[Pair]:
    """Replicas that hear each other, and whose memory answers no second read of a running job.

    The server has their scripts by a read that was made before.
    """
    async with replicas(redis_server, BRIEF, timeout_seconds=1.0) as pair:
        pair.emulator.hold_jobs()
        await pair.one.get(await pair.one.create())
        await until(
            lambda: redis_server.command("PUBSUB", "NUMSUB", f"docpreview:2:{NAMESPACE}:created")[-4:-2] == b":2"
        )
        yield pair


async def released(server: RedisServer) -> None:
    """Wait until no lease is left: ends are sent in the background."""
    await until(lambda: b"lease" not in server.command("KEYS", "*}:lease"))


async def test_an_uncached_get_asks_redis_once_before_the_cloud_and_once_after_it(
    pair: Pair, redis_server: RedisServer
) -> None:
    """The first looks into the cache and takes the lease; the second stores, ends the lease and publishes."""
    job_id = await pair.one.create()
    await asyncio.sleep(0.01)
    async with monitored(redis_server) as monitor:
        pair.emulator.clear_requests()
        pair.emulator.add_fault("latency", "get", seconds=0.5)
        reading = asyncio.create_task(pair.one.get(job_id))
        await until(lambda: bool(pair.emulator.requests))
        assert await monitor.commands(job_id) == ["EVALSHA"]
        assert (await reading)[1] == "miss"
        await released(redis_server)
        assert await monitor.commands(job_id) == ["EVALSHA"]


async def test_a_get_of_what_another_replica_has_cached_asks_redis_once(redis_server: RedisServer) -> None:
    """And a second one not at all."""
    async with replicas(redis_server, CacheSettings(), timeout_seconds=1.0) as pair:
        await pair.other.get(await pair.one.finished())
        job_id = await pair.one.finished()
        async with monitored(redis_server) as monitor:
            assert (await pair.other.get(job_id))[1] == "hit"
            assert await monitor.commands(job_id) == ["EVALSHA"]
            assert (await pair.other.get(job_id))[1] == "hit"
            assert await monitor.commands(job_id) == []


async def test_a_hundred_gets_of_a_job_at_the_same_time_ask_redis_as_often_as_one(
    pair: Pair, redis_server: RedisServer
) -> None:
    job_id = await pair.one.create()
    await asyncio.sleep(0.01)
    async with monitored(redis_server) as monitor:
        pair.emulator.add_fault("latency", "get", seconds=1.0)
        request = GetPreviewJobRequest(bucket=BUCKET, job_id=job_id)
        await asyncio.gather(*(pair.one.stub.GetPreviewJob(request) for _ in range(100)))
        await released(redis_server)
        assert await monitor.commands(job_id) == ["EVALSHA", "EVALSHA"]


async def test_a_no_cache_get_asks_redis_as_often(pair: Pair, redis_server: RedisServer) -> None:
    """It looks nothing up, and is single-flight all the same."""
    job_id = await pair.one.create()
    async with monitored(redis_server) as monitor:
        request = GetPreviewJobRequest(bucket=BUCKET, job_id=job_id)
        await pair.one.stub.GetPreviewJob(request, metadata=(("cache-control", "no-cache"),))
        await released(redis_server)
        assert await monitor.commands(job_id) == ["EVALSHA", "EVALSHA"]


async def test_a_cancelled_get_leaves_no_lease(pair: Pair, redis_server: RedisServer) -> None:
    """Another replica reads at once, not when the lease would have expired."""
    job_id = await pair.one.create()
    await asyncio.sleep(0.01)
    pair.emulator.add_fault("latency", "get", seconds=30)
    pair.emulator.clear_requests()
    reading = asyncio.create_task(pair.one.get(job_id))
    await until(lambda: bool(pair.emulator.requests))
    assert b"lease" in redis_server.command("KEYS", "*}:lease")
    reading.cancel()
    async with asyncio.timeout(5):
        await released(redis_server)
        assert (await pair.other.get(job_id))[1] == "miss"
