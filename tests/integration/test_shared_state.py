"""Shared state: two replicas with one Redis server work as one, and no read depends on it."""

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
from docpreview_gateway.settings.sections import LedgerSettings, SharedStateSettings
from docpreview_gateway.settings.upstream import CacheSettings
from docpreview_gateway.storage.redis_client import FAILURES
from docpreview_gateway.wiring.gateway import Gateway
from tests.deployments import NAMESPACE
from tests.integration.conftest import BUCKET, REGION, settings, until
from tests.redis_server import running_redis
from tests.unit.rpc.conftest import error_info

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub
    from docpreview_gateway.creates.rebuild import OnLoss
    from tests.redis_server import RedisServer

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
BRIEF = CacheSettings(active_seconds=0.001, missing_seconds=0, list_seconds=0, stale_seconds=0)
"""Cache settings under which every read of a running job misses the memory, and asks Redis and then the cloud."""

BACK_SECONDS = 5.0


@dataclass
class Replica:
    """A gateway and a stub without retries."""

    gateway: Gateway
    stub: PreviewJobServiceAsyncStub

    async def get(self, job_id: str) -> tuple[PreviewJob, str]:
        """A job and the `x-cache` of the answer."""
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
    """A Redis server or a group of servers, by its URL."""

    @property
    def url(self) -> str: ...


@dataclass
class Pair:
    """Two replicas in front of one cloud."""

    emulator: Emulator
    one: Replica
    other: Replica

    def posts(self) -> int:
        return sum(record.method == "POST" for record in self.emulator.requests)


@asynccontextmanager
async def replica(
    emulator: Emulator, server: Served, cache: CacheSettings, on_loss: OnLoss = "rebuild", **shared: float
) -> AsyncIterator[Replica]:
    state = SharedStateSettings.model_validate({"url": server.url, **shared})
    ledger = LedgerSettings(on_loss=on_loss)
    async with (
        Gateway(settings(emulator, cache=cache, shared_state=state, ledger=ledger)) as gateway,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}", options=[("grpc.enable_retries", 0)]) as channel,
    ):
        yield Replica(gateway, PreviewJobServiceStub(channel))


@asynccontextmanager
async def replicas(
    server: Served, cache: CacheSettings, on_loss: OnLoss = "rebuild", **shared: float
) -> AsyncIterator[Pair]:
    async with Emulator() as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", DOCUMENT.read_bytes())
        async with (
            replica(emulator, server, cache, on_loss, **shared) as one,
            replica(emulator, server, cache, on_loss, **shared) as other,
        ):
            yield Pair(emulator, one, other)


