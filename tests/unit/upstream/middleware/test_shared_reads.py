"""What a read makes of what the cache and the lease of all replicas say; `tests/integration` has a real server."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call, SharedRead
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.storage.redis_client import RedisClient
from docpreview_gateway.upstream.middleware.shared_reads import LEASE_CHECK_SECONDS, SharedReads
from docpreview_gateway.upstream.operations import CreateJob, GetJob, ListJobs
from docpreview_gateway.upstream.policies import cache_entries
from docpreview_gateway.upstream.policies.freshness import Freshness
from docpreview_gateway.upstream.ports import Turn
from docpreview_gateway.upstream.redis_single_flight import RedisSingleFlight
from tests.fakes.clock import FakeClock
from tests.fakes.shared_cache import FakeSharedCache
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from docpreview_gateway.upstream.ports import Subscription

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
JOB = "d" + "1" * 32
KEY = cache_entries.job_key(BUCKET, JOB)
NOW = 1_764_000_000.0
FRESHNESS = Freshness(active=1, missing=2, stale=60)


class Says(FakeSharedCache):
    """Shared state that answers looks with these turns, each after `seconds`, and publishes `news`."""

    def __init__(self, *turns: Turn, seconds: float = 0.0, news: Sequence[bytes] = ()) -> None:
        super().__init__()
        self._turns = iter(turns)
        self._seconds = seconds
        self._news = news
        self.looks: list[tuple[bool, float]] = []
        self.asked: list[tuple[str, float]] = []

    def subscribe(self, _key: str) -> AbstractContextManager[Subscription]:
        return nullcontext(_News(self._news))

    async def ask(self, key: str, seconds: float) -> bool:
        self.asked.append((key, seconds))
        return True

    async def turn(self, _key: str, _now: float, *, no_cache: bool, spent: float = 0.0) -> Turn:
        self.looks.append((no_cache, spent))
        await asyncio.sleep(self._seconds)
        return next(self._turns)


class _News:
    """A subscription to which these messages were published."""

    def __init__(self, messages: Sequence[bytes]) -> None:
        self._messages = list(messages)

    async def next(self, seconds: float) -> bytes | None:
        if self._messages:
            return self._messages.pop(0)
        await asyncio.sleep(seconds)
        return None


class World:
    """A replica in front of a cloud that has the job."""

    def __init__(self, shared: FakeSharedCache) -> None:
        self.cloud, self.telemetry, self.shared = FakeUpstream(), FakeTelemetry(), shared
        self.job = self.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
        self.reads = SharedReads(
            self.cloud, shared, freshness=FRESHNESS, clock=FakeClock(NOW), telemetry=self.telemetry
        )
        self.read = SharedRead(time.monotonic() + 30)

    async def get(self, *, seconds: float = 30, no_cache: bool = False) -> str:
        """Read the job. Returns the call's `x-cache`."""
        call = Call("r", time.monotonic() + seconds, no_cache=no_cache, shared_read=self.read)
        self.read.no_cache = no_cache
        assert (await self.reads(GetJob(BUCKET, JOB), call)).job_id == JOB
        return call.response.cache


def envelope(*, of: str = KEY, state: PreviewJob.State.ValueType = PreviewJob.STATE_RUNNING) -> bytes:
    job = PreviewJob(bucket=BUCKET.name, job_id=JOB, state=state)
    return cache_entries.encode(of, cache_entries.Entry(job, NOW, NOW + 1))


async def test_a_fresh_answer_is_a_hit_after_one_look_and_no_read() -> None:
    world = World(shared := Says(Turn("found", envelope())))
    assert await world.get() == "hit"
    assert (len(shared.looks), shared.published, world.cloud.asked) == (1, [], [])
    assert (world.telemetry.lookups, world.telemetry.shared_reads) == ([("shared", "hit")], [])
    assert world.read.envelope == envelope()


async def test_that_there_is_no_such_job_is_found_like_a_job() -> None:
    missing = cache_entries.encode(KEY, cache_entries.Entry(None, NOW, NOW + 2))
    world = World(Says(Turn("found", missing)))
    with pytest.raises(UpstreamError, match=f"no job {JOB} in bucket {BUCKET.name}") as caught:
        await world.get()
    assert caught.value.reason == reasons.ERROR_REASON_JOB_NOT_FOUND
    assert (world.cloud.asked, world.read.envelope) == ([], missing)


