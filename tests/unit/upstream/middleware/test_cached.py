"""Caching of jobs and lists, in memory and shared, and stale answers while the cloud fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.upstream.memory_cache import LruMemoryCache
from docpreview_gateway.upstream.middleware.cached import Cached
from docpreview_gateway.upstream.middleware.coalesced import Coalesced
from docpreview_gateway.upstream.middleware.shared_reads import SharedReads
from docpreview_gateway.upstream.operations import CreateJob, GetJob, JobPage, ListJobs, ListQueues
from docpreview_gateway.upstream.policies import cache_entries
from docpreview_gateway.upstream.policies.freshness import RECORD_LIFE, Freshness
from tests.fakes.clock import FakeClock
from tests.fakes.shared_cache import FakeSharedCache
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.upstream.ports import Turn

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
OTHER = Bucket("other-1250000000", "ap-chongqing", "main")
JOB = "d" + "1" * 32
UNAVAILABLE = UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down", retry_after=1)
DAY = 86400.0


@dataclass
class World:
    """A cache in front of a fake cloud."""

    cloud: FakeUpstream = field(default_factory=FakeUpstream)
    clock: FakeClock = field(default_factory=FakeClock)
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)
    shared: FakeSharedCache | None = None
    room: bool = True
    freshness: Freshness = field(default_factory=lambda: Freshness(active=1, missing=2, listing=1, stale=60))

    def __post_init__(self) -> None:
        self.cached = self.replica()

    def replica(self, clock: FakeClock | None = None) -> Cached:
        """A gateway process with a memory of its own, and perhaps another clock."""
        own = clock or self.clock
        reads: Upstream = self.cloud
        if self.shared is not None:
            reads = SharedReads(self.cloud, self.shared, freshness=self.freshness, clock=own, telemetry=self.telemetry)
        return Cached(
            Coalesced(reads, self.telemetry, longest=30),
            LruMemoryCache(10_000_000),
            self.shared,
            freshness=self.freshness,
            clock=own,
            telemetry=self.telemetry,
            check_admission=self.check_admission,
        )

    def check_admission(self, _bucket: Bucket, _job_id: str, _call: Call) -> None:
        if not self.room:
            raise UpstreamError(reasons.ERROR_REASON_OVERLOADED, "no room")

    async def get(self, job_id: str = JOB, *, no_cache: bool = False, replica: Cached | None = None) -> str:
        """Read a job. Returns the caller's `x-cache`."""
        call = Call("r", asyncio.get_running_loop().time() + 30, no_cache=no_cache)
        job = await (replica or self.cached)(GetJob(BUCKET, job_id), call)
        assert job.job_id == job_id
        return call.response.cache

    async def list(self, *, no_cache: bool = False, **fields: object) -> str:
        """List jobs. Returns the caller's `x-cache`."""
        call = Call("r", asyncio.get_running_loop().time() + 30, no_cache=no_cache)
        request = ListPreviewJobsRequest(bucket=BUCKET.name, **fields)  # type: ignore[arg-type]
        page = await self.cached(ListJobs(request, BUCKET, 10, ""), call)
        assert isinstance(page, JobPage)
        return call.response.cache

    async def create(self) -> PreviewJob:
        """Create a job in the bucket."""
        self.cloud.objects.add((BUCKET.name, "a.pdf"))
        request = CreatePreviewJobRequest(bucket=BUCKET.name, input_object="a.pdf")
        call = Call("r", asyncio.get_running_loop().time() + 30)
        job: PreviewJob = await self.cached(CreateJob(request, BUCKET, BUCKET), call)
        return job


@pytest.fixture
def world() -> World:
    return World()


