"""Equal reads at the same time are one request to the cloud."""

from __future__ import annotations

import asyncio

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.upstream.middleware.coalesced import Coalesced
from docpreview_gateway.upstream.operations import CreateJob, GetJob, ListJobs, ListQueues
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
JOB = "d" + "1" * 32


@pytest.fixture
def cloud() -> FakeUpstream:
    cloud = FakeUpstream()
    cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    return cloud


@pytest.fixture
def upstream(cloud: FakeUpstream) -> Coalesced:
    return Coalesced(cloud, FakeTelemetry(), longest=10.0)


def call() -> Call:
    return Call("r", asyncio.get_running_loop().time() + 30)


async def test_equal_reads_at_once(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """A hundred callers cost one request; the first is told `miss`, the others `coalesced`."""
    calls = [call() for _ in range(100)]
    jobs = await asyncio.gather(*(upstream(GetJob(BUCKET, JOB), each) for each in calls))
    assert {job.job_id for job in jobs} == {JOB}
    assert cloud.asked == [("get", JOB)]
    assert [each.response.cache for each in calls] == ["miss", *["coalesced"] * 99]
    assert {each.response.upstream_request_id for each in calls} == {"upstream-1"}


async def test_reads_one_after_the_other(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """Only what is under way is shared: a later read asks again."""
    await upstream(GetJob(BUCKET, JOB), call())
    await upstream(GetJob(BUCKET, JOB), call())
    assert len(cloud.asked) == 2


async def test_a_caller_gives_up(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """The others still get their answer, also when the one that began the read leaves."""
    cloud.gate = asyncio.Event()
    first, second = (asyncio.create_task(upstream(GetJob(BUCKET, JOB), call())) for _ in range(2))
    await cloud.looked.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    cloud.gate.set()
    assert (await second).job_id == JOB
    assert cloud.cancelled == 0


async def test_the_last_caller_gives_up(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """Then the request ends too, and a later caller starts a new one instead of joining the cancelled."""
    cloud.gate = asyncio.Event()
    callers = [asyncio.create_task(upstream(GetJob(BUCKET, JOB), call())) for _ in range(3)]
    await cloud.looked.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    later = asyncio.create_task(upstream(GetJob(BUCKET, JOB), call()))
    cloud.gate.set()
    assert (await later).job_id == JOB
    assert cloud.cancelled == 1
    assert len(cloud.asked) == 2


async def test_a_shared_read_fails(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """Every caller gets the error."""
    callers = [upstream(GetJob(BUCKET, "dmissing"), call()) for _ in range(3)]
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(error, GatewayError) for error in errors)
    assert len(cloud.asked) == 1


async def test_lists_and_queues(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """Equal lists are shared, different ones are not."""
    plain = ListJobs(ListPreviewJobsRequest(bucket=BUCKET.name), BUCKET, 10, "")
    pages = ListJobs(ListPreviewJobsRequest(bucket=BUCKET.name, include_pages=True), BUCKET, 10, "")
    queues = ListQueues(ListPreviewQueuesRequest(bucket=BUCKET.name), BUCKET, 10, 1)
    await asyncio.gather(*(upstream(query, call()) for query in (plain, plain, pages)))
    await asyncio.gather(*(upstream(queues, call()) for _ in range(2)))
    assert [operation for operation, _ in cloud.asked] == ["list_jobs", "list_jobs", "list_queues"]


async def test_equal_creates_at_once(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """Creates are never joined: each is a job of its own."""
    cloud.objects.add((BUCKET.name, "a.pdf"))
    request = CreatePreviewJobRequest(bucket=BUCKET.name, input_object="a.pdf")
    made = await asyncio.gather(*(upstream(CreateJob(request, BUCKET, BUCKET), call()) for _ in range(2)))
    assert made[0].job_id != made[1].job_id


async def test_whose_read_it_is() -> None:
    """It waits as the caller that began it."""
    cloud = FakeUpstream()
    cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    upstream = Coalesced(cloud, FakeTelemetry(), longest=10.0)
    deadline = asyncio.get_running_loop().time() + 30
    await asyncio.gather(
        *(upstream(GetJob(BUCKET, JOB), Call("r", deadline, Caller(name))) for name in ("first", "next"))
    )
    assert cloud.callers == ["first"]


async def test_until_when_the_answer_is_wanted(cloud: FakeUpstream) -> None:
    """The layers below are told when the last caller stops waiting; the read's own deadline is another matter."""
    seen: list[Call] = []

    class Noting(FakeUpstream):
        async def get(self, operation: GetJob, call: Call) -> PreviewJob:
            seen.append(call)
            return await cloud.get(operation, call)

    upstream = Coalesced(Noting(), FakeTelemetry(), longest=10.0)
    cloud.gate = asyncio.Event()
    now = asyncio.get_running_loop().time()
    callers = [asyncio.create_task(upstream(GetJob(BUCKET, JOB), Call("r", now + seconds))) for seconds in (1, 5, 3)]
    await cloud.looked.wait()
    assert [one.wanted_by for one in seen] == [now + 5]
    assert seen[0].deadline == pytest.approx(now + 10, abs=0.5)
    cloud.gate.set()
    await asyncio.gather(*callers)


async def test_each_joined_read_is_reported_under_its_operation(cloud: FakeUpstream) -> None:
    """Each read that joined another is told, under its operation; the first is not."""
    upstream = Coalesced(cloud, telemetry := FakeTelemetry(), longest=10.0)
    await asyncio.gather(*(upstream(GetJob(BUCKET, JOB), call()) for _ in range(3)))
    assert telemetry.coalesced_reads == ["get", "get"]


async def test_no_room_for_another_read(cloud: FakeUpstream) -> None:
    """Who would begin one is turned away at once; who can join one that is under way is not."""

    def refuse(_bucket: str, _call: Call) -> None:
        raise GatewayError(reasons.ERROR_REASON_OVERLOADED, "no room")

    upstream = Coalesced(cloud, FakeTelemetry(), longest=10.0, shed_if_late=refuse)
    with pytest.raises(GatewayError, match="no room"):
        upstream.check_admission(BUCKET, JOB, call())
    cloud.gate = asyncio.Event()
    reading = asyncio.create_task(upstream(GetJob(BUCKET, JOB), call()))
    await asyncio.sleep(0)
    upstream.check_admission(BUCKET, JOB, call())
    cloud.gate.set()
    await reading