async def test_a_leader_stores_and_publishes_what_it_has_read_in_one() -> None:
    """For as long as it is fresh, and as a stale copy after that. The memory gets the same envelope."""
    world = World(shared := Says(Turn("leader")))
    assert await world.get() == "miss"
    assert (shared.published, shared.lives) == ([world.read.envelope], {KEY: 61.0})
    entry = cache_entries.decode(KEY, shared.published[0])
    assert entry == cache_entries.Entry(world.job, NOW, NOW + 1)
    assert (world.telemetry.lookups, world.telemetry.shared_reads) == ([("shared", "miss")], ["leader"])


async def test_that_there_is_no_such_job_is_stored_and_published_too() -> None:
    world = World(shared := Says(Turn("leader", envelope())))
    world.cloud.jobs.clear()
    with pytest.raises(UpstreamError):
        await world.get()
    entry = cache_entries.decode(KEY, shared.published[0])
    assert entry == cache_entries.Entry(None, NOW, NOW + 2)
    assert (shared.lives, world.read.envelope) == ({KEY: 2.0}, shared.published[0])


async def test_a_failed_read_ends_the_lease_without_a_result_and_leaves_the_stale_copy() -> None:
    world = World(shared := Says(Turn("leader", envelope())))
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down")]
    with pytest.raises(UpstreamError):
        await world.get()
    assert (shared.published, shared.values, world.read.envelope) == ([b""], {}, envelope())


async def test_a_cancelled_read_ends_the_lease_without_a_result() -> None:
    world = World(shared := Says(Turn("leader")))
    world.cloud.gate = asyncio.Event()
    reading = asyncio.create_task(world.get())
    await world.cloud.called.wait()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert shared.published == [b""]


@pytest.mark.parametrize("found", [envelope(of=KEY[:-1] + "2"), envelope()[:-3]], ids=["of another job", "malformed"])
async def test_what_is_found_and_cannot_be_used_is_a_miss_and_the_lease_is_asked_for(found: bytes) -> None:
    """The script looks at the head of an envelope only."""
    world = World(shared := Says(Turn("found", found), Turn("leader")))
    assert await world.get() == "miss"
    assert [no_cache for no_cache, _ in shared.looks] == [False, True]
    assert (world.telemetry.lookups, len(world.cloud.asked)) == ([("shared", "miss")], 1)


async def test_a_read_without_shared_state_is_stored_for_the_others_if_that_works() -> None:
    """It holds no lease, and publishes nothing."""
    world = World(shared := Says(Turn("alone")))
    assert await world.get() == "miss"
    assert (shared.published, shared.values) == ([], {KEY: world.read.envelope})
    assert world.telemetry.shared_reads == ["local"]


async def test_a_follower_gets_the_published_result() -> None:
    news = envelope(state=PreviewJob.STATE_SUCCESS)
    world = World(Says(Turn("follower", envelope()), news=[news]))
    assert await world.get() == "coalesced"
    assert (world.cloud.asked, world.telemetry.shared_reads, world.read.envelope) == ([], ["follower"], news)


async def test_a_follower_of_a_read_without_a_result_reads_by_itself_and_keeps_the_stale_copy() -> None:
    world = World(shared := Says(Turn("follower", envelope()), news=[b""]))
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down")]
    with pytest.raises(UpstreamError):
        await world.get()
    assert (shared.published, world.telemetry.shared_reads) == ([], ["timeout"])
    assert world.read.envelope == envelope()


async def test_a_follower_that_has_missed_the_result_finds_it_in_the_cache() -> None:
    """It looks again when the lease may be over. Both looks have one time limit, the second its rest."""
    world = World(shared := Says(Turn("follower"), Turn("found", envelope()), seconds=0.1))
    assert await world.get() == "coalesced"
    (_, first), (_, second) = shared.looks
    assert first == 0.0
    assert 0.1 <= second < 0.4
    assert (world.telemetry.lookups, world.telemetry.shared_reads) == ([("shared", "miss")], ["follower"])


