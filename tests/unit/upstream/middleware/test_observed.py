"""Metrics of attempts and of ended jobs: each is recorded once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import JobFailure, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import ReplyTooLarge, UpstreamError
from docpreview_gateway.upstream.job_ends import JobEnds
from docpreview_gateway.upstream.middleware.observed import measured, observed
from docpreview_gateway.upstream.operations import CreateJob, GetJob, ListJobs, ListQueues, Upstream
from docpreview_gateway.upstream.ports import Attempt, JobPages
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing", "main")
CALL = Call("r1", float("inf"))


def _create(upstream: Upstream) -> Awaitable[object]:
    return upstream(CreateJob(CreatePreviewJobRequest(input_object="a.pdf"), BUCKET, BUCKET), CALL)


def _get(upstream: Upstream) -> Awaitable[object]:
    return upstream(GetJob(BUCKET, "d1"), CALL)


def _list_jobs(upstream: Upstream) -> Awaitable[object]:
    return upstream(ListJobs(ListPreviewJobsRequest(), BUCKET, 10, ""), CALL)


def _list_queues(upstream: Upstream) -> Awaitable[object]:
    return upstream(ListQueues(ListPreviewQueuesRequest(), BUCKET, 10, 1), CALL)


ASKS: dict[str, Callable[[Upstream], Awaitable[object]]] = {
    "create": _create,
    "get": _get,
    "list_jobs": _list_jobs,
    "list_queues": _list_queues,
}


@pytest.fixture
def cloud() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.objects.add((BUCKET.name, "a.pdf"))
    upstream.add_job(BUCKET.name, "d1", PreviewJob.STATE_RUNNING)
    return upstream


def watched(cloud: FakeUpstream, telemetry: FakeTelemetry) -> Upstream:
    return observed(cloud, telemetry, JobEnds(telemetry))


@pytest.mark.parametrize("operation", ASKS)
async def test_a_success_is_recorded_as_ok(cloud: FakeUpstream, operation: str) -> None:
    """OK under the operation's name, with the result unchanged."""
    telemetry = FakeTelemetry()
    assert await ASKS[operation](watched(cloud, telemetry))
    assert telemetry.attempts == [(operation, "OK")]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UpstreamError(r.ERROR_REASON_UPSTREAM_THROTTLED, "slow down"), "UPSTREAM_THROTTLED"),
        (ReplyTooLarge(), "UPSTREAM_BAD_RESPONSE"),
        (KeyError("a bug"), "INTERNAL"),
    ],
)
@pytest.mark.parametrize("operation", ASKS)
async def test_a_failure_is_recorded_with_its_reason(
    cloud: FakeUpstream, operation: str, error: Exception, outcome: str
) -> None:
    """The same error is raised; an unexpected exception is INTERNAL."""
    telemetry = FakeTelemetry()
    cloud.failures.append(error)
    with pytest.raises(type(error)) as caught:
        await ASKS[operation](watched(cloud, telemetry))
    assert caught.value is error
    assert telemetry.attempts == [(operation, outcome)]


async def test_a_call_that_is_cancelled_at_once_is_not_recorded(cloud: FakeUpstream) -> None:
    """It has no outcome."""
    telemetry = FakeTelemetry()
    cloud.gate = asyncio.Event()
    task = asyncio.ensure_future(_get(watched(cloud, telemetry)))
    await cloud.called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert telemetry.attempts == []


async def test_work_that_is_cancelled_after_its_callers_have_waited_for_long_counts_as_a_timeout() -> None:
    """Callers leave before the attempt's own timeout: a cloud that hangs would have no failures."""
    telemetry = FakeTelemetry()
    with (
        pytest.raises(asyncio.CancelledError),
        measured(Attempt(BUCKET.name, "get", None), telemetry, unanswered=0.0),
    ):
        raise asyncio.CancelledError
    assert telemetry.attempts == [("get", "UPSTREAM_TIMEOUT")]


def job(state: PreviewJob.State.ValueType, job_id: str = "d1", *, seconds: int | None = None) -> PreviewJob:
    """A job; with `seconds`, one that took that long."""
    found = PreviewJob(bucket=BUCKET.name, job_id=job_id, state=state)
    if seconds is not None:
        found.create_time.seconds, found.end_time.seconds = 1000, 1000 + seconds
        found.result.succeeded_page_count, found.result.failed_page_count = 7, 2
    return found


