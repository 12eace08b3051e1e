"""Single-flight reads of several replicas over one Redis server: one leader calls the cloud, the others follow."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.middleware.shared_reads import SharedReads
from docpreview_gateway.upstream.operations import CreateJob, GetJob
from docpreview_gateway.upstream.redis_single_flight import LEASE_SECONDS
from docpreview_gateway.wiring.shared_state import SharedParts, shared_parts
from tests.deployments import NAMESPACE
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.redis_server import RedisServer

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
JOB = "d" + "1" * 32
LEASE_KEY = f"docpreview:2:{NAMESPACE}:lease:{{job:{BUCKET.region}:{BUCKET.name}:{JOB}}}"


@dataclass
class Replica:
    """A replica: its reads, its own cloud, its metrics and the messages that it received."""

    reads: SharedReads
    cloud: FakeUpstream
    telemetry: FakeTelemetry
    parts: SharedParts
    created: list[str]

    def get(self, *, no_cache: bool = False, seconds: float = 10) -> asyncio.Task[PreviewJob]:
        call = Call("r", asyncio.get_running_loop().time() + seconds, no_cache=no_cache)
        return asyncio.create_task(self.reads(GetJob(BUCKET, JOB), call))


@asynccontextmanager
async def replica(url: str) -> AsyncIterator[Replica]:
    telemetry, cloud, created = FakeTelemetry(), FakeUpstream(), list[str]()
    cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    cloud.objects.add((BUCKET.name, "a.pdf"))
    async with (
        shared_parts(url, NAMESPACE, telemetry, seconds=0.5) as parts,
        parts.listening(created.append, lambda _bucket, _job_id: None),
    ):
        reads = SharedReads(cloud, parts.single_flight, clock=FakeClock(), telemetry=telemetry)
        await subscribed(parts)
        yield Replica(reads, cloud, telemetry, parts, created)


async def subscribed(parts: SharedParts) -> None:
    """Wait until the replica is subscribed, so that it can follow a leader."""
    async with asyncio.timeout(10):
        while await parts.single_flight.lead("probe", now=True) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    parts.single_flight.publish("probe", b"")


@asynccontextmanager
async def replicas(url: str, count: int) -> AsyncIterator[list[Replica]]:
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        yield [await stack.enter_async_context(replica(url)) for _ in range(count)]


@pytest.fixture
async def three(redis_server: RedisServer) -> AsyncIterator[list[Replica]]:
    async with replicas(redis_server.url, 3) as made:
        yield made


async def reading(leader: Replica) -> asyncio.Task[PreviewJob]:
    """A leader's read, in flight until `leader.cloud.gate` is set."""
    leader.cloud.gate = asyncio.Event()
    task = leader.get()
    await leader.cloud.called.wait()
    return task


