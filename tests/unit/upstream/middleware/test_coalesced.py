"""Coalescing of equal concurrent reads."""

from __future__ import annotations

import asyncio
import gc

import pytest
import structlog

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call, SharedRead
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.model.errors import GatewayError, UpstreamError
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


async def test_equal_concurrent_reads_are_one_request(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """A hundred callers cost one request: one `miss`, the others `coalesced`."""
    calls = [call() for _ in range(100)]
    jobs = await asyncio.gather(*(upstream(GetJob(BUCKET, JOB), each) for each in calls))
    assert {job.job_id for job in jobs} == {JOB}
    assert cloud.asked == [("get", JOB)]
    assert [each.response.cache for each in calls] == ["miss", *["coalesced"] * 99]
    assert {each.response.upstream_request_id for each in calls} == {"upstream-1"}


async def test_consecutive_reads_are_not_coalesced(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """Only reads in flight are joined."""
    await upstream(GetJob(BUCKET, JOB), call())
    await upstream(GetJob(BUCKET, JOB), call())
    assert len(cloud.asked) == 2
    assert upstream._flights == {}


async def test_a_cancelled_caller_does_not_cancel_the_read_for_others(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """The others get the result, also when the caller that started the read is cancelled."""
    cloud.gate = asyncio.Event()
    first, second = (asyncio.create_task(upstream(GetJob(BUCKET, JOB), call())) for _ in range(2))
    await cloud.called.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    cloud.gate.set()
    assert (await second).job_id == JOB
    assert cloud.cancelled == 0


async def test_the_last_cancelled_caller_cancels_the_read(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """A later caller starts a new read instead of joining the cancelled one."""
    cloud.gate = asyncio.Event()
    callers = [asyncio.create_task(upstream(GetJob(BUCKET, JOB), call())) for _ in range(3)]
    await cloud.called.wait()
    for caller in callers:
        caller.cancel()
    # It begins while the read is being cancelled.
    later = asyncio.create_task(upstream(GetJob(BUCKET, JOB), call()))
    await asyncio.gather(*callers, return_exceptions=True)
    cloud.gate.set()
    assert (await later).job_id == JOB
    assert cloud.cancelled == 1
    assert len(cloud.asked) == 2


async def test_an_error_of_a_shared_read_reaches_every_caller(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """Each caller raises the same error."""
    callers = [upstream(GetJob(BUCKET, "dmissing"), call()) for _ in range(3)]
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(error, GatewayError) for error in errors)
    assert len(cloud.asked) == 1


async def test_equal_lists_are_coalesced(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """Lists with other filters are not."""
    plain = ListJobs(ListPreviewJobsRequest(bucket=BUCKET.name), BUCKET, 10, "")
    pages = ListJobs(ListPreviewJobsRequest(bucket=BUCKET.name, include_pages=True), BUCKET, 10, "")
    queues = ListQueues(ListPreviewQueuesRequest(bucket=BUCKET.name), BUCKET, 10, 1)
    await asyncio.gather(*(upstream(query, call()) for query in (plain, plain, pages)))
    await asyncio.gather(*(upstream(queues, call()) for _ in range(2)))
    assert [operation for operation, _ in cloud.asked] == ["list_jobs", "list_jobs", "list_queues"]


async def test_equal_concurrent_creates_are_not_coalesced(cloud: FakeUpstream, upstream: Coalesced) -> None:
    """Each create makes a job."""
    cloud.objects.add((BUCKET.name, "a.pdf"))
    request = CreatePreviewJobRequest(bucket=BUCKET.name, input_object="a.pdf")
    made = await asyncio.gather(*(upstream(CreateJob(request, BUCKET, BUCKET), call()) for _ in range(2)))
    assert made[0].job_id != made[1].job_id


async def test_a_shared_read_has_the_caller_that_started_it() -> None:
    """Its permits and rates are those of that caller."""
    cloud = FakeUpstream()
    cloud.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    upstream = Coalesced(cloud, FakeTelemetry(), longest=10.0)
    deadline = asyncio.get_running_loop().time() + 30
    await asyncio.gather(
        *(upstream(GetJob(BUCKET, JOB), Call("r", deadline, Caller(name))) for name in ("first", "next"))
    )
    assert cloud.callers == ["first"]


async def test_a_shared_read_is_wanted_by_the_latest_deadline(cloud: FakeUpstream) -> None:
    """`wanted_by` is the latest deadline of its callers; its own deadline is `longest`."""
    seen: list[Call] = []

    class Noting(FakeUpstream):
        async def get(self, operation: GetJob, call: Call) -> PreviewJob:
            seen.append(call)
            return await cloud.get(operation, call)

    upstream = Coalesced(Noting(), FakeTelemetry(), longest=10.0)
    cloud.gate = asyncio.Event()
    now = asyncio.get_running_loop().time()
    callers = [asyncio.create_task(upstream(GetJob(BUCKET, JOB), Call("r", now + seconds))) for seconds in (1, 5, 3)]
    await cloud.called.wait()
    assert [one.wanted_by for one in seen] == [now + 5]
    assert seen[0].deadline == pytest.approx(now + 10, abs=0.5)
    cloud.gate.set()
    await asyncio.gather(*callers)


async def test_a_read_that_fails_as_its_last_caller_is_cancelled_is_not_an_unretrieved_error() -> None:
    """Asyncio would log a traceback: callers with short deadlines are no crash."""
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    callers: list[asyncio.Task[PreviewJob]] = []

    class FailingAtThatMoment(FakeUpstream):
        async def get(self, operation: GetJob, _call: Call) -> PreviewJob:
            await asyncio.sleep(0)
            callers[0].cancel()
            raise UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, f"no job {operation.job_id}")

    upstream = Coalesced(FailingAtThatMoment(), FakeTelemetry(), longest=10.0)
    callers.append(asyncio.create_task(upstream(GetJob(BUCKET, JOB), call())))
    await asyncio.wait(callers)
    assert callers.pop().cancelled()
    gc.collect()  # asyncio complains of an error that nobody has retrieved when its task is deleted
    assert complaints == []


async def test_each_joined_read_is_reported_under_its_operation(cloud: FakeUpstream) -> None:
    """The first read is not counted."""
    upstream = Coalesced(cloud, telemetry := FakeTelemetry(), longest=10.0)
    await asyncio.gather(*(upstream(GetJob(BUCKET, JOB), call()) for _ in range(3)))
    assert telemetry.coalesced_reads == ["get", "get"]


async def test_admission_is_checked_for_new_reads_only(cloud: FakeUpstream) -> None:
    """A caller that would start a read is rejected; a caller that can join one in flight is not."""

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


@pytest.mark.parametrize(
    ("error", "lines"),
    [(UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, "no job"), 0), (RuntimeError("a bug"), 1)],
    ids=["of the cloud", "unexpected"],
)
async def test_an_unexpected_error_that_no_caller_gets_any_more_is_logged(error: Exception, lines: int) -> None:
    callers: list[asyncio.Task[PreviewJob]] = []

    class FailingAtThatMoment(FakeUpstream):
        async def get(self, _operation: GetJob, _call: Call) -> PreviewJob:
            await asyncio.sleep(0)
            callers[0].cancel()
            raise error

    upstream = Coalesced(FailingAtThatMoment(), FakeTelemetry(), longest=10.0)
    with structlog.testing.capture_logs() as logged:
        callers.append(asyncio.create_task(upstream(GetJob(BUCKET, JOB), call())))
        await asyncio.wait(callers)
        await asyncio.sleep(0)
    assert [line["event"] for line in logged] == ["unexpected error in a shared read"] * lines


async def test_a_read_that_nobody_wants_any_more_is_no_unexpected_error(
    cloud: FakeUpstream, upstream: Coalesced
) -> None:
    cloud.gate = asyncio.Event()
    with structlog.testing.capture_logs() as logged:
        caller = asyncio.create_task(upstream(GetJob(BUCKET, JOB), call()))
        await asyncio.sleep(0.01)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await asyncio.sleep(0.01)
    assert logged == []


async def test_a_no_cache_caller_that_joins_makes_the_read_one_of_the_cloud(cloud: FakeUpstream) -> None:
    """What the replicas share is beneath, and looks at the state of the read."""
    cloud.gate = asyncio.Event()
    seen: list[Call] = []

    class Noting(FakeUpstream):
        async def get(self, operation: GetJob, call: Call) -> PreviewJob:
            seen.append(call)
            return await cloud.get(operation, call)

    upstream = Coalesced(Noting(), FakeTelemetry(), longest=10.0)
    first = asyncio.create_task(upstream(GetJob(BUCKET, JOB), call()))
    await cloud.called.wait()
    (read,) = [each.shared_read for each in seen]
    assert read is not None
    assert not read.no_cache
    second = asyncio.create_task(upstream(GetJob(BUCKET, JOB), call()._replace(no_cache=True)))
    await asyncio.sleep(0)
    assert read.no_cache
    cloud.gate.set()
    await asyncio.gather(first, second)
    assert len(cloud.asked) == 1


async def test_a_read_that_has_ended_is_not_joined(cloud: FakeUpstream) -> None:
    """Its callers hear of its end a moment later; who asks in that moment may want what the cloud says now."""
    late: list[asyncio.Task[PreviewJob]] = []

    class Ending(FakeUpstream):
        async def get(self, operation: GetJob, call: Call) -> PreviewJob:
            found = await cloud.get(operation, call)
            if not late:
                late.append(asyncio.create_task(upstream(GetJob(BUCKET, JOB), call._replace(shared_read=None))))
            return found

    upstream = Coalesced(Ending(), FakeTelemetry(), longest=10.0)
    await upstream(GetJob(BUCKET, JOB), call())
    await late[0]
    assert len(cloud.asked) == 2


async def test_each_caller_gets_what_the_replicas_have_also_with_an_error() -> None:
    """A stale copy may be answered then."""

    class Sharing(FakeUpstream):
        async def get(self, operation: GetJob, call: Call) -> PreviewJob:
            assert call.shared_read is not None
            assert call.shared_read.is_new
            call.shared_read.envelope = b"stale"
            call.response.marker = "marker"
            raise UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, operation.job_id)

    upstream = Coalesced(Sharing(), FakeTelemetry(), longest=10.0)
    reads = [SharedRead(0.0, is_new=True) for _ in range(2)]
    calls = [call()._replace(shared_read=read) for read in reads]
    errors = await asyncio.gather(*(upstream(GetJob(BUCKET, JOB), each) for each in calls), return_exceptions=True)
    assert [each.response.marker for each in calls] == ["marker"] * 2
    assert [type(error) for error in errors] == [UpstreamError] * 2
    assert [read.envelope for read in reads] == [b"stale"] * 2
