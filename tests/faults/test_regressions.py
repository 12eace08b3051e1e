"""Regressions that fault campaigns and their code reviews found; each failed before its fix."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.ports import LedgerError
from docpreview_gateway.creates.reconciliation import Reconciliation
from docpreview_gateway.creates.records import Timing
from docpreview_gateway.model.callers import ANONYMOUS
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.upstream.operations import JobPage, ListJobs
from tests.unit.creates.test_idempotent import BUCKET, LOST, BreakableLedger, LossyUpstream, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.model.call import Call


class LedgerWithFailingLookups(BreakableLedger):
    """A ledger whose look-ups of other open creates fail while `failing`."""

    failing = False

    async def others_open(self, record: Record) -> bool:
        if self.failing:
            raise LedgerError("disk I/O error")
        return await super().others_open(record)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with LedgerWithFailingLookups(tmp_path / "ledger.db") as ledger:
        yield World(ledger)


def request() -> CreatePreviewJobRequest:
    output = ObjectLocation(object="out/p-${Page}.jpg")
    return CreatePreviewJobRequest(
        bucket=BUCKET.name, input_object="a.pdf", output=output, request_id=str(uuid.uuid4())
    )


async def lost(world: World) -> CreatePreviewJobRequest:
    """A create whose job exists, whose reply was lost, and that no list shows yet."""
    asked = request()
    world.cloud.lose_replies = 1
    world.cloud.hide_new_jobs = True
    with pytest.raises(GatewayError):
        await world.create(asked)
    return asked


async def test_a_list_refused_while_an_outcome_is_unknown_answers_outcome_unknown(world: World) -> None:
    """UPSTREAM_THROTTLED would promise that there is no job."""
    asked = await lost(world)
    world.cloud.list_failures = [UpstreamError(reasons.ERROR_REASON_UPSTREAM_THROTTLED, "slow down", retry_after=1)]
    with pytest.raises(GatewayError) as caught:
        await world.create(asked)
    assert caught.value.reason == reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN


async def test_a_ledger_that_fails_while_an_outcome_is_unknown_answers_outcome_unknown(world: World) -> None:
    """INTERNAL would promise that there is no job."""
    asked = await lost(world)
    assert isinstance(world.ledger, LedgerWithFailingLookups)
    world.ledger.failing = True
    with pytest.raises(GatewayError) as caught:
        await world.create(asked)
    assert caught.value.reason == reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN


class ListsByTime(LossyUpstream):
    """An upstream whose lists respect the time window of the query."""

    async def list_jobs(self, query: ListJobs, call: Call) -> JobPage:
        page = await super().list_jobs(query, call)
        begin, end = query.request.created_after.seconds, query.request.created_before.seconds
        pairs = zip(page.jobs, page.markers, strict=True)
        shown = [(job, marker) for job, marker in pairs if begin <= job.create_time.seconds <= end]
        return JobPage(tuple(job for job, _ in shown), page.cursor, tuple(marker for _, marker in shown))


@pytest.mark.parametrize("ahead", [-900, 900])
async def test_a_list_for_a_lost_job_reaches_as_far_as_the_clocks_may_differ(tmp_path: Path, ahead: int) -> None:
    """A shorter window would miss the job, and a second one would be created."""
    timing = Timing(fence_slack=900)
    async with BreakableLedger(tmp_path / "ledger.db") as ledger:
        world = World(ledger, cloud=ListsByTime())
        dead = await world.process("dead")._new_record(request(), ANONYMOUS)
        await ledger.begin(dead, world.clock.time)
        sent = dead.sent(world.clock.time, timing)
        await ledger.replace(dead, sent)
        made = world.cloud.add_job(BUCKET.name, "d1", PreviewJob.STATE_RUNNING)
        made.user_data = dead.marker
        made.create_time.seconds = int(sent.sent_at) + ahead
        world.clock.time += timing.signature + timing.fence_slack + timing.visibility
        mine = sent.taken_over("one", world.clock.time, timing)
        await ledger.replace(sent, mine)
        reconciliation = Reconciliation(
            world.cloud, ledger, clock=world.clock, telemetry=world.telemetry, timing=timing
        )
        found = await reconciliation.find_outcome(mine, BUCKET)
        assert isinstance(found, PreviewJob)
        assert found.job_id == made.job_id


async def test_a_lost_job_is_found_once_lists_work_again_after_any_refusal(world: World) -> None:
    """Access denied and clock skew leave the outcome unknown as well."""
    asked = await lost(world)
    for reason in (reasons.ERROR_REASON_UPSTREAM_ACCESS_DENIED, reasons.ERROR_REASON_CLOCK_SKEW):
        world.cloud.list_failures = [UpstreamError(reason, "no")]
        with pytest.raises(GatewayError) as caught:
            await world.create(asked)
        assert caught.value.reason == LOST.reason
    world.cloud.hide_new_jobs = False
    (job,) = world.cloud.jobs.values()
    assert (await world.create(asked)).job_id == job.job_id
