"""Telemetry around an upstream: every outcome is told once, under its operation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import ReplyTooLarge, UpstreamError
from docpreview_gateway.upstream.job_ends import JobEnds
from docpreview_gateway.upstream.middleware.observed import observed
from docpreview_gateway.upstream.operations import CreateJob, GetJob, ListJobs, ListQueues, Upstream
from docpreview_gateway.upstream.ports import JobPages
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
async def test_call_that_succeeds(cloud: FakeUpstream, operation: str) -> None:
    """OK under the operation's name, and the result untouched."""
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
async def test_call_that_fails(cloud: FakeUpstream, operation: str, error: Exception, outcome: str) -> None:
    """The reason under the operation's name, and the very error raised again; a bug does not count as OK."""
    telemetry = FakeTelemetry()
    cloud.failures.append(error)
    with pytest.raises(type(error)) as caught:
        await ASKS[operation](watched(cloud, telemetry))
    assert caught.value is error
    assert telemetry.attempts == [(operation, outcome)]


async def test_call_that_is_cancelled(cloud: FakeUpstream) -> None:
    """Neither a success nor a failure of the cloud: nothing is told."""
    telemetry = FakeTelemetry()
    cloud.gate = asyncio.Event()
    task = asyncio.ensure_future(_get(watched(cloud, telemetry)))
    await cloud.looked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert telemetry.attempts == []


def job(state: PreviewJob.State.ValueType, job_id: str = "d1", *, seconds: int | None = None) -> PreviewJob:
    """A job; with `seconds`, one that took so long."""
    found = PreviewJob(bucket=BUCKET.name, job_id=job_id, state=state)
    if seconds is not None:
        found.create_time.seconds, found.end_time.seconds = 1000, 1000 + seconds
        found.result.succeeded_page_count, found.result.failed_page_count = 7, 2
    return found


class TestJobsThatEnd:
    def test_an_ended_job_is_reported_once_with_its_time_and_pages(self) -> None:
        """Told once, with its time by the cloud's clock and its pages, however often the job is read again."""
        ends = JobEnds(telemetry := FakeTelemetry())
        for state in (PreviewJob.STATE_SUBMITTED, PreviewJob.STATE_RUNNING):
            ends.saw(job(state))
        assert telemetry.ended_jobs == []
        for _ in range(3):
            ends.saw(job(PreviewJob.STATE_SUCCESS, seconds=12))
        assert telemetry.ended_jobs == [("SUCCESS", 12.0, JobPages(7, 2))]

    def test_an_ended_job_without_times_is_counted_without_a_duration(self) -> None:
        """A job whose times the cloud does not tell is counted, and no time made up."""
        ends = JobEnds(telemetry := FakeTelemetry())
        ends.saw(job(PreviewJob.STATE_RUNNING))
        ends.saw(job(PreviewJob.STATE_FAILED))
        assert telemetry.ended_jobs == [("FAILED", None, JobPages(0, 0))]

    def test_end_that_nobody_here_saw(self) -> None:
        """A job that had ended when it was first read is not told."""
        JobEnds(telemetry := FakeTelemetry()).saw(job(PreviewJob.STATE_SUCCESS, seconds=1))
        assert telemetry.ended_jobs == []

    def test_memory_is_bounded(self) -> None:
        """The oldest unfinished jobs make room."""
        ends = JobEnds(telemetry := FakeTelemetry(), most=2)
        for name in ("d1", "d2", "d3"):
            ends.saw(job(PreviewJob.STATE_RUNNING, name))
        for name in ("d1", "d2", "d3"):
            ends.saw(job(PreviewJob.STATE_SUCCESS, name, seconds=1))
        assert len(telemetry.ended_jobs) == 2

    async def test_each_way_to_see_one(self, cloud: FakeUpstream) -> None:
        """A create shows it unfinished, a list shows its end as a get does."""
        upstream = watched(cloud, telemetry := FakeTelemetry())
        await _get(upstream)
        cloud.jobs[(BUCKET.name, "d1")].state = PreviewJob.STATE_SUCCESS
        await _list_jobs(upstream)
        assert [state for state, _, _ in telemetry.ended_jobs] == ["SUCCESS"]
