"""Two replicas that share a Redis server: they work as one, and neither needs the server for a read."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Protocol

import grpc
import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, GetPreviewJobRequest, WaitPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from docpreview_gateway.settings.sections import SharedStateSettings
from docpreview_gateway.settings.upstream import CacheSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, REGION, settings
from tests.redis_server import running_redis
from tests.unit.rpc.conftest import error_info

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub
    from tests.redis_server import RedisServer

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
BRIEF = CacheSettings(active_seconds=0.001, missing_seconds=0, list_seconds=0, stale_seconds=0)
"""Memory answers no second read of a job that runs, so every read asks Redis and then the cloud."""

BACK_SECONDS = 5.0


@dataclass
class Replica:
    """A gateway and a way to it that repeats nothing."""

    gateway: Gateway
    stub: PreviewJobServiceAsyncStub

    async def get(self, job_id: str) -> tuple[PreviewJob, str]:
        """A job and the `x-cache` that came with it."""
        call = self.stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id=job_id))
        job = await call
        return job, str(dict(await call.trailing_metadata() or ())["x-cache"])

    async def create(self, request_id: str = "", *, output: str = "p-${Page}.jpg") -> str:
        request = CreatePreviewJobRequest(
            bucket=BUCKET, input_object="a.pdf", output=ObjectLocation(object=output), request_id=request_id
        )
        return str((await self.stub.CreatePreviewJob(request)).job_id)

    async def finished(self) -> str:
        job_id = await self.create()
        await self.stub.WaitPreviewJob(WaitPreviewJobRequest(bucket=BUCKET, job_id=job_id))
        return job_id

    def lookups(self, outcome: str) -> float:
        labels = {"tier": "shared", "outcome": outcome}
        return self.gateway.registry.get_sample_value("docpreview_cache_lookups_total", labels) or 0.0


class Served(Protocol):
    """A server, or several that stand in for each other."""

    @property
    def url(self) -> str: ...


@dataclass
class Pair:
    """Two replicas before one cloud."""

    emulator: Emulator
    one: Replica
    other: Replica

    def posts(self) -> int:
        return sum(record.method == "POST" for record in self.emulator.requests)


@asynccontextmanager
async def replica(emulator: Emulator, server: Served, cache: CacheSettings) -> AsyncIterator[Replica]:
    state = SharedStateSettings.model_validate({"url": server.url})
    async with (
        Gateway(settings(emulator, cache=cache, shared_state=state)) as gateway,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}", options=[("grpc.enable_retries", 0)]) as channel,
    ):
        yield Replica(gateway, PreviewJobServiceStub(channel))


@asynccontextmanager
async def replicas(server: Served, cache: CacheSettings) -> AsyncIterator[Pair]:
    async with Emulator() as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", DOCUMENT.read_bytes())
        async with replica(emulator, server, cache) as one, replica(emulator, server, cache) as other:
            yield Pair(emulator, one, other)


@pytest.fixture
async def pair(redis_server: RedisServer) -> AsyncIterator[Pair]:
    async with replicas(redis_server, CacheSettings()) as pair:
        yield pair


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server that may be stopped."""
    with running_redis(tmp_path) as server:
        yield server


def new_id() -> str:
    return str(uuid.uuid4())


class TestCache:
    async def test_job_that_another_replica_read(self, pair: Pair) -> None:
        """It costs the cloud nothing."""
        job_id = await pair.one.finished()
        pair.emulator.clear_requests()
        job, cache = await pair.other.get(job_id)
        assert (job.state, cache) == (PreviewJob.STATE_SUCCESS, "hit")
        assert pair.emulator.requests == []
        assert pair.other.lookups("hit") == 1

    async def test_server_that_was_emptied(self, pair: Pair, redis_server: RedisServer) -> None:
        """The job is read from the cloud once, and is there again for all."""
        job_id = await pair.one.finished()
        redis_server.command("FLUSHALL")
        pair.emulator.clear_requests()
        assert (await pair.other.get(job_id))[1] == "miss"
        assert len(pair.emulator.requests) == 1
        assert redis_server.command("DBSIZE") != b":0\r\n"

    async def test_value_that_is_none_of_ours(self, pair: Pair, redis_server: RedisServer) -> None:
        """It is no hit, and the job is read again."""
        job_id = await pair.one.finished()
        redis_server.command("SET", f"docpreview:1:job:{REGION}:{BUCKET}:{job_id}", "garbage")
        assert (await pair.other.get(job_id))[1] != "hit"


