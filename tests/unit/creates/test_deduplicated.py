"""Deduplication: which jobs are reused, which are not, and that no failure of a lookup fails a create."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.creates.deduplicated import DeduplicatedCreates
from docpreview_gateway.creates.idempotent import IdempotentCreates
from docpreview_gateway.creates.ports import LedgerError
from docpreview_gateway.creates.records import Timing
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import FakeLedger
from tests.fakes.tags import FakeTags
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream
from tests.unit.conftest import BUCKET

if TYPE_CHECKING:
    from docpreview_gateway.creates.records import Record

ONE, PLAIN = Caller("one", dedupe_seconds=60), Caller("plain")
FIRST, SECOND = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


class FailingLedger(FakeLedger):
    """A ledger that fails, or hangs, at the named steps."""

    broken: frozenset[str] = frozenset()
    hanging: frozenset[str] = frozenset()

    async def secret(self) -> bytes:
        await self._step("secret")
        return await super().secret()

    async def find(self, key: str) -> Record | None:
        await self._step("find")
        return await super().find(key)

    async def begin(self, record: Record, now: float) -> Record:
        await self._step("begin")
        return await super().begin(record, now)

    async def replace(self, old: Record, new: Record) -> bool:
        await self._step("fill" if new.job else "replace")
        return await super().replace(old, new)

    async def _step(self, name: str) -> None:
        if name in self.hanging:
            await asyncio.Event().wait()
        if name in self.broken:
            raise LedgerError(name)


@dataclass
class World:
    """Processes that share a ledger before one cloud."""

    cloud: FakeUpstream = field(default_factory=FakeUpstream)
    ledger: FailingLedger = field(default_factory=FailingLedger)
    tags: FakeTags = field(default_factory=FakeTags)
    clock: FakeClock = field(default_factory=FakeClock)
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)

    def __post_init__(self) -> None:
        self.cloud.objects = {(BUCKET.name, "a.pdf"), (BUCKET.name, "b.pdf")}
        self.gateway = self.process("one")

    def process(self, owner: str) -> DeduplicatedCreates:
        buckets, timing = BucketRegistry([BUCKET]), Timing()
        common: dict[str, Any] = {"clock": self.clock, "telemetry": self.telemetry, "timing": timing, "owner": owner}
        creating = IdempotentCreates(self.cloud, buckets, self.ledger, **common)
        return DeduplicatedCreates(creating, buckets, self.tags, upstream=self.cloud, ledger=self.ledger, **common)

    async def create(
        self,
        key: str = "a.pdf",
        *,
        request_id: str = "",
        caller: Caller = ONE,
        seconds: float = 10.0,
        no_cache: bool = False,
        gateway: DeduplicatedCreates | None = None,
    ) -> tuple[str, str]:
        """The id of the job, and `x-cache`."""
        request = CreatePreviewJobRequest(
            bucket=BUCKET.name,
            input_object=key,
            output=ObjectLocation(object="p/${Number}.jpg"),
            request_id=request_id,
        )
        call = Call("r1", time.monotonic() + seconds, caller, no_cache=no_cache)
        job = await (gateway or self.gateway).create(request, call)
        return job.job_id, call.response.cache

    @property
    def jobs(self) -> int:
        return len(self.cloud.jobs)


@pytest.fixture
def world() -> World:
    return World()


async def test_an_equal_create_gets_the_job_of_the_first_from_any_process(world: World) -> None:
    """Later creates get the job of the first, also in another process, and each is counted."""
    job, _ = await world.create()
    assert await world.create() == (job, "hit")
    assert await world.create(gateway=world.process("two")) == (job, "hit")
    assert world.telemetry.deduped_creates == ["one", "one"]
    assert world.jobs == 1


async def test_a_caller_without_deduplication_is_neither_looked_up_nor_recorded(world: World) -> None:
    """The document's tag is not read, and the ledger stays empty."""
    await world.create(caller=PLAIN)
    await world.create(caller=PLAIN)
    assert (world.jobs, world.tags.asked, world.ledger.records) == (2, [], {})


async def test_an_invalid_create_is_rejected_before_the_lookup(world: World) -> None:
    """The document's tag is not read."""
    with pytest.raises(GatewayError) as caught:
        await world.create(key="")
    assert caught.value.reason == reasons.ERROR_REASON_INVALID_REQUEST
    assert not world.tags.asked