async def test_a_terminal_job_is_cached_until_its_record_ends(world: World) -> None:
    """The cloud keeps records for a month."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS)
    created = world.cloud.jobs[BUCKET.name, JOB].create_time.seconds
    world.clock.time = created + 100
    assert [await world.get(), await world.get()] == ["miss", "hit"]
    world.clock.time = created + RECORD_LIFE - 1
    assert await world.get() == "hit"
    world.clock.time = created + RECORD_LIFE
    assert await world.get() == "miss"


async def test_an_unfinished_job_is_cached_for_a_moment(world: World) -> None:
    """For `freshness.active` seconds."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    assert [await world.get(), await world.get()] == ["miss", "hit"]
    world.clock.time += 1
    assert await world.get() == "miss"
    assert world.telemetry.lookups == [("memory", "miss"), ("memory", "hit"), ("memory", "miss")]


async def test_a_terminal_job_without_creation_time_is_cached_for_a_moment(world: World) -> None:
    """The end of its record is unknown."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS).ClearField("create_time")
    await world.get()
    world.clock.time += 1
    assert await world.get() == "miss"


async def test_a_missing_job_is_cached_briefly(world: World) -> None:
    """For `freshness.missing` seconds."""
    for _ in range(3):
        with pytest.raises(GatewayError) as caught:
            await world.get()
        assert caught.value.reason == reasons.ERROR_REASON_JOB_NOT_FOUND
    assert len(world.cloud.asked) == 1
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    world.clock.time += 2
    assert await world.get() == "miss"


async def test_a_just_created_job_that_is_missing_is_read_again(world: World) -> None:
    """Within five seconds of its create; later JOB_NOT_FOUND is the answer."""
    job = await world.create()
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, "not yet")]
    begin = asyncio.get_running_loop().time()
    assert await world.get(job.job_id, no_cache=True) == "miss"
    assert asyncio.get_running_loop().time() - begin >= 0.25
    world.clock.time += 3
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, "not yet")]
    assert await world.get(job.job_id, no_cache=True) == "miss"
    world.clock.time += 2
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, "gone")]
    with pytest.raises(GatewayError):
        await world.get(job.job_id, no_cache=True)


async def test_a_no_cache_read_gets_the_clouds_answer_and_caches_it(world: World) -> None:
    """The result of a `no_cache` read is cached."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS)
    await world.get()
    assert await world.get(no_cache=True) == "miss"
    assert await world.get() == "hit"


async def test_the_bucket_is_part_of_the_cache_key(world: World) -> None:
    """The same id in two buckets is two jobs."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS)
    await world.get()
    call = Call("r", asyncio.get_running_loop().time() + 30)
    with pytest.raises(GatewayError):
        await world.cached(GetJob(OTHER, JOB), call)


@pytest.mark.parametrize(
    ("age", "answer"), [(30.0, "stale"), (60.9, "stale"), (61.0, None)], ids=["young", "almost too old", "too old"]
)
async def test_a_stale_copy_is_answered_while_the_cloud_fails(world: World, age: float, answer: str | None) -> None:
    """When the copy is too old the error is raised."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    await world.get()
    world.clock.time += age
    world.cloud.failures = [UNAVAILABLE]
    if answer:
        assert await world.get() == answer
        assert world.telemetry.lookups[-1] == ("memory", "stale")
    else:
        with pytest.raises(GatewayError):
            await world.get()


@pytest.mark.parametrize("no_cache", [True, False], ids=["no-cache", "definite error"])
async def test_a_stale_copy_does_not_hide_permanent_errors_and_no_cache_reads(world: World, *, no_cache: bool) -> None:
    """Permanent errors are raised, and a `no_cache` read raises any error."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    await world.get()
    world.clock.time += 2
    denied = UpstreamError(reasons.ERROR_REASON_UPSTREAM_ACCESS_DENIED, "no")
    world.cloud.failures = [UNAVAILABLE if no_cache else denied]
    with pytest.raises(GatewayError):
        await world.get(no_cache=no_cache)


async def test_what_was_read_before_the_clock_was_set_back_is_read_again(world: World) -> None:
    """Jobs, lists and what is missing were taken for fresh as long as the clock had been ahead."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    assert [await world.get(), await world.list()] == ["miss", "miss"]
    with pytest.raises(GatewayError):
        await world.get("d" * 33)
    world.clock.time -= DAY
    world.cloud.add_job(BUCKET.name, "d" * 33, PreviewJob.STATE_RUNNING)
    assert [await world.get(), await world.get("d" * 33), await world.list()] == ["miss"] * 3
    assert [await world.get(), await world.get("d" * 33), await world.list()] == ["hit"] * 3


