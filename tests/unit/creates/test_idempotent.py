"""Creates with `request_id`: one job per id, whatever breaks between the stages."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.creates.idempotent import IdempotentCreates
from docpreview_gateway.creates.ports import LedgerError
from docpreview_gateway.creates.records import Stage, Timing
from docpreview_gateway.creates.sqlite_ledger import SqliteLedger
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import ANONYMOUS, Caller
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.upstream.operations import CreateJob, JobPage, ListJobs
from docpreview_gateway.upstream.wire.user_data import TOKEN_PLACEHOLDER
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.creates.records import Record


BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
TIMING = Timing(signature=45, fence_slack=60, visibility=15, lease=30, keep=86400)
LOST = UpstreamError(reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "lost")


class BreakableLedger(SqliteLedger):
    """A ledger that fails from a named step on."""

    broken: frozenset[str] = frozenset()

    async def begin(self, record: Record, now: float) -> Record:
        self._check("begin")
        return await super().begin(record, now)

    async def replace(self, old: Record, new: Record) -> bool:
        self._check(new.stage)
        return await super().replace(old, new)

    async def open(self, now: float) -> list[Record]:
        self._check("open")
        return await super().open(now)

    def _check(self, step: str) -> None:
        if step in self.broken:
            raise LedgerError(f"{step} is broken")


class LossyUpstream(FakeUpstream):
    """A cloud that can accept a create and lose the reply, hide new jobs from lists, and fail to list."""

    def __init__(self) -> None:
        super().__init__()
        self.lose_replies = 0
        self.keep_user_data = True
        self.hide_new_jobs = False
        self.list_failures: list[Exception] = []
        self.creates: list[CreateJob] = []
        self.calls: list[Call] = []
        self._hidden: set[str] = set()

    async def create(self, operation: CreateJob, call: Call) -> PreviewJob:
        self.creates.append(operation)
        self.calls.append(call)
        job = await super().create(operation, call)
        if not self.keep_user_data:
            job.user_data = ""
        if self.hide_new_jobs:
            self._hidden.add(job.job_id)
        if self.lose_replies:
            self.lose_replies -= 1
            raise LOST
        return job

    async def list_jobs(self, query: ListJobs, call: Call) -> JobPage:
        self.calls.append(call)
        page = await super().list_jobs(query, call)
        if self.list_failures:
            raise self.list_failures.pop()
        hidden = self._hidden if self.hide_new_jobs else set()
        shown = [(job, marker) for job, marker in zip(page.jobs, page.markers, strict=True) if job.job_id not in hidden]
        return JobPage(tuple(job for job, _ in shown), page.cursor, tuple(marker for _, marker in shown))


@dataclass
class World:
    """One or more gateway processes that share a ledger, before one cloud."""

    ledger: BreakableLedger
    cloud: LossyUpstream = field(default_factory=LossyUpstream)
    clock: FakeClock = field(default_factory=FakeClock)
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)

    def __post_init__(self) -> None:
        self.cloud.objects = {(BUCKET.name, "a.pdf"), (BUCKET.name, "b.pdf")}
        self.clock.time = 1_700_000_000.0
        self.gateway = self.process("one")

    def process(self, owner: str) -> IdempotentCreates:
        return IdempotentCreates(
            self.cloud,
            BucketRegistry([BUCKET]),
            self.ledger,
            clock=self.clock,
            telemetry=self.telemetry,
            timing=TIMING,
            owner=owner,
        )

    async def create(self, request: CreatePreviewJobRequest, gateway: IdempotentCreates | None = None) -> PreviewJob:
        deadline = asyncio.get_running_loop().time() + 30
        return await (gateway or self.gateway).create(request, Call("r", deadline))

    @property
    def posts(self) -> int:
        return sum(operation == "create" for operation, _ in self.cloud.asked)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with BreakableLedger(tmp_path / "ledger.db") as ledger:
        yield World(ledger)


def request(request_id: str = "", **fields: object) -> CreatePreviewJobRequest:
    values: dict[str, object] = {
        "bucket": BUCKET.name,
        "input_object": "a.pdf",
        "output": ObjectLocation(object="out/p-${Page}.jpg"),
        "request_id": request_id or str(uuid.uuid4()),
    }
    return CreatePreviewJobRequest(**(values | fields))  # type: ignore[arg-type]


def reason_of(caught: pytest.ExceptionInfo[GatewayError]) -> int:
    return caught.value.reason


async def test_same_id_and_request(world: World) -> None:
    """The first job is returned, and the cloud was asked once."""
    asked = request()
    first = await world.create(asked)
    assert (await world.create(asked)).job_id == first.job_id
    assert (await world.create(asked, world.process("two"))).job_id == first.job_id
    assert world.posts == 1


async def test_same_id_and_another_request(world: World) -> None:
    """ALREADY_EXISTS, and no second job; the password counts as part of the request."""
    asked = request()
    await world.create(asked)
    for other in (
        request(asked.request_id, input_object="b.pdf"),
        request(asked.request_id, options=PreviewOptions(password="x")),
    ):
        with pytest.raises(GatewayError) as caught:
            await world.create(other)
        assert reason_of(caught) == reasons.ERROR_REASON_REQUEST_ID_REUSED
    assert world.posts == 1


async def test_every_create_without_a_request_id_is_a_job_of_its_own(world: World) -> None:
    """Every create is a job of its own, and nothing is recorded."""
    asked = request()
    asked.request_id = ""
    first, second = await world.create(asked), await world.create(asked)
    assert first.job_id != second.job_id


async def test_duplicates_in_flight(world: World) -> None:
    """They join the first; one with another body is refused at once."""
    gate = world.cloud.gate = asyncio.Event()
    asked = request()
    creates = [asyncio.create_task(world.create(asked)) for _ in range(5)]
    await world.cloud.looked.wait()
    with pytest.raises(GatewayError) as caught:
        await world.create(request(asked.request_id, input_object="b.pdf"))
    assert reason_of(caught) == reasons.ERROR_REASON_REQUEST_ID_REUSED
    gate.set()
    jobs = await asyncio.gather(*creates)
    assert len({job.job_id for job in jobs}) == 1
    assert world.posts == 1


async def test_caller_that_leaves_while_the_create_is_under_way(world: World) -> None:
    """The create goes on, and the same id finds its job."""
    gate = world.cloud.gate = asyncio.Event()
    asked = request()
    leaver = asyncio.create_task(world.create(asked))
    await world.cloud.looked.wait()
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    gate.set()
    await world.gateway.drained()
    assert (await world.create(asked)).job_id
    assert world.posts == 1


async def test_create_that_takes_longer_than_the_caller_waits(world: World) -> None:
    """The caller is told in time that it goes on, and the same id gets the job."""
    gate = world.cloud.gate = asyncio.Event()
    asked = request()
    with pytest.raises(GatewayError) as caught:
        await world.gateway.create(asked, Call("r", asyncio.get_running_loop().time() + 0.2))
    assert reason_of(caught) == reasons.ERROR_REASON_CREATE_IN_PROGRESS
    gate.set()
    assert (await world.create(asked)).job_id
    assert world.posts == 1


async def test_refused_by_the_cloud(world: World) -> None:
    """The error is told, and the same id may be tried again."""
    world.cloud.failures = [UpstreamError(reasons.ERROR_REASON_UPSTREAM_THROTTLED, "slow down", retry_after=1)]
    asked = request()
    with pytest.raises(GatewayError) as caught:
        await world.create(asked)
    assert reason_of(caught) == reasons.ERROR_REASON_UPSTREAM_THROTTLED
    assert (await world.create(asked)).job_id
    assert world.posts == 2


async def test_a_job_whose_reply_was_lost_is_found_by_its_marker(world: World) -> None:
    """The job is found by its marker in the same call, and the caller sees nothing of the trouble."""
    world.cloud.lose_replies = 1
    asked = request(user_data="mine")
    job = await world.create(asked)
    assert job.job_id in {found.job_id for found in world.cloud.jobs.values()}
    assert (await world.create(asked)).job_id == job.job_id
    assert world.posts == 1


async def test_reconciliation_reads_as_the_gateway_and_the_create_as_its_caller(world: World) -> None:
    """Reads that nobody asked for are not counted as somebody's, and a request_id is not the id of a call."""
    world.cloud.lose_replies = 1
    call = Call("call-1", asyncio.get_running_loop().time() + 30, Caller("shop"))
    await world.gateway.create(request(), call)
    assert [(asked.caller.name, asked.request_id) for asked in world.cloud.calls] == [
        ("shop", "call-1"),
        ("gateway", ""),
    ]