class TestCreate:
    async def test_same_request_id_at_both(self, pair: Pair) -> None:
        """One job, one POST."""
        request_id = new_id()
        assert await pair.one.create(request_id) == await pair.other.create(request_id)
        assert (pair.posts(), pair.emulator.accepted_jobs) == (1, 1)

    async def test_same_request_id_at_both_at_once(self, pair: Pair) -> None:
        """The one that comes second waits for the job of the first, however many they are."""
        request_id = new_id()
        pair.emulator.add_fault("latency", "create", seconds=0.5)
        ids = await asyncio.gather(*(each.create(request_id) for each in (pair.one, pair.other) * 10))
        assert len(set(ids)) == 1
        assert (pair.posts(), pair.emulator.accepted_jobs) == (1, 1)

    async def test_many_request_ids_at_both_at_once(self, pair: Pair) -> None:
        """Each is one job."""
        names = [new_id() for _ in range(20)]
        ids = await asyncio.gather(*(each.create(name) for name in names for each in (pair.one, pair.other)))
        assert ids[::2] == ids[1::2]
        assert len(set(ids)) == 20
        assert (pair.posts(), pair.emulator.accepted_jobs) == (20, 20)

    async def test_request_id_with_another_request_at_the_other(self, pair: Pair) -> None:
        """It is refused, wherever it was used before."""
        request_id = new_id()
        await pair.one.create(request_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pair.other.create(request_id, output="q-${Page}.jpg")
        assert error_info(caught.value).reason == "REQUEST_ID_REUSED"
        assert pair.posts() == 1

    async def test_reply_that_one_lost(self, pair: Pair) -> None:
        """The other finds the job instead of paying for a second one."""
        request_id = new_id()
        pair.emulator.add_fault("drop_after", "create")
        first = await pair.one.create(request_id)
        assert await pair.other.create(request_id) == first
        assert (pair.posts(), pair.emulator.accepted_jobs) == (1, 1)


async def reads(replica: Replica, job_id: str, count: int) -> list[float]:
    """How long each of these reads took, in seconds. All of them succeed."""
    loop = asyncio.get_running_loop()
    times = []
    for _ in range(count):
        begin = loop.time()
        assert (await replica.get(job_id))[0].job_id == job_id
        times.append(loop.time() - begin)
    return times


async def refused_creates(pair: Pair) -> None:
    """Creates with `request_id` fail closed, without `request_id` they do not need the ledger."""
    before = pair.posts()
    for each in (pair.one, pair.other):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await each.create(new_id())
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert error_info(caught.value).reason == "LEDGER_UNAVAILABLE"
    assert pair.posts() == before
    await pair.one.create()
    assert pair.posts() == before + 1


async def back_to_normal(pair: Pair, job_id: str) -> None:
    """Creates with `request_id` work, and what one replica reads is there for the other, within a few seconds."""
    async with asyncio.timeout(BACK_SECONDS):
        request_id = new_id()
        assert await pair.one.create(request_id) == await pair.other.create(request_id)
        skipped = -1.0
        while skipped != pair.one.lookups("skipped") + pair.one.lookups("error"):
            skipped = pair.one.lookups("skipped") + pair.one.lookups("error")
            await asyncio.sleep(0.05)
            await pair.one.get(job_id)


class TestServerThatIsGone:
    async def test_killed_and_started_again(self, mortal: RedisServer) -> None:
        """No read fails, none takes long, nothing is sent without a record, and then all is as before."""
        async with replicas(mortal, BRIEF) as pair:
            pair.emulator.hold_jobs()
            job_id = await pair.one.create()
            usual = median(await reads(pair.one, job_id, 20))
            mortal.kill()
            times = await reads(pair.one, job_id, 100)
            assert max(times) < 1
            assert median(times) < usual + 0.02
            await refused_creates(pair)
            mortal.start()
            await back_to_normal(pair, job_id)

    async def test_frozen_and_thawed(self, mortal: RedisServer) -> None:
        """The same when it hangs and still takes connections: a few reads wait a little, the others not at all."""
        async with replicas(mortal, BRIEF) as pair:
            pair.emulator.hold_jobs()
            job_id = await pair.one.create()
            usual = median(await reads(pair.one, job_id, 20))
            mortal.freeze()
            times = await reads(pair.one, job_id, 100)
            assert max(times) < 1
            assert median(times) < usual + 0.02
            assert pair.one.lookups("error") >= 3
            assert pair.one.lookups("skipped") >= 50
            await refused_creates(pair)
            mortal.thaw()
            await back_to_normal(pair, job_id)

    async def test_gone_while_many_call(self, mortal: RedisServer) -> None:
        """No read fails, whatever the server does in the middle of it."""
        async with replicas(mortal, BRIEF) as pair:
            pair.emulator.hold_jobs()
            job_id = await pair.one.create()
            running = [asyncio.ensure_future(reads(each, job_id, 100)) for each in (pair.one, pair.other) * 4]
            for turn in (mortal.freeze, mortal.thaw, mortal.kill, mortal.start, mortal.kill):
                await asyncio.sleep(0.1)
                turn()
            await asyncio.gather(*running)

    async def test_down_at_the_start_of_a_gateway(self, mortal: RedisServer) -> None:
        """It starts, reads, refuses what it cannot record, and takes part as soon as the server is there."""
        mortal.kill()
        async with replicas(mortal, BRIEF) as pair:
            pair.emulator.hold_jobs()
            job_id = await pair.one.create()
            await reads(pair.one, job_id, 10)
            await refused_creates(pair)
            mortal.start()
            await back_to_normal(pair, job_id)

    async def test_gone_between_the_create_and_its_record(self, mortal: RedisServer) -> None:
        """The caller gets its job, and asking again when the server is back finds it instead of creating another."""
        async with replicas(mortal, BRIEF) as pair:
            pair.emulator.add_fault("latency", "create", seconds=1)
            request_id = new_id()
            creating = asyncio.ensure_future(pair.one.create(request_id))
            await asyncio.sleep(0.5)
            mortal.freeze()
            job_id = await creating
            mortal.thaw()
            assert await pair.one.create(request_id) == job_id
            assert (pair.posts(), pair.emulator.accepted_jobs) == (1, 1)