async def test_what_was_read_before_the_clock_was_set_back_is_no_stale_copy(world: World) -> None:
    """It would be one for a day."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    await world.get()
    world.clock.time -= DAY
    world.cloud.failures = [UNAVAILABLE]
    with pytest.raises(GatewayError):
        await world.get()
    assert await world.cached.last_seen(BUCKET, JOB) is None


@pytest.mark.parametrize(("ahead", "answer"), [(1.0, "hit"), (DAY, "miss")], ids=["a second", "a day"])
async def test_a_replica_whose_clock_is_far_ahead_shares_nothing_that_stays_fresh_for_as_long(
    ahead: float, answer: str
) -> None:
    """Clocks of replicas differ by a moment, and by a day where one is wrong."""
    world = World(shared=FakeSharedCache())
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    await world.get(replica=world.replica(FakeClock(world.clock.time + ahead)))
    assert await world.get() == answer


async def test_a_list_is_cached_for_a_moment_and_by_its_filters(world: World) -> None:
    """Other filters are another list."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    assert [await world.list(), await world.list()] == ["miss", "hit"]
    assert world.telemetry.lookups == [("lists", "miss"), ("lists", "hit")]
    assert await world.list(include_pages=True) == "miss"
    assert await world.list(no_cache=True) == "miss"
    world.clock.time += 1
    assert await world.list() == "miss"


async def test_a_create_drops_the_buckets_lists(world: World) -> None:
    """Also when its outcome is unknown."""
    await world.list()
    await world.create()
    assert await world.list() == "miss"
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "?")]
    with pytest.raises(GatewayError):
        await world.create()
    assert await world.list() == "miss"


async def test_a_list_read_before_a_create_is_not_cached_after_it(world: World) -> None:
    """The create ends while the list is read."""
    gate = world.cloud.gate = asyncio.Event()
    slow = asyncio.create_task(world.list())
    await world.cloud.called.wait()
    world.cloud.gate = None
    await world.create()
    gate.set()
    assert await slow == "miss"
    assert await world.list() == "miss"


async def test_a_created_job_is_cached_immediately(world: World) -> None:
    """The first get is a hit."""
    job = await world.create()
    assert await world.get(job.job_id) == "hit"


async def test_queues_are_never_cached(world: World) -> None:
    """Each list of queues is read from the cloud."""
    query = ListQueues(ListPreviewQueuesRequest(bucket=BUCKET.name), BUCKET, 10, 1)
    for _ in range(2):
        await world.cached(query, Call("r", asyncio.get_running_loop().time() + 30))
    assert len(world.cloud.asked) == 2


async def test_replicas_read_each_others_shared_entries() -> None:
    """Of two entries of a job the newest read wins."""
    world = World(shared=FakeSharedCache())
    other = world.replica()
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    assert [await world.get(), await world.get(replica=other)] == ["miss", "hit"]
    world.clock.time += 1
    assert [await world.get(replica=other), await world.get(), await world.get()] == ["miss", "hit", "hit"]


async def test_concurrent_reads_of_a_process_look_into_the_shared_cache_once() -> None:
    """The read is stored once, too, by the replica that made it."""
    shared = FakeSharedCache()
    world = World(shared=shared)
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    assert sorted(await asyncio.gather(*(world.get() for _ in range(5)))) == ["coalesced"] * 4 + ["miss"]
    assert (shared.turns, len(shared.published)) == (1, 1)