async def test_a_follower_reads_by_itself_when_its_callers_time_is_over() -> None:
    world = World(shared := Says(*[Turn("follower")] * 2))
    begin = time.monotonic()
    assert await world.get(seconds=0.05) == "miss"
    assert time.monotonic() - begin < LEASE_CHECK_SECONDS
    assert (len(shared.looks), world.telemetry.shared_reads) == (2, ["local"])


async def test_a_no_cache_read_looks_nothing_up_and_counts_no_look() -> None:
    world = World(shared := Says(Turn("leader")))
    assert await world.get(no_cache=True) == "miss"
    assert [no_cache for no_cache, _ in shared.looks] == [True]
    assert world.telemetry.lookups == []


async def test_a_server_that_is_slow_delays_a_read_by_one_time_limit() -> None:
    """Whatever it says in the end."""

    async def send(*_command: str | bytes | float) -> object:
        return await asyncio.Event().wait()

    redis = RedisClient(send, name="shared cache", seconds=0.2, fallback="continuing without it")
    world = World(FakeSharedCache())
    single_flight = RedisSingleFlight(redis, "tests", world.telemetry)
    reads = SharedReads(
        world.cloud, single_flight, freshness=FRESHNESS, clock=FakeClock(NOW), telemetry=world.telemetry
    )
    begin = time.monotonic()
    await reads(GetJob(BUCKET, JOB), Call("r", begin + 30))
    assert 0.2 <= time.monotonic() - begin < 0.4
    assert world.telemetry.lookups == [("shared", "error"), ("shared", "miss"), ("shared", "skipped")]


async def nothing_missed() -> None:
    """Of a feed."""


async def test_a_feed_has_the_job_as_another_replica_reads_it() -> None:
    """What is no job is passed over: a read that failed, a job that is missing, a message that is malformed."""
    missing = cache_entries.encode(KEY, cache_entries.Entry(None, NOW, NOW + 2))
    news = [b"", missing, envelope()[:-3], envelope(state=PreviewJob.STATE_SUCCESS)]
    world = World(shared := Says(news=news))
    job = await world.reads.next(BUCKET, JOB, 20, nothing_missed)
    assert job is not None
    assert job.state == PreviewJob.STATE_SUCCESS
    assert ({key for key, _ in shared.asked}, world.cloud.asked) == ({KEY}, [])


async def test_a_feed_without_a_read_of_another_replica_ends_after_its_time() -> None:
    """Messages that are passed over do not prolong it."""
    world = World(Says(news=[b""]))
    begin = time.monotonic()
    assert await world.reads.next(BUCKET, JOB, 0.1, nothing_missed) is None
    assert 0.1 <= time.monotonic() - begin < 0.5


async def test_lists_are_not_shared() -> None:
    """They pass through to the cloud."""
    world = World(shared := Says())
    page = await world.reads(
        ListJobs(ListPreviewJobsRequest(bucket=BUCKET.name), BUCKET, 10, ""), Call("r", time.monotonic() + 30)
    )
    assert [job.job_id for job in page.jobs] == [JOB]
    assert (shared.looks, shared.values, shared.created_in) == ([], {}, [])


async def test_a_create_is_stored_for_the_other_replicas_and_makes_them_drop_their_lists() -> None:
    """Also one of unknown outcome does the latter."""
    world = World(shared := FakeSharedCache())
    world.cloud.objects.add((BUCKET.name, "a.pdf"))
    create = CreateJob(CreatePreviewJobRequest(bucket=BUCKET.name, input_object="a.pdf"), BUCKET, BUCKET)
    job = await world.reads(create, Call("r", time.monotonic() + 30))
    (key,) = shared.values
    assert cache_entries.decode(key, shared.values[key]) == cache_entries.Entry(job, NOW, NOW + 1)
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "?")]
    with pytest.raises(UpstreamError):
        await world.reads(create, Call("r", time.monotonic() + 30))
    assert (shared.created_in, list(shared.values)) == ([BUCKET.name] * 2, [key])
