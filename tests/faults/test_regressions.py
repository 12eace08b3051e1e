"""Regressions that fault campaigns and their code reviews found; each failed before its fix."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from email.utils import formatdate

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.operations import CreateJob, JobPage, ListJobs
from tests.fakes.clock import FakeClock
from tests.fakes.creates import MemoryCreates
from tests.fakes.recorded import Recorded
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import EPOCH, FakeUpstream

BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing", "main")

MAY_EXIST = {reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, reasons.ERROR_REASON_CREATE_IN_PROGRESS}
"""Reasons that leave open whether there is a job."""


class LossyCloud(FakeUpstream):
    """A cloud that accepts creates and loses the reply while `loses`, and whose lists fail or hide all jobs."""

    loses = False
    hides = False
    refusal: GatewayError | None = None

    def __init__(self, times: CloudTimes) -> None:
        super().__init__()
        self.date = EPOCH
        self.times = times
        """Hears a `Date` with every list, refused ones included."""

    async def create(self, operation: CreateJob, call: Call) -> PreviewJob:
        job = await super().create(operation, call)
        if self.loses:
            raise UpstreamError(reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "the reply was lost")
        return job

    async def list_jobs(self, query: ListJobs, call: Call) -> JobPage:
        self.times.hear(BUCKET.ci_host, formatdate(self.date, usegmt=True))
        if self.refusal is not None:
            raise self.refusal
        return JobPage((), "") if self.hides else await super().list_jobs(query, call)


@dataclass
class World:
    """A create whose job exists, whose reply was lost, and that no list shows yet."""

    cloud: LossyCloud
    store: MemoryCreates
    recorded: Recorded
    request: CreatePreviewJobRequest

    async def repeat(self) -> PreviewJob:
        deadline = asyncio.get_running_loop().time() + 0.5
        return await self.recorded.creates.create(self.request, Call("r", deadline))

    async def reason(self) -> int:
        with pytest.raises(GatewayError) as caught:
            await self.repeat()
        return caught.value.reason


@pytest.fixture
async def world() -> World:
    times, store, telemetry = CloudTimes(FakeClock()), MemoryCreates(), FakeTelemetry()
    cloud = LossyCloud(times)
    cloud.objects.add((BUCKET.name, "a.pdf"))
    recorded = Recorded(cloud, BucketRegistry([BUCKET]), times, telemetry, store=store)
    output = ObjectLocation(object="out/p-${Page}.jpg")
    request = CreatePreviewJobRequest(
        bucket=BUCKET.name, input_object="a.pdf", output=output, request_id=str(uuid.uuid4())
    )
    world = World(cloud, store, recorded, request)
    cloud.loses = cloud.hides = True
    assert await world.reason() == reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN
    # So much later that it is not likely to be just being sent.
    cloud.date += 15
    times.hear(BUCKET.ci_host, formatdate(cloud.date, usegmt=True))
    return world


@pytest.mark.parametrize("refusal", ["UPSTREAM_THROTTLED", "UPSTREAM_ACCESS_DENIED", "CLOCK_SKEW"])
async def test_a_list_refused_while_an_outcome_is_unknown_leaves_it_open(world: World, refusal: str) -> None:
    """Its own reason would promise that there is no job. Once lists work again the job is found."""
    world.cloud.refusal = UpstreamError(reasons.ErrorReason.Value(f"ERROR_REASON_{refusal}"), "no")
    assert await world.reason() in MAY_EXIST
    world.cloud.refusal, world.cloud.hides = None, False
    (job,) = world.cloud.jobs.values()
    assert (await world.repeat()).job_id == job.job_id


@pytest.mark.parametrize("step", ["find", "change"])
async def test_a_store_that_fails_while_an_outcome_is_unknown_leaves_it_open(world: World, step: str) -> None:
    """INTERNAL would promise that there is no job."""
    world.store.failing, world.store.fail_before = {step}, 10
    assert await world.reason() in MAY_EXIST
    assert len(world.cloud.jobs) == 1


async def test_a_job_found_while_the_store_fails_is_told_all_the_same(world: World) -> None:
    """It is found again by the next look."""
    world.cloud.hides = False
    world.store.failing, world.store.fail_before = {"change"}, 10
    (job,) = world.cloud.jobs.values()
    assert (await world.repeat()).job_id == job.job_id


async def test_an_id_of_an_earlier_process_is_not_answered_with_the_refusal_of_the_first_list(world: World) -> None:
    """A new process asks for the cloud's time before anything else; that list's refusal is not the create's."""
    times = CloudTimes(FakeClock())
    cloud = LossyCloud(times)
    cloud.jobs = world.cloud.jobs
    cloud.refusal = UpstreamError(reasons.ERROR_REASON_UPSTREAM_THROTTLED, "slow down")
    recorded = Recorded(cloud, BucketRegistry([BUCKET]), times, FakeTelemetry(), store=world.store)
    assert await World(cloud, world.store, recorded, world.request).reason() in MAY_EXIST