async def test_a_hit_of_the_shared_cache_is_as_old_in_memory_as_it_was_there() -> None:
    """Else an answer would be fresh for as long again in every replica that finds it."""
    world = World(shared=FakeSharedCache())
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    other = world.replica()
    await world.get()
    world.clock.time += 0.9
    assert await world.get(replica=other) == "hit"
    world.clock.time += 0.1
    assert await world.get(replica=other) == "miss"


async def test_a_stale_copy_of_another_replica_is_answered_while_the_cloud_fails() -> None:
    """It came with the look that has found nothing fresh."""
    shared = FakeSharedCache()
    world = World(shared=shared)
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    await world.get()
    world.clock.time += 30
    world.cloud.failures = [UNAVAILABLE] * 2
    assert await world.get(replica=world.replica()) == "stale"
    assert shared.turns == 2
    with pytest.raises(GatewayError):
        await world.get(replica=world.replica(), no_cache=True)


async def test_that_a_new_job_is_missing_is_not_shared() -> None:
    """Other replicas may have it from its create; the cloud shows it with a delay."""
    shared = FakeSharedCache()
    world = World(shared=shared)
    job = await world.create()
    (key,) = shared.values
    gone = UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, "not yet")
    world.cloud.failures = [gone, gone]
    with pytest.raises(GatewayError):
        await world.get(job.job_id, no_cache=True)
    assert shared.published == [b"", b""]
    entry = cache_entries.decode(key, shared.values[key])
    assert entry is not None
    assert entry.job == job
    assert await world.get(job.job_id, replica=world.replica()) == "hit"


async def test_garbage_in_the_shared_cache_is_a_miss() -> None:
    """Values of other versions, of other keys, or malformed ones."""
    world = World(shared=FakeSharedCache())
    assert world.shared is not None
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS)
    await world.get()
    (key, value), *_ = world.shared.values.items()
    for garbage in (b"", b"x", value[:-3], b"\x02" + value[1:], value.replace(JOB.encode(), b"d" + b"2" * 32, 1)):
        world.shared.values[key] = garbage
        assert await world.get(replica=world.replica()) == "miss"


class TestKept:
    def cached_get(self, world: World, *, no_cache: bool = False) -> tuple[str | None, str]:
        """The id of the job of `cached_get`, and the caller's `x-cache`."""
        call = Call("r", 30.0, no_cache=no_cache)
        job = world.cached.cached_get(BUCKET, JOB, call)
        return (None if job is None else PreviewJob.FromString(job).job_id), call.response.cache

    async def test_a_fresh_cached_job_is_a_hit_without_a_cloud_call(self, world: World) -> None:
        """The hit is counted."""
        world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
        await world.get()
        asked = list(world.cloud.asked)
        assert self.cached_get(world) == (JOB, "hit")
        assert world.telemetry.lookups[-1] == ("memory", "hit")
        assert world.cloud.asked == asked

    async def test_a_job_that_is_not_fresh_is_left_to_get(self, world: World) -> None:
        """The get counts the miss."""
        world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
        await world.get()
        world.clock.time += 1
        counted = list(world.telemetry.lookups)
        assert self.cached_get(world) == (None, "")
        assert world.telemetry.lookups == counted

    async def test_a_no_cache_read_is_left_to_get(self, world: World) -> None:
        """`cached_get` returns None."""
        world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
        await world.get()
        assert self.cached_get(world, no_cache=True) == (None, "")

    async def test_admission_is_checked_for_jobs_that_are_not_in_memory(self) -> None:
        """A job in memory, fresh or not, is never rejected here."""
        world = World()
        world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
        await world.get()
        world.room = False
        assert self.cached_get(world) == (JOB, "hit")
        world.clock.time += 1
        assert self.cached_get(world) == (None, "")
        with pytest.raises(UpstreamError, match="no room"):
            world.cached.cached_get(BUCKET, "d" + "9" * 32, Call("r", 30.0))

    async def test_a_cached_missing_job_is_left_to_get(self, world: World) -> None:
        """The get raises JOB_NOT_FOUND from the cache."""
        with pytest.raises(UpstreamError):
            await world.get("d" + "9" * 32)
        assert world.cached.cached_get(BUCKET, "d" + "9" * 32, Call("r", 30.0)) is None