async def test_content_that_changes_and_changes_back_makes_a_new_job_each_time(world: World) -> None:
    """Each job overwrites the pages of the one before, which is not reused."""
    for content in ("v1", "v2", "v1"):
        world.tags.value = content
        await world.create()
    assert world.jobs == 3


async def test_creates_of_a_document_without_a_tag_are_never_equal(world: World) -> None:
    """Without a tag the content is unknown, and every create makes a job."""
    world.tags.value = ""
    await world.create()
    await world.create()
    assert world.jobs == 2


async def test_a_job_is_reused_for_its_time_from_its_create(world: World) -> None:
    """Reusing the job does not prolong the time."""
    await world.create()
    world.clock.time += 40
    await world.create()
    world.clock.time += 19.9
    await world.create()
    assert world.jobs == 1
    world.clock.time += 0.1
    await world.create()
    assert world.jobs == 2


@pytest.mark.parametrize(
    ("state", "jobs"),
    [
        (PreviewJob.STATE_RUNNING, 1),
        (PreviewJob.STATE_PAUSED, 1),
        (PreviewJob.STATE_SUCCESS, 1),
        (PreviewJob.STATE_FAILED, 2),
        (PreviewJob.STATE_CANCELLED, 2),
        (PreviewJob.STATE_UNSPECIFIED, 2),
    ],
)
async def test_only_a_job_that_made_or_may_make_its_pages_is_reused(
    world: World, state: PreviewJob.State.ValueType, jobs: int
) -> None:
    """Failed, cancelled and unknown jobs are replaced by a new one."""
    job, _ = await world.create()
    world.cloud.set_state(BUCKET.name, job, state)
    await world.create()
    assert world.jobs == jobs


async def test_a_job_that_cannot_be_read_is_replaced(world: World) -> None:
    """A new job is made, and later creates get that one."""
    await world.create()
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, "gone")]
    job, _ = await world.create()
    assert (world.jobs, await world.create()) == (2, (job, "hit"))


async def test_a_no_cache_create_makes_a_new_job_that_later_creates_get(world: World) -> None:
    """`no_cache` makes a new job, and later creates get that one."""
    await world.create()
    job, cache = await world.create(no_cache=True)
    assert (world.jobs, cache, await world.create()) == (2, "miss", (job, "hit"))


async def test_a_create_that_fails_invalidates_the_record_of_its_location(world: World) -> None:
    """The caller gets the error. The results at the location may be overwritten, so their job is not reused."""
    await world.create("a.pdf")
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "lost")]
    with pytest.raises(UpstreamError, match="lost"):
        await world.create("b.pdf")
    _, cache = await world.create("a.pdf")
    assert (world.jobs, cache) == (2, "miss")


async def test_a_document_without_a_readable_tag_is_rendered_and_not_reused(world: World) -> None:
    """The create is sent and invalidates the record of its location."""
    await world.create()
    world.tags.failure = UpstreamError(reasons.ERROR_REASON_INPUT_OBJECT_UNREADABLE, "no")
    await world.create()
    world.tags.failure = None
    _, cache = await world.create()
    assert (world.jobs, cache) == (3, "miss")


async def test_a_lookup_that_hangs_takes_a_quarter_of_the_callers_time_at_most(world: World) -> None:
    """The create is sent when the lookup has used its share of the time."""
    world.tags.gate = asyncio.Event()
    begin = time.monotonic()
    await world.create(seconds=1.0)
    assert time.monotonic() - begin < 0.7


@pytest.mark.parametrize("step", ["secret", "begin", "replace", "fill"])
@pytest.mark.parametrize("how", ["broken", "hanging"])
async def test_a_failing_or_hanging_ledger_does_not_fail_creates(world: World, step: str, how: str) -> None:
    """Creates without `request_id` are sent and answered before their deadline."""
    await world.create("b.pdf")
    setattr(world.ledger, how, frozenset({step}))
    job, _ = await world.create(seconds=0.5)
    assert world.jobs == 2
    setattr(world.ledger, how, frozenset())
    again, _ = await world.create()
    assert again != job


async def test_a_new_request_id_gets_the_rendered_job_and_stays_bound_to_it(world: World) -> None:
    """The id keeps its job when the location, the document or the process changes."""
    job, _ = await world.create(request_id=FIRST)
    assert await world.create(request_id=SECOND) == (job, "hit")
    world.tags.value = "v2"
    world.clock.time += 100
    await world.create()
    assert await world.create(request_id=SECOND, gateway=world.process("two")) == (job, "hit")
    assert (await world.create(request_id=FIRST))[0] == job
    assert (await world.create(request_id=SECOND, caller=Caller("one")))[0] == job
    assert world.jobs == 2