async def test_a_lost_reply_without_user_data_is_found_by_its_output_path(world: World) -> None:
    """The marker in the output path proves whose job it is."""
    world.cloud.lose_replies = 1
    world.cloud.keep_user_data = False
    asked = request(output=ObjectLocation(object=f"out/{TOKEN_PLACEHOLDER}/p-${{Page}}.jpg"))
    job = await world.create(asked)
    assert TOKEN_PLACEHOLDER not in job.output.object
    assert world.posts == 1


async def test_lost_reply_without_any_marker(world: World) -> None:
    """Input and output tell, as long as no other create of the same target is open."""
    world.cloud.lose_replies = 1
    world.cloud.keep_user_data = False
    assert (await world.create(request())).job_id
    assert world.posts == 1


async def test_two_lost_replies_of_one_target_without_any_marker(world: World) -> None:
    """Nobody can tell which job is whose, so the outcome stays unknown rather than wrong."""
    world.cloud.keep_user_data = False
    world.cloud.lose_replies = 2
    results = await asyncio.gather(world.create(request()), world.create(request()), return_exceptions=True)
    unknown = [result for result in results if isinstance(result, GatewayError)]
    assert unknown
    assert {error.reason for error in unknown} == {reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN}
    assert world.posts == 2


async def test_lost_reply_and_a_job_that_lists_do_not_show_yet(world: World) -> None:
    """The outcome is unknown until the job shows; then the same id gets it, and the cloud was asked once."""
    asked = request()
    world.cloud.lose_replies = 1
    world.cloud.hide_new_jobs = True
    with pytest.raises(GatewayError) as caught:
        await world.create(asked)
    assert reason_of(caught) == reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
    assert caught.value.retry_after == pytest.approx(120, abs=1)
    world.cloud.hide_new_jobs = False
    (job,) = world.cloud.jobs.values()
    assert (await world.create(asked)).job_id == job.job_id
    assert world.posts == 1