async def test_jobs_are_found_in_the_shared_cache_while_they_are_fresh() -> None:
    """And are in memory afterwards; missing jobs, stale ones and calls with `no_cache` find nothing."""
    world = World(shared=FakeSharedCache())
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    other = world.replica()
    await world.get(replica=other)
    with pytest.raises(UpstreamError):
        await world.get("x1", replica=other)
    call = Call("r", asyncio.get_running_loop().time() + 30)
    assert await world.cached.find_shared(BUCKET, [JOB], call._replace(no_cache=True)) == {}
    assert list(await world.cached.find_shared(BUCKET, ["x1", JOB, "x2"], call)) == [JOB]
    assert call.response.cache == "hit"
    assert world.telemetry.lookups[-1] == ("shared", "hit")
    assert world.cached.cached_get(BUCKET, JOB, call) is not None
    world.clock.time += 1
    assert await world.cached.find_shared(BUCKET, [JOB], call) == {}
    assert await World().cached.find_shared(BUCKET, [JOB], call) == {}


async def test_the_last_seen_job_is_the_latest_of_both_caches_also_a_stale_one_and_costs_no_read() -> None:
    world = World(shared=FakeSharedCache())
    assert await world.cached.last_seen(BUCKET, JOB) is None
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    await world.get()
    world.clock.time += 3600
    reads = len(world.cloud.asked)
    seen = await world.cached.last_seen(BUCKET, JOB)
    assert seen is not None
    assert seen.state == PreviewJob.STATE_RUNNING
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS)
    await world.get(replica=world.replica())
    seen = await world.cached.last_seen(BUCKET, JOB)
    assert seen is not None
    assert seen.state == PreviewJob.STATE_SUCCESS
    assert len(world.cloud.asked) == reads + 1


async def test_a_job_that_was_seen_too_long_ago_is_none() -> None:
    world = World()
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    await world.get()
    world.clock.time += 60
    assert await world.cached.last_seen(BUCKET, JOB, within=60) is not None
    world.clock.time += 1
    assert await world.cached.last_seen(BUCKET, JOB, within=60) is None


async def test_the_last_seen_job_is_that_of_this_process_if_it_read_it_last() -> None:
    """The other replica's read was written to the shared cache later, but is older."""
    world = World(shared=FakeSharedCache())
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    await world.get()
    assert world.shared is not None
    older = dict(world.shared.values)
    world.clock.time += 3600
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS)
    await world.get()
    world.clock.time += 30 * 24 * 3600
    world.shared.values.update(older)
    seen = await world.cached.last_seen(BUCKET, JOB)
    assert seen is not None
    assert seen.state == PreviewJob.STATE_SUCCESS


async def test_a_job_that_was_missing_when_it_was_last_seen_is_none() -> None:
    world = World()
    with pytest.raises(UpstreamError):
        await world.get()
    assert await world.cached.last_seen(BUCKET, JOB) is None


async def test_what_may_not_be_kept_is_not_sent_to_the_shared_cache() -> None:
    """A missing job, with `cache.missing_seconds` of zero."""
    world = World(shared=FakeSharedCache(), freshness=Freshness(active=1, missing=0, listing=1, stale=60))
    assert world.shared is not None
    with pytest.raises(UpstreamError):
        await world.get()
    assert world.shared.values == {}


async def test_a_job_of_the_shared_cache_is_in_memory_after_its_first_read() -> None:
    world = World(shared=FakeSharedCache())
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS)
    await world.get()
    other = world.replica()
    world.telemetry.lookups.clear()
    for _ in range(2):
        assert await world.get(replica=other) == "hit"
    assert world.telemetry.lookups == [("memory", "miss"), ("shared", "hit"), ("memory", "hit")]