async def test_an_id_of_another_request_is_rejected(world: World) -> None:
    """REQUEST_ID_REUSED, also when a job for the new request exists."""
    await world.create("a.pdf")
    await world.create("a.pdf", request_id=FIRST)
    with pytest.raises(GatewayError) as caught:
        await world.create("b.pdf", request_id=FIRST)
    assert caught.value.reason == reasons.ERROR_REASON_REQUEST_ID_REUSED


async def test_a_known_id_gets_its_own_job_without_a_lookup(world: World) -> None:
    """Jobs made since at the same location do not matter, and the document's tag is not read."""
    job, _ = await world.create(request_id=FIRST)
    await world.create(no_cache=True)
    asked = len(world.tags.asked)
    assert (await world.create(request_id=FIRST))[0] == job
    assert len(world.tags.asked) == asked


async def test_an_expired_id_makes_a_new_job(world: World) -> None:
    """An expired record of an id is ignored."""
    job, _ = await world.create(request_id=FIRST)
    world.clock.time += Timing().keep
    assert (await world.create(request_id=FIRST))[0] != job


async def test_a_new_id_at_two_processes_gets_one_job(world: World) -> None:
    """Concurrent creates with one id reuse the same job."""
    job, _ = await world.create()
    gateways = [world.process(name) for name in ("two", "three")]
    found = await asyncio.gather(*(world.create(request_id=FIRST, gateway=each) for each in gateways))
    assert found == [(job, "hit"), (job, "hit")]


async def test_concurrent_equal_creates_of_one_process_make_one_job(world: World) -> None:
    """The others wait for the first and get its job."""
    found = await asyncio.gather(*(world.create() for _ in range(10)))
    assert (world.jobs, len({job for job, _ in found})) == (1, 1)
    assert sorted(cache for _, cache in found) == ["hit"] * 9 + ["miss"]


async def test_creates_that_waited_for_a_failed_one_go_on(world: World) -> None:
    """The next of them is sent when the first one fails."""
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_UPSTREAM_THROTTLED, "no")]
    found = await asyncio.gather(*(world.create() for _ in range(3)), return_exceptions=True)
    assert [isinstance(each, UpstreamError) for each in found] == [True, False, False]


async def test_a_create_waits_half_of_its_time_for_a_hanging_equal_one(world: World) -> None:
    """After half of its time the waiting create is sent."""
    world.cloud.gate = asyncio.Event()
    hanging = asyncio.create_task(world.create())
    await world.cloud.called.wait()
    waiting = asyncio.create_task(world.create(seconds=0.4))
    await asyncio.sleep(0.3)
    world.cloud.gate.set()
    await asyncio.gather(hanging, waiting)
    assert world.jobs == 2


async def test_a_cancelled_create_does_not_block_the_next_equal_one(world: World) -> None:
    """The next equal create does not wait."""
    world.cloud.gate = asyncio.Event()
    leaving = asyncio.create_task(world.create())
    await world.cloud.called.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    world.cloud.gate.set()
    begin = time.monotonic()
    await world.create()
    assert time.monotonic() - begin < 1


async def test_of_concurrent_creates_in_two_processes_the_last_claim_is_recorded(world: World) -> None:
    """Both make a job, and later creates get the job of the process that claimed the location last."""
    world.cloud.gate = asyncio.Event()
    first = asyncio.create_task(world.create())
    await world.cloud.called.wait()
    second = asyncio.create_task(world.create(gateway=world.process("two")))
    while world.cloud.in_flight < 2:  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)
    world.cloud.gate.set()
    (_, _), (last, _) = await asyncio.gather(first, second)
    assert (world.jobs, await world.create()) == (2, (last, "hit"))


async def test_a_drain_waits_for_records_that_are_being_written(world: World) -> None:
    """`drained` waits for writes that are in flight."""
    world.ledger.hanging = frozenset({"fill"})
    await world.create(seconds=0.2)
    drained = asyncio.create_task(world.gateway.drained())
    await asyncio.sleep(0.01)
    assert not drained.done()
    drained.cancel()
    await asyncio.gather(drained, return_exceptions=True)