async def test_create_that_never_arrived(world: World) -> None:
    """Before the fence nothing is sent again; after it the job certainly does not exist and the same id makes one."""
    asked = request()
    world.cloud.failures = [LOST]
    for wait in (0.0, 60.0, 59.0):
        world.clock.time += wait
        with pytest.raises(GatewayError) as caught:
            await world.create(asked)
        assert reason_of(caught) == reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
        assert world.posts == 1
    world.clock.time += 1.0
    assert (await world.create(asked)).job_id
    assert world.posts == 2


async def test_signature_of_a_recorded_create(world: World) -> None:
    """It ends soon, before the fence: no late copy of the request can be accepted after it."""
    await world.create(request())
    assert world.cloud.creates[0].sign_until == world.clock.time + TIMING.signature


@pytest.mark.parametrize("stage", [Stage.INTENT, Stage.SENT])
async def test_process_that_died(world: World, stage: Stage) -> None:
    """An intent was never sent and is taken over once its lease is over; a sent create is looked for first."""
    asked = request()
    dead = world.process("dead")
    record = await dead._new_record(asked, ANONYMOUS)
    await world.ledger.begin(record, world.clock.time)
    if stage is Stage.SENT:
        await world.ledger.replace(record, record.sent(world.clock.time, TIMING))
    world.clock.time += TIMING.lease
    if stage is Stage.SENT:
        with pytest.raises(GatewayError) as caught:
            await world.create(asked)
        assert reason_of(caught) == reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
        assert world.posts == 0
        world.clock.time += 120
    assert (await world.create(asked)).job_id
    assert world.posts == 1