async def test_a_no_cache_read_that_joins_a_look_into_the_shared_cache_gets_the_clouds_answer() -> None:
    """So does the call that would have been content with the cached one: there is one read for both."""

    class Slow(FakeSharedCache):
        def __init__(self) -> None:
            super().__init__()
            self.looked, self.go_on = asyncio.Event(), asyncio.Event()

        async def turn(self, key: str, now: float, *, no_cache: bool, spent: float = 0.0) -> Turn:
            found = await super().turn(key, now, no_cache=no_cache, spent=spent)
            self.looked.set()
            await self.go_on.wait()
            return found

    shared = Slow()
    world = World(shared=shared)
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS)
    shared.go_on.set()
    await world.get(replica=world.replica())
    shared.go_on.clear()
    shared.looked.clear()
    first = asyncio.create_task(world.get())
    await shared.looked.wait()
    second = asyncio.create_task(world.get(no_cache=True))
    await asyncio.sleep(0)
    shared.go_on.set()
    assert [await first, await second] == ["miss", "coalesced"]
    assert len(world.cloud.asked) == 2


async def test_many_jobs_are_found_in_memory_all_or_none(world: World) -> None:
    """Hits are counted if all are there, else by the reads that follow."""
    other = "d" + "2" * 32
    for job_id in (JOB, other):
        world.cloud.add_job(BUCKET.name, job_id, PreviewJob.STATE_RUNNING)
    await world.get()
    world.telemetry.lookups.clear()
    call = Call("r", 30.0)
    assert world.cached.cached_many(BUCKET, [JOB, other], call) is None
    assert (call.response.cache, world.telemetry.lookups) == ("", [])
    await world.get(other)
    world.telemetry.lookups.clear()
    assert world.cached.cached_many(BUCKET, [other, JOB], call._replace(no_cache=True)) is None
    found = world.cached.cached_many(BUCKET, [other, JOB], call)
    assert found is not None
    assert [PreviewJob.FromString(job).job_id for job in found] == [other, JOB]
    assert (call.response.cache, world.telemetry.lookups) == ("hit", [("memory", "hit")] * 2)
    world.clock.time += 1
    assert world.cached.cached_many(BUCKET, [JOB], call) is None


async def test_creates_are_remembered_for_seconds_only(world: World) -> None:
    """A gateway makes millions of jobs in its life."""
    await world.create()
    world.clock.time += 5
    latest = [cache_entries.job_key(BUCKET, (await world.create()).job_id) for _ in range(2)]
    assert list(world.cached._created) == latest


async def test_the_second_read_of_a_new_job_is_not_answered_from_the_shared_cache() -> None:
    """Another replica, which does not know that the job is new, may have stored that it is missing."""
    clock = FakeClock()

    class Told(FakeSharedCache):
        def end(self, key: str, envelope: bytes, seconds: float) -> None:
            super().end(key, envelope, seconds)
            if not envelope:
                now = clock.time
                self.values[key] = cache_entries.encode(key, cache_entries.Entry(None, now, now + 2))

    world = World(clock=clock, shared=Told())
    job = await world.create()
    world.clock.time += 2
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, "not yet")]
    assert await world.get(job.job_id) == "miss"


async def test_that_a_job_was_missing_is_no_stale_copy(world: World) -> None:
    """It may have been made since."""
    with pytest.raises(GatewayError):
        await world.get()
    world.clock.time += 3
    world.cloud.failures = [UNAVAILABLE]
    with pytest.raises(GatewayError) as caught:
        await world.get()
    assert caught.value.reason == reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE


async def test_lists_that_are_no_longer_fresh_are_let_go(world: World) -> None:
    """Each filter is a list of its own, and callers think of new ones."""
    for number in range(5):
        await world.list(include_pages=number % 2 == 0)
        world.clock.time += 1
    assert len(world.cached._lists[BUCKET.name]) == 1