async def following(follower: Replica, redis: RedisServer) -> asyncio.Task[PreviewJob]:
    """A follower's read, waiting for the leader's result."""
    task = follower.get()
    async with asyncio.timeout(5):
        while b":0" in redis.command("EXISTS", LEASE_KEY.replace("lease", "inboxes")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    return task


def release(leader: Replica) -> None:
    assert leader.cloud.gate is not None
    leader.cloud.gate.set()


async def test_concurrent_equal_reads_of_three_replicas_cost_one_cloud_call(
    three: list[Replica], redis_server: RedisServer
) -> None:
    """The followers get the leader's result as soon as it is published."""
    leader, *others = three
    first = await reading(leader)
    shared = [await following(each, redis_server) for each in others]
    release(leader)
    assert {(await each).job_id for each in (first, *shared)} == {JOB}
    assert [len(each.cloud.asked) for each in three] == [1, 0, 0]
    assert [each.telemetry.shared_reads for each in three] == [["leader"], ["follower"], ["follower"]]


async def test_a_read_right_after_another_gets_its_result_unless_it_is_no_cache(three: list[Replica]) -> None:
    """The result stays published for a moment."""
    await three[0].get()
    await asyncio.sleep(0.02)
    await three[1].get()
    assert three[1].cloud.asked == []
    await three[2].get(no_cache=True)
    assert len(three[2].cloud.asked) == 1


async def test_the_answer_that_a_job_does_not_exist_is_shared_too(
    three: list[Replica], redis_server: RedisServer
) -> None:
    """NOT_FOUND is a result, not a failure."""
    leader, follower, _ = three
    leader.cloud.jobs.clear()
    first = await reading(leader)
    second = await following(follower, redis_server)
    release(leader)
    for each in (first, second):
        with pytest.raises(UpstreamError) as caught:
            await each
        assert caught.value.reason == r.ERROR_REASON_JOB_NOT_FOUND
    assert follower.cloud.asked == []


async def test_a_leaders_error_is_not_shared_and_followers_read_themselves(
    three: list[Replica], redis_server: RedisServer
) -> None:
    """Each follower calls the cloud."""
    leader, follower, _ = three
    leader.cloud.failures.append(UpstreamError(r.ERROR_REASON_UPSTREAM_UNAVAILABLE, "away"))
    first = await reading(leader)
    second = await following(follower, redis_server)
    release(leader)
    with pytest.raises(UpstreamError):
        await first
    assert (await second).job_id == JOB
    assert len(follower.cloud.asked) == 1


async def test_a_cancelled_leader_cancels_no_follower_and_releases_its_lease(
    three: list[Replica], redis_server: RedisServer
) -> None:
    """Followers need not wait until the lease expires."""
    leader, follower, _ = three
    first = await reading(leader)
    second = await following(follower, redis_server)
    first.cancel()
    async with asyncio.timeout(LEASE_SECONDS / 2):
        assert (await second).job_id == JOB


async def test_a_lost_leader_is_replaced_when_its_lease_expires(
    three: list[Replica], redis_server: RedisServer
) -> None:
    """A follower becomes the leader."""
    redis_server.command("SET", LEASE_KEY, "another-replica", "PX", str(round(LEASE_SECONDS * 1000)))
    async with asyncio.timeout(3 * LEASE_SECONDS):
        assert (await three[0].get()).job_id == JOB
    assert three[0].telemetry.shared_reads == ["leader"]


@pytest.mark.alone
async def test_a_long_read_renews_its_lease_for_as_long_as_it_lasts(
    three: list[Replica], redis_server: RedisServer
) -> None:
    """Followers keep waiting for the same leader."""
    leader, follower, _ = three
    first = await reading(leader)
    second = await following(follower, redis_server)
    await asyncio.sleep(3 * LEASE_SECONDS)
    assert follower.cloud.asked == []
    release(leader)
    await asyncio.gather(first, second)
    assert follower.cloud.asked == []


async def test_a_leader_that_was_paused_does_not_publish_its_outdated_result(
    three: list[Replica], redis_server: RedisServer
) -> None:
    """Another replica has published a newer result meanwhile."""
    leader, follower, _ = three
    first = await reading(leader)
    redis_server.command("SET", LEASE_KEY, "another", "PX", "60000")
    second = await following(follower, redis_server)
    release(leader)
    await first
    await asyncio.sleep(0.2)
    assert not second.done()
    redis_server.command("DEL", LEASE_KEY)
    await second
    assert follower.telemetry.shared_reads == ["leader"]


async def test_a_follower_stops_waiting_at_its_own_deadline(three: list[Replica]) -> None:
    """The error is the usual DEADLINE_EXCEEDED."""
    leader, follower, _ = three
    first = await reading(leader)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await follower.get(seconds=0.2)
    assert loop.time() - begin < 0.2 + LEASE_SECONDS
    release(leader)
    await first


async def test_a_follower_that_receives_garbage_reads_itself(three: list[Replica], redis_server: RedisServer) -> None:
    """A message that cannot be decoded counts as no result."""
    leader, follower, _ = three
    first = await reading(leader)
    second = await following(follower, redis_server)
    key = LEASE_KEY.partition("{")[2].rstrip("}")
    redis_server.command("PUBLISH", follower.parts.single_flight.channels[0], f'"{key}\\n\\xff\\x00garbage"')
    assert (await second).job_id == JOB
    assert len(follower.cloud.asked) == 1
    release(leader)
    await first


async def test_a_waiting_replica_gets_the_next_read_whoever_makes_it(three: list[Replica]) -> None:
    """Whatever its reason; without a read within the wait there is no result."""
    waiting = [asyncio.create_task(each.reads.next(BUCKET, JOB, 5)) for each in three]
    await asyncio.sleep(0.1)
    await three[0].get()
    assert {(await each).job_id for each in waiting if await each} == {JOB}  # type: ignore[union-attr]
    assert await three[1].reads.next(BUCKET, JOB, 0.05) is None


async def test_a_create_is_announced_to_the_other_replicas_only(three: list[Replica]) -> None:
    """They receive the bucket's name."""
    request = CreatePreviewJobRequest(bucket=BUCKET.name, input_object="a.pdf")
    await three[0].reads(CreateJob(request, BUCKET, BUCKET), Call("r", asyncio.get_running_loop().time() + 5))
    async with asyncio.timeout(5):
        while not (three[1].created and three[2].created):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert [each.created for each in three] == [[], [BUCKET.name], [BUCKET.name]]


async def test_random_cancellations_leave_remaining_callers_answered_and_nothing_behind(three: list[Replica]) -> None:
    """No subscription and no renewal of a lease remains."""
    rng = random.Random(1)  # noqa: S311

    async def caller(each: Replica) -> str:
        task = each.get()
        if rng.random() < 0.5:
            await asyncio.sleep(rng.random() * 0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return "left"
        return (await task).job_id

    for _ in range(50):
        answers = await asyncio.gather(*(caller(rng.choice(three)) for _ in range(40)))
        assert set(answers) <= {"left", JOB}
    await asyncio.sleep(0.1)
    assert [each.parts.single_flight._subscriptions for each in three] == [{}, {}, {}]
    assert [each.parts.single_flight._renewals for each in three] == [{}, {}, {}]


class TestServerThatIsGone:
    async def test_a_killed_redis_leaves_leader_and_follower_to_read_themselves(self, tmp_path: Path) -> None:
        """The follower calls the cloud as soon as its connection breaks."""
        with running_redis(tmp_path) as server:
            async with replicas(server.url, 2) as (leader, follower):
                first = await reading(leader)
                second = await following(follower, server)
                server.kill()
                async with asyncio.timeout(LEASE_SECONDS / 2):
                    assert (await second).job_id == JOB
                release(leader)
                await first
                for each in (leader, follower):
                    before = len(each.cloud.asked)
                    await asyncio.gather(*(each.get() for _ in range(10)))
                    assert len(each.cloud.asked) == before + 10

    async def test_a_frozen_redis_delays_a_follower_by_a_lease_and_a_time_out_at_most(self, tmp_path: Path) -> None:
        """Then it calls the cloud itself."""
        with running_redis(tmp_path) as server:
            async with replicas(server.url, 2) as (leader, follower):
                first = await reading(leader)
                second = await following(follower, server)
                server.freeze()
                async with asyncio.timeout(LEASE_SECONDS + 1.0):
                    assert (await second).job_id == JOB
                release(leader)
                await first
                server.thaw()

    async def test_replicas_share_reads_again_within_seconds_of_the_servers_return(self, tmp_path: Path) -> None:
        """They subscribe again by themselves."""
        with running_redis(tmp_path) as server:
            async with replicas(server.url, 2) as (one, other):
                server.kill()
                await asyncio.gather(*(each.get() for each in (one, other) for _ in range(5)))
                server.start()
                async with asyncio.timeout(5):
                    while "follower" not in other.telemetry.shared_reads:
                        one.cloud.gate = None
                        await asyncio.gather(one.get(), other.get())
                        await asyncio.sleep(0.2)
