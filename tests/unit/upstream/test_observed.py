"""Telemetry around an upstream: every outcome is told once, under its operation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.core.buckets import Bucket
from docpreview_gateway.core.errors import ReplyTooLarge, UpstreamError
from docpreview_gateway.ports import Call, JobQuery, QueueQuery
from docpreview_gateway.upstream.observed import ObservedUpstream
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing", "main")
CALL = Call("r1", float("inf"))


def _create(upstream: ObservedUpstream) -> Awaitable[object]:
    return upstream.create(CreatePreviewJobRequest(input_object="a.pdf"), BUCKET, BUCKET, CALL)


def _get(upstream: ObservedUpstream) -> Awaitable[object]:
    return upstream.get(BUCKET, "d1", CALL)


def _list_jobs(upstream: ObservedUpstream) -> Awaitable[object]:
    return upstream.list_jobs(JobQuery(ListPreviewJobsRequest(), BUCKET, 10, ""), CALL)


def _list_queues(upstream: ObservedUpstream) -> Awaitable[object]:
    return upstream.list_queues(QueueQuery(ListPreviewQueuesRequest(), BUCKET, 10, 1), CALL)


ASKS: dict[str, Callable[[ObservedUpstream], Awaitable[object]]] = {
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


@pytest.mark.parametrize("operation", ASKS)
async def test_call_that_succeeds(cloud: FakeUpstream, operation: str) -> None:
    """OK under the operation's name, and the result untouched."""
    telemetry = FakeTelemetry()
    assert await ASKS[operation](ObservedUpstream(cloud, telemetry))
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
        await ASKS[operation](ObservedUpstream(cloud, telemetry))
    assert caught.value is error
    assert telemetry.attempts == [(operation, outcome)]


async def test_call_that_is_cancelled(cloud: FakeUpstream) -> None:
    """Neither a success nor a failure of the cloud: nothing is told."""
    telemetry = FakeTelemetry()
    cloud.gate = asyncio.Event()
    task = asyncio.ensure_future(_get(ObservedUpstream(cloud, telemetry)))
    await cloud.looked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert telemetry.attempts == []
