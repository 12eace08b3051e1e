"""What is answered again, for how long, and what happens when the cloud fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.upstream.memory_cache import LruMemoryCache
from docpreview_gateway.upstream.middleware.cached import CREATED_RECENTLY, Cached
from docpreview_gateway.upstream.operations import CreateJob, GetJob, ListJobs, ListQueues
from docpreview_gateway.upstream.policies.freshness import RECORD_LIFE, Freshness
from tests.fakes.clock import FakeClock
from tests.fakes.shared_cache import FakeSharedCache
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
OTHER = Bucket("other-1250000000", "ap-chongqing", "main")
JOB = "d" + "1" * 32
UNAVAILABLE = UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down", retry_after=1)


@dataclass
class World:
    """A cache before a fake cloud."""

    cloud: FakeUpstream = field(default_factory=FakeUpstream)
    clock: FakeClock = field(default_factory=FakeClock)
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)
    shared: FakeSharedCache | None = None
    room: bool = True

    def __post_init__(self) -> None:
        self.cached = self.replica()

    def replica(self) -> Cached:
        """A gateway process with a memory of its own."""
        return Cached(
            self.cloud,
            LruMemoryCache(10_000_000),
            self.shared,
            freshness=Freshness(active=1, missing=2, listing=1, stale=60),
            clock=self.clock,
            telemetry=self.telemetry,
            check_admission=self.check_admission,
        )

    def check_admission(self, _bucket: Bucket, _job_id: str, _call: Call) -> None:
        if not self.room:
            raise UpstreamError(reasons.ERROR_REASON_OVERLOADED, "no room")

    async def get(self, job_id: str = JOB, *, no_cache: bool = False, replica: Cached | None = None) -> str:
        """Read a job; the `x-cache` that the caller sees."""
        call = Call("r", asyncio.get_running_loop().time() + 30, no_cache=no_cache)
        await (replica or self.cached)(GetJob(BUCKET, job_id), call)
        return call.response.cache

    async def list(self, *, no_cache: bool = False, **fields: object) -> str:
        """List jobs; the `x-cache` that the caller sees."""
        call = Call("r", asyncio.get_running_loop().time() + 30, no_cache=no_cache)
        request = ListPreviewJobsRequest(bucket=BUCKET.name, **fields)  # type: ignore[arg-type]
        await self.cached(ListJobs(request, BUCKET, 10, ""), call)
        return call.response.cache

    async def create(self) -> PreviewJob:
        """Create a job in the bucket."""
        self.cloud.objects.add((BUCKET.name, "a.pdf"))
        request = CreatePreviewJobRequest(bucket=BUCKET.name, input_object="a.pdf")
        call = Call("r", asyncio.get_running_loop().time() + 30)
        job: PreviewJob = await self.cached(CreateJob(request, BUCKET, BUCKET), call)
        return job


class SlowSharedCache(FakeSharedCache):
    """It takes its time to look something up."""

    seconds = 0.1

    async def get(self, key: str) -> bytes | None:
        await asyncio.sleep(self.seconds)
        return await super().get(key)


@pytest.fixture
def world() -> World:
    return World()


async def test_job_in_a_terminal_state(world: World) -> None:
    """It is read once and kept until its record's month is over."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS)
    created = world.cloud.jobs[BUCKET.name, JOB].create_time.seconds
    world.clock.time = created + 100
    assert [await world.get(), await world.get()] == ["miss", "hit"]
    world.clock.time = created + RECORD_LIFE - 1
    assert await world.get() == "hit"
    world.clock.time = created + RECORD_LIFE
    assert await world.get() == "miss"


async def test_job_that_still_changes(world: World) -> None:
    """It is kept for a moment only."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    assert [await world.get(), await world.get()] == ["miss", "hit"]
    world.clock.time += 1
    assert await world.get() == "miss"


async def test_terminal_job_without_creation_time(world: World) -> None:
    """Nobody can tell when its record ends, so it is kept for a moment only."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS).ClearField("create_time")
    await world.get()
    world.clock.time += 1
    assert await world.get() == "miss"


async def test_job_that_does_not_exist(world: World) -> None:
    """That is kept briefly too."""
    for _ in range(3):
        with pytest.raises(GatewayError) as caught:
            await world.get()
        assert caught.value.reason == reasons.ERROR_REASON_JOB_NOT_FOUND
    assert len(world.cloud.asked) == 1
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    world.clock.time += 2
    assert await world.get() == "miss"


async def test_job_that_was_just_created_and_does_not_show_yet(world: World) -> None:
    """The cloud is asked once more before the answer is "no such job", and that answer is not kept."""
    job = await world.create()
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, "not yet")]
    assert await world.get(job.job_id, no_cache=True) == "miss"
    world.clock.time += CREATED_RECENTLY
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, "gone")]
    with pytest.raises(GatewayError):
        await world.get(job.job_id, no_cache=True)


async def test_a_no_cache_read_gets_the_clouds_answer_and_later_reads_profit(world: World) -> None:
    """The caller gets what the cloud says now, and later callers profit."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS)
    await world.get()
    assert await world.get(no_cache=True) == "miss"
    assert await world.get() == "hit"


async def test_same_job_id_in_two_buckets(world: World) -> None:
    """They are different jobs."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_SUCCESS)
    await world.get()
    call = Call("r", asyncio.get_running_loop().time() + 30)
    with pytest.raises(GatewayError):
        await world.cached(GetJob(OTHER, JOB), call)