async def test_owner_that_lost_its_lease(world: World) -> None:
    """It must not send: another process may have."""
    asked = request()
    record = await world.gateway._new_record(asked, ANONYMOUS)
    await world.ledger.begin(record, world.clock.time)
    await world.ledger.replace(record, record.taken_over("two", world.clock.time, TIMING))
    waiting = asyncio.create_task(world.create(asked))
    await asyncio.sleep(0.3)
    assert world.posts == 0
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("step", ["begin", Stage.SENT])
async def test_ledger_that_cannot_be_written_before_sending(world: World, step: str) -> None:
    """The create fails closed: nothing is sent."""
    world.ledger.broken = frozenset({step})
    with pytest.raises(GatewayError) as caught:
        await world.create(request())
    assert reason_of(caught) == reasons.ERROR_REASON_LEDGER_UNAVAILABLE
    assert world.posts == 0


async def test_ledger_that_cannot_be_written_after_sending(world: World) -> None:
    """The caller gets the job, and the same id finds it again by a list."""
    asked = request()
    world.ledger.broken = frozenset({Stage.ACCEPTED})
    job = await world.create(asked)
    world.ledger.broken = frozenset()
    world.clock.time += TIMING.lease
    assert (await world.create(asked)).job_id == job.job_id
    assert world.posts == 1


async def test_ledger_that_breaks_when_the_reply_is_lost(world: World) -> None:
    """The outcome is unknown, and that is what the caller is told."""
    world.ledger.broken = frozenset({Stage.UNKNOWN})
    world.cloud.failures = [LOST]
    with pytest.raises(GatewayError) as caught:
        await world.create(request())
    assert reason_of(caught) == reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN


async def test_begin_whose_answer_was_lost(world: World) -> None:
    """The record that it left behind is this process's own, so the same id goes on without waiting for a lease."""
    asked = request()
    left = await world.gateway._new_record(asked, ANONYMOUS)
    await world.ledger.begin(left, world.clock.time)
    world.clock.time += 1
    async with asyncio.timeout(1):
        assert (await world.create(asked)).job_id
    assert world.posts == 1


async def test_ledger_that_cannot_be_read_in_the_background(world: World) -> None:
    """The round ends without a word but a log line; the next one may go better."""
    world.ledger.broken = frozenset({"open"})
    await world.gateway.reconcile()
    assert world.telemetry.unsettled_creates == []


async def test_list_fails_while_an_outcome_is_unknown(world: World) -> None:
    """It stays unknown, and the next call looks again."""
    asked = request()
    world.cloud.lose_replies = 1
    world.cloud.list_failures = [UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down")]
    with pytest.raises(GatewayError) as caught:
        await world.create(asked)
    assert reason_of(caught) == reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
    assert (await world.create(asked)).job_id
    assert world.posts == 1


async def test_nobody_comes_back_for_an_unknown_create(world: World) -> None:
    """The background round finds its job, or forgets it once there certainly is none."""
    asked, gone = request(), request()
    for each in (asked, gone):
        dead = await world.process("dead")._new_record(each, ANONYMOUS)
        await world.ledger.begin(dead, world.clock.time)
        await world.ledger.replace(dead, dead.sent(world.clock.time, TIMING))
        if each is asked:
            made = world.cloud.add_job(BUCKET.name, "d1", PreviewJob.STATE_RUNNING)
            made.user_data = f"x {dead.marker}"
    world.clock.time += TIMING.lease
    await world.gateway.reconcile()
    assert world.telemetry.unsettled_creates == [(2, TIMING.lease)]
    assert [record.stage for record in await world.ledger.open(world.clock.time)] == [Stage.SENT]
    assert (await world.create(asked)).job_id == "d1"
    world.clock.time += 120
    await world.gateway.reconcile()
    assert await world.ledger.open(world.clock.time + 100) == []
    await world.gateway.reconcile()
    assert world.telemetry.unsettled_creates[-1] == (0, None)
    assert world.posts == 0