@pytest.fixture
async def pair(redis_server: RedisServer) -> AsyncIterator[Pair]:
    # A server that is well is not given up on a crowded machine.
    async with replicas(redis_server, CacheSettings(), timeout_seconds=1.0) as pair:
        yield pair


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server that a test may stop; what it has acknowledged is there when it is started again."""
    with running_redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


def new_id() -> str:
    return str(uuid.uuid4())


class TestCache:
    async def test_a_job_read_by_one_replica_is_cached_for_the_other(self, pair: Pair) -> None:
        """The second read costs no cloud call."""
        job_id = await pair.one.finished()
        pair.emulator.clear_requests()
        job, cache = await pair.other.get(job_id)
        assert (job.state, cache) == (PreviewJob.STATE_SUCCESS, "hit")
        assert pair.emulator.requests == []
        assert pair.other.lookups("hit") == 1

    async def test_a_flushed_redis_costs_one_cloud_read_of_a_job(self, pair: Pair, redis_server: RedisServer) -> None:
        """Then the job is cached for both replicas again."""
        job_id = await pair.one.finished()
        redis_server.command("FLUSHALL")
        pair.emulator.clear_requests()
        assert (await pair.other.get(job_id))[1] == "miss"
        assert len(pair.emulator.requests) == 1
        assert redis_server.command("DBSIZE") != b":0\r\n"

    async def test_a_foreign_value_in_redis_is_a_miss(self, pair: Pair, redis_server: RedisServer) -> None:
        """The job is read from the cloud."""
        job_id = await pair.one.finished()
        redis_server.command("SET", f"docpreview:2:{NAMESPACE}:{{job:{REGION}:{BUCKET}:{job_id}}}:cached", "garbage")
        assert (await pair.other.get(job_id))[1] != "hit"


class TestCreate:
    async def test_a_request_id_repeated_at_the_other_replica_gets_the_same_job(self, pair: Pair) -> None:
        """The cloud gets one POST."""
        request_id = new_id()
        assert await pair.one.create(request_id) == await pair.other.create(request_id)
        assert (pair.posts(), pair.emulator.accepted_jobs) == (1, 1)

    async def test_a_concurrent_request_id_at_both_replicas_makes_one_job(self, pair: Pair) -> None:
        """Later creates wait for the job of the first."""
        request_id = new_id()
        pair.emulator.add_fault("latency", "create", seconds=0.5)
        ids = await asyncio.gather(*(each.create(request_id) for each in (pair.one, pair.other) * 10))
        assert len(set(ids)) == 1
        assert (pair.posts(), pair.emulator.accepted_jobs) == (1, 1)

    async def test_concurrent_request_ids_at_both_replicas_make_one_job_each(self, pair: Pair) -> None:
        """Each id is sent to both replicas."""
        names = [new_id() for _ in range(20)]
        ids = await asyncio.gather(*(each.create(name) for name in names for each in (pair.one, pair.other)))
        assert ids[::2] == ids[1::2]
        assert len(set(ids)) == 20
        assert (pair.posts(), pair.emulator.accepted_jobs) == (20, 20)

    async def test_a_request_id_with_another_request_is_refused_by_both_replicas(self, pair: Pair) -> None:
        """REQUEST_ID_REUSED, whichever replica has recorded it."""
        request_id = new_id()
        await pair.one.create(request_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pair.other.create(request_id, output="q-${Page}.jpg")
        assert error_info(caught.value).reason == "REQUEST_ID_REUSED"
        assert pair.posts() == 1

    async def test_a_reply_lost_by_one_replica_is_found_by_the_other(self, pair: Pair) -> None:
        """No second job is billed."""
        request_id = new_id()
        pair.emulator.add_fault("drop_after", "create")
        first = await pair.one.create(request_id)
        assert await pair.other.create(request_id) == first
        assert (pair.posts(), pair.emulator.accepted_jobs) == (1, 1)


async def reads(replica: Replica, job_id: str, count: int) -> list[float]:
    """Latencies in seconds of concurrent reads, all of which must succeed."""
    loop = asyncio.get_running_loop()
    times = []
    for _ in range(count):
        begin = loop.time()
        assert (await replica.get(job_id))[0].job_id == job_id
        times.append(loop.time() - begin)
    return times


async def refused_creates(pair: Pair) -> None:
    """Assert that creates with `request_id` fail closed, and that those without do not need the ledger."""
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
    """Wait a few seconds until creates with `request_id` work and the cache is shared again."""
    async with asyncio.timeout(BACK_SECONDS):
        request_id = new_id()
        assert await pair.one.create(request_id) == await pair.other.create(request_id)
        skipped = -1.0
        while skipped != pair.one.lookups("skipped") + pair.one.lookups("error"):
            skipped = pair.one.lookups("skipped") + pair.one.lookups("error")
            await asyncio.sleep(0.05)
            await pair.one.get(job_id)


class TestServerThatIsGone:
    @pytest.mark.alone
    async def test_a_killed_redis_fails_no_read_and_refuses_creates_with_request_id(self, mortal: RedisServer) -> None:
        """Reads stay fast, no create is sent without a record; after the restart everything works again."""
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

    @pytest.mark.alone
    async def test_a_frozen_redis_fails_no_read_and_refuses_creates_with_request_id(self, mortal: RedisServer) -> None:
        """It hangs but accepts connections: only a few reads wait, at most the time-out."""
        async with replicas(mortal, BRIEF) as pair:
            pair.emulator.hold_jobs()
            job_id = await pair.one.create()
            usual = median(await reads(pair.one, job_id, 20))
            # The end of a lease, which is sent in the background, would else be the first command that fails.
            await until(lambda: b"lease" not in mortal.command("KEYS", "*}:lease"))
            mortal.freeze()
            # After a failure no read asks for 50 ms, in which a fast machine reads nearly a hundred times.
            times = await reads(pair.one, job_id, 400)
            assert max(times) < 1
            assert median(times) < usual + 0.02
            assert 3 <= pair.one.lookups("error") <= 2 * FAILURES
            assert pair.one.lookups("skipped") >= 50
            await refused_creates(pair)
            mortal.thaw()
            await back_to_normal(pair, job_id)

    async def test_a_redis_killed_under_load_fails_no_read(self, mortal: RedisServer) -> None:
        """Kill and restart during concurrent reads."""
        async with replicas(mortal, BRIEF) as pair:
            pair.emulator.hold_jobs()
            job_id = await pair.one.create()
            running = [asyncio.ensure_future(reads(each, job_id, 100)) for each in (pair.one, pair.other) * 4]
            for turn in (mortal.freeze, mortal.thaw, mortal.kill, mortal.start, mortal.kill):
                await asyncio.sleep(0.1)
                turn()
            await asyncio.gather(*running)

    async def test_a_gateway_starts_while_redis_is_down_and_joins_when_it_is_back(self, mortal: RedisServer) -> None:
        """Until then it serves reads, and refuses creates with `request_id`."""
        mortal.kill()
        async with replicas(mortal, BRIEF) as pair:
            pair.emulator.hold_jobs()
            job_id = await pair.one.create()
            await reads(pair.one, job_id, 10)
            await refused_creates(pair)
            mortal.start()
            await back_to_normal(pair, job_id)

    async def test_a_redis_lost_between_create_and_record_costs_no_second_job(self, mortal: RedisServer) -> None:
        """The caller gets its job; repeated when Redis is back, the create finds it."""
        async with replicas(mortal, BRIEF) as pair:
            pair.emulator.add_fault("latency", "create", seconds=1)
            request_id = new_id()
            creating = asyncio.ensure_future(pair.one.create(request_id))
            await until(lambda: pair.posts() == 1)
            mortal.freeze()
            job_id = await creating
            mortal.thaw()
            assert await pair.one.create(request_id) == job_id
            assert (pair.posts(), pair.emulator.accepted_jobs) == (1, 1)