@pytest.mark.parametrize(
    ("age", "answer"), [(30.0, "stale"), (60.9, "stale"), (61.0, None)], ids=["young", "almost too old", "too old"]
)
async def test_cloud_fails_and_a_copy_exists(world: World, age: float, answer: str | None) -> None:
    """A copy stands in until it is too old; then the error is the answer."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    await world.get()
    world.clock.time += age
    world.cloud.failures = [UNAVAILABLE]
    if answer:
        assert await world.get() == answer
    else:
        with pytest.raises(GatewayError):
            await world.get()


@pytest.mark.parametrize("no_cache", [True, False], ids=["no-cache", "definite error"])
async def test_cloud_fails_and_the_copy_is_no_answer(world: World, *, no_cache: bool) -> None:
    """Who asked for the cloud's word gets its error, and definite errors are always told."""
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    await world.get()
    world.clock.time += 2
    denied = UpstreamError(reasons.ERROR_REASON_UPSTREAM_ACCESS_DENIED, "no")
    world.cloud.failures = [UNAVAILABLE if no_cache else denied]
    with pytest.raises(GatewayError):
        await world.get(no_cache=no_cache)


async def test_a_list_is_cached_for_a_moment_and_by_its_filters(world: World) -> None:
    """They live for a moment; other filters are another list."""
    assert [await world.list(), await world.list()] == ["miss", "hit"]
    assert await world.list(include_pages=True) == "miss"
    assert await world.list(no_cache=True) == "miss"
    world.clock.time += 1
    assert await world.list() == "miss"


async def test_list_after_a_create(world: World) -> None:
    """A create drops the bucket's lists, also when its outcome is unknown."""
    await world.list()
    await world.create()
    assert await world.list() == "miss"
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "?")]
    with pytest.raises(GatewayError):
        await world.create()
    assert await world.list() == "miss"


async def test_list_that_a_create_overtakes(world: World) -> None:
    """A list that was read before the create is not kept after it."""
    gate = world.cloud.gate = asyncio.Event()
    slow = asyncio.create_task(world.list())
    await world.cloud.looked.wait()
    world.cloud.gate = None
    await world.create()
    gate.set()
    assert await slow == "miss"
    assert await world.list() == "miss"


async def test_a_created_job_is_cached_at_once(world: World) -> None:
    """It is known at once."""
    job = await world.create()
    assert await world.get(job.job_id) == "hit"


async def test_queues_are_never_cached(world: World) -> None:
    """They are never kept."""
    query = ListQueues(ListPreviewQueuesRequest(bucket=BUCKET.name), BUCKET, 10, 1)
    for _ in range(2):
        await world.cached(query, Call("r", asyncio.get_running_loop().time() + 30))
    assert len(world.cloud.asked) == 2


async def test_two_replicas_with_a_shared_cache() -> None:
    """What one has read the other need not; what changes is taken from whoever read it last."""
    world = World(shared=FakeSharedCache())
    other = world.replica()
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    assert [await world.get(), await world.get(replica=other)] == ["miss", "hit"]
    world.clock.time += 1
    assert [await world.get(replica=other), await world.get(), await world.get()] == ["miss", "hit", "hit"]


async def test_slow_shared_cache() -> None:
    """What a read has waited for it is told when the job is to be kept there: all of it has one time limit."""
    shared = SlowSharedCache()
    world = World(shared=shared)
    world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    await world.get()
    assert shared.spent == pytest.approx(shared.seconds, abs=shared.seconds / 2)
    await world.get(no_cache=True)
    assert shared.spent == 0.0


async def test_garbage_in_the_shared_cache() -> None:
    """Values of other versions, other keys or no sense at all are misses."""
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
        """The id of the job that is answered without waiting, and the `x-cache` that the caller sees."""
        call = Call("r", 30.0, no_cache=no_cache)
        job = world.cached.cached_get(BUCKET, JOB, call)
        return (None if job is None else PreviewJob.FromString(job).job_id), call.response.cache

    async def test_a_fresh_cached_job_is_a_hit_without_a_cloud_call(self, world: World) -> None:
        """Answered as a hit, and counted as one; the cloud is not asked again."""
        world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
        await world.get()
        asked = list(world.cloud.asked)
        assert self.cached_get(world) == (JOB, "hit")
        assert world.telemetry.lookups[-1] == ("memory", "hit")
        assert world.cloud.asked == asked

    async def test_job_that_is_no_longer_fresh(self, world: World) -> None:
        """Left to `get`, which counts the miss."""
        world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
        await world.get()
        world.clock.time += 1
        counted = list(world.telemetry.lookups)
        assert self.cached_get(world) == (None, "")
        assert world.telemetry.lookups == counted

    async def test_a_no_cache_read_is_left_to_get(self, world: World) -> None:
        """A caller that wants the cloud's word gets it from `get`."""
        world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
        await world.get()
        assert self.cached_get(world, no_cache=True) == (None, "")

    async def test_no_room_at_the_cloud(self) -> None:
        """A job that is in memory is answered, fresh or by `get`; for another one the caller is turned away at once."""
        world = World()
        world.cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
        await world.get()
        world.room = False
        assert self.cached_get(world) == (JOB, "hit")
        world.clock.time += 1
        assert self.cached_get(world) == (None, "")
        with pytest.raises(UpstreamError, match="no room"):
            world.cached.cached_get(BUCKET, "d" + "9" * 32, Call("r", 30.0))

    async def test_job_that_is_missing(self, world: World) -> None:
        """Left to `get`, which knows the words."""
        with pytest.raises(UpstreamError):
            await world.get("d" + "9" * 32)
        assert world.cached.cached_get(BUCKET, "d" + "9" * 32, Call("r", 30.0)) is None