class FailedJobsList:
    """The port `FailedJobs`."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, str, str, str]] = []

    def job_failed(self, bucket: str, job_id: str, caller: str, reason: str) -> None:
        self.jobs.append((bucket, job_id, caller, reason))


class TestJobsThatEnd:
    def test_an_ended_job_is_reported_once_with_its_time_and_pages(self) -> None:
        """The duration is by the cloud's clock. Later reads of the job report nothing."""
        ends = JobEnds(telemetry := FakeTelemetry())
        for state in (PreviewJob.STATE_SUBMITTED, PreviewJob.STATE_RUNNING):
            ends.saw(job(state))
        assert telemetry.ended_jobs == []
        for _ in range(3):
            ends.saw(job(PreviewJob.STATE_SUCCESS, seconds=12))
        assert telemetry.ended_jobs == [("SUCCESS", 12.0, JobPages(7, 2))]

    def test_an_ended_job_without_times_is_counted_without_a_duration(self) -> None:
        """The cloud sent no times."""
        ends = JobEnds(telemetry := FakeTelemetry())
        ends.saw(job(PreviewJob.STATE_RUNNING))
        ends.saw(job(PreviewJob.STATE_FAILED))
        assert telemetry.ended_jobs == [("FAILED", None, JobPages(0, 0))]

    def test_a_job_that_had_ended_at_its_first_read_is_not_reported(self) -> None:
        """Another process saw it end, or none did."""
        JobEnds(telemetry := FakeTelemetry()).saw(job(PreviewJob.STATE_SUCCESS, seconds=1))
        assert telemetry.ended_jobs == []

    @pytest.mark.parametrize(
        ("failure", "reason"),
        [
            (JobFailure(code="DocEncrypted", reason=JobFailure.REASON_ENCRYPTED), "ENCRYPTED"),
            (JobFailure(code="NewCode"), "NewCode"),
            (JobFailure(), "UNSPECIFIED"),
        ],
    )
    def test_a_failed_job_is_reported_with_its_reason_and_the_caller_that_was_first_to_see_it(
        self, failure: JobFailure, reason: str
    ) -> None:
        """The caller that created it, and not the gateway that reads it for its records; each job once."""
        ends = JobEnds(FakeTelemetry(), failed := FailedJobsList())
        ends.saw(job(PreviewJob.STATE_SUBMITTED), "shop")
        ends.saw(job(PreviewJob.STATE_RUNNING), "gateway")
        for _ in range(2):
            ended = job(PreviewJob.STATE_FAILED)
            ended.failure.CopyFrom(failure)
            ends.saw(ended, "gateway")
        assert failed.jobs == [(BUCKET.name, "d1", "shop", reason)]

    def test_a_job_that_succeeded_or_was_cancelled_is_no_failed_one(self) -> None:
        ends = JobEnds(FakeTelemetry(), failed := FailedJobsList())
        for state in (PreviewJob.STATE_SUCCESS, PreviewJob.STATE_CANCELLED):
            ends.saw(job(PreviewJob.STATE_RUNNING), "shop")
            ends.saw(job(state), "shop")
        assert failed.jobs == []

    def test_the_oldest_unfinished_jobs_are_dropped(self) -> None:
        """The number of tracked jobs is bounded."""
        ends = JobEnds(telemetry := FakeTelemetry(), most=2)
        for name in ("d1", "d2", "d3"):
            ends.saw(job(PreviewJob.STATE_RUNNING, name))
        for name in ("d1", "d2", "d3"):
            ends.saw(job(PreviewJob.STATE_SUCCESS, name, seconds=1))
        assert len(telemetry.ended_jobs) == 2

    async def test_creates_gets_and_lists_are_observed(self, cloud: FakeUpstream) -> None:
        """A create starts tracking; a get or a list reports the end."""
        upstream = watched(cloud, telemetry := FakeTelemetry())
        await _get(upstream)
        cloud.jobs[(BUCKET.name, "d1")].state = PreviewJob.STATE_SUCCESS
        await _list_jobs(upstream)
        assert [state for state, _, _ in telemetry.ended_jobs] == ["SUCCESS"]
