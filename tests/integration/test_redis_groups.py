"""Replicas that share Redis servers which stand in for each other: a master with Sentinels, and a cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest
import redis

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.limits.gcra import rule
from docpreview_gateway.limits.redis_rates import RedisRates
from docpreview_gateway.model.callers import Rate
from docpreview_gateway.settings.upstream import CacheSettings
from docpreview_gateway.storage.redis_connections import redis_batches
from docpreview_gateway.upstream.redis_single_flight import LEASE_SECONDS
from tests.deployments import NAMESPACE
from tests.integration.test_shared_state import BRIEF, Replica, new_id, replicas
from tests.redis_groups import PASSWORD, Cluster, Sentinels, running_cluster, running_sentinels
from tests.standstills import standstills
from tests.unit.rpc.conftest import error_info

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with running_sentinels(tmp_path) as found:
        yield found


@pytest.fixture
def mortal_cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path) as found:
        yield found


async def read_on(replica: Replica, job_id: str, over: asyncio.Event) -> int:
    """Reads until `over`, none of which fails or takes long; how many."""
    loop, count = asyncio.get_running_loop(), 0
    while not over.is_set():
        begin = loop.time()
        assert (await replica.get(job_id))[0].job_id == job_id
        assert loop.time() - begin < 1.5
        count += 1
        await asyncio.sleep(0.01)
    return count


async def created(replica: Replica, request_id: str, *, seconds: float) -> tuple[str, int]:
    """The job of a create that is made again while the ledger is away, and how often it was refused."""
    refusals = 0
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await replica.create(request_id), refusals
            except grpc.aio.AioRpcError as error:
                if error_info(error).reason != "LEDGER_UNAVAILABLE":
                    raise
                refusals += 1
                await asyncio.sleep(0.1)


class TestSentinels:
    async def test_a_killed_master_fails_no_read_and_creates_until_the_loss_is_over(self, sentinels: Sentinels) -> None:
        """The new master may lack the last creates. Creates fail closed until that is settled, and are one job then."""
        async with replicas(sentinels, BRIEF, on_loss="accept") as pair:
            pair.emulator.hold_jobs()
            before = new_id()
            job_id = await pair.one.create(before)
            assert await pair.other.create(before) == job_id
            await asyncio.to_thread(_replicate, sentinels)
            over = asyncio.Event()
            reading = [asyncio.create_task(read_on(each, job_id, over)) for each in (pair.one, pair.other)]
            posts = pair.posts()
            sentinels.master.kill()
            during = new_id()
            second, refusals = await created(pair.one, during, seconds=40)
            assert refusals > 0
            # Each replica notices by itself that the loss is over.
            assert (await created(pair.other, during, seconds=40))[0] == second
            assert await pair.other.create(before) == job_id
            assert pair.posts() == posts + 1
            over.set()
            assert all(count > 10 for count in await asyncio.gather(*reading))

    async def test_the_cache_is_shared_again_after_a_failover(self, sentinels: Sentinels) -> None:
        async with replicas(sentinels, CacheSettings()) as pair:
            await pair.one.finished()
            sentinels.master.kill()
            async with asyncio.timeout(30):
                cache = ""
                while cache != "hit" or pair.other.lookups("hit") == 0:
                    job_id = await pair.one.finished()
                    job, cache = await pair.other.get(job_id)
                    assert job.state == PreviewJob.STATE_SUCCESS

    async def test_a_lost_sentinel_does_not_hide_the_master(self, sentinels: Sentinels) -> None:
        sentinels.sentinels[0].kill()
        async with replicas(sentinels, CacheSettings()) as pair:
            request_id = new_id()
            assert await pair.one.create(request_id) == await pair.other.create(request_id)


class TestCluster:
    async def test_replicas_share_the_cache_the_ledger_and_reads(self, redis_cluster: Cluster) -> None:
        async with replicas(redis_cluster, CacheSettings(active_seconds=0.001), timeout_seconds=1.0) as pair:
            request_id = new_id()
            job_id = await pair.one.create(request_id)
            assert await pair.other.create(request_id) == job_id
            async with asyncio.timeout(60):
                while (await pair.other.get(await pair.one.finished()))[1] not in {"hit", "coalesced"}:
                    pass
                while (hits := pair.other.lookups("hit")) < 10:
                    job_id = await pair.one.finished()
                    pair.emulator.clear_requests()
                    _, cache = await pair.other.get(job_id)
                    # A server that is late for one has another chance with the next.
                    if pair.other.lookups("hit") > hits:
                        asked = [request for request in pair.emulator.requests if request.operation == "get"]
                        assert (cache, asked) == ("hit", [])

    async def test_reads_of_two_replicas_at_the_same_time_ask_the_cloud_once(self, redis_cluster: Cluster) -> None:
        """Whatever node keeps the lease. It is lost, and rightly, where both stood still for longer than it lasts.

        The cloud answers between two looks of the follower, which come every half second: nothing is cached here, so a
        look at the very end of a read would find neither a lease nor a result.
        """
        loop, counted = asyncio.get_running_loop(), 0
        async with replicas(redis_cluster, BRIEF, timeout_seconds=1.0) as pair, standstills() as stood:
            pair.emulator.hold_jobs()
            async with asyncio.timeout(90):
                while counted < 5:
                    job_id = await pair.one.create()
                    await asyncio.sleep(0.2)
                    pair.emulator.clear_requests()
                    pair.emulator.add_fault("latency", "get", seconds=0.75)
                    begin = loop.time()
                    await asyncio.gather(pair.one.get(job_id), pair.other.get(job_id))
                    if stood.during(begin, loop.time()) < LEASE_SECONDS / 3:
                        assert [request.operation for request in pair.emulator.requests].count("get") == 1
                        counted += 1

    async def test_the_rules_of_one_call_are_charged_by_one_script_on_one_node(self, redis_cluster: Cluster) -> None:
        async with redis_batches(redis_cluster.url) as send:
            rates = RedisRates(send, NAMESPACE, seconds=1)
            rules = rule("caller:a", "rate", Rate(0.01, 2)), rule("caller:a:Get", "method_rate", Rate(0.01, 3))
            assert [await rates.take(rules) is None for _ in range(3)] == [True, True, False]

    async def test_a_lost_node_fails_no_read(self, mortal_cluster: Cluster) -> None:
        """Whichever part of the keys is gone."""
        async with replicas(mortal_cluster, BRIEF) as pair:
            pair.emulator.hold_jobs()
            ids = [await pair.one.create() for _ in range(6)]
            over = asyncio.Event()
            reading = [asyncio.create_task(read_on(pair.other, job_id, over)) for job_id in ids]
            await asyncio.sleep(0.5)
            mortal_cluster.nodes[1].kill()
            await asyncio.sleep(3)
            over.set()
            assert all(count > 10 for count in await asyncio.gather(*reading))


def _replicate(sentinels: Sentinels) -> None:
    """Wait until the replica has all that was written: replication lags, and what it lacks is lost with the master."""
    with redis.Redis(port=sentinels.master.port, password=PASSWORD) as client:
        client.set("after-all", "1")
        assert client.wait(1, 5000) == 1
