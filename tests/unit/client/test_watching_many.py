"""Watching many jobs: their events over as many streams as it takes."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from datetime import timedelta

import grpc
import pytest

from docpreview.v1.error_reason_pb2 import ERROR_REASON_JOB_NOT_FOUND
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import WatchPreviewJobsRequest, WatchPreviewJobsResponse
from docpreview_client import DocPreviewClient, JobError, JobEvent, PermissionDenied

from .fake_gateway import PATIENCE, Failure, FakeGateway, Silence
from .samples import BUCKET, failure, job

SUCCESS = PreviewJob.STATE_SUCCESS
RUNNING = PreviewJob.STATE_RUNNING
HEARTBEAT = WatchPreviewJobsResponse(heartbeat=WatchPreviewJobsResponse.Heartbeat())
BROKEN = Failure(grpc.StatusCode.UNAVAILABLE, "Socket closed")
LIMIT = failure(grpc.StatusCode.UNAVAILABLE, "WATCH_LIMIT_REACHED", retry_delay=timedelta(0))


def one(job_id: str, state: PreviewJob.State.ValueType = SUCCESS) -> PreviewJob:
    return job(state, job_id=job_id)


def gone(job_id: str) -> WatchPreviewJobsResponse:
    error = WatchPreviewJobsResponse.JobError(job_id=job_id, reason=ERROR_REASON_JOB_NOT_FOUND, message="no such job")
    return WatchPreviewJobsResponse(error=error)


async def events(client: DocPreviewClient, ids: Iterable[str]) -> list[JobEvent]:
    return [event async for event in client.watch_many(BUCKET, list(ids), page_url_ttl=60)]


async def test_jobs_and_errors_are_events_and_heartbeats_are_not(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    gateway.will("WatchPreviewJobs", [one("d1", RUNNING), HEARTBEAT, gone("d2"), one("d1")])
    expected = [one("d1", RUNNING), JobError(job_id="d2", reason="JOB_NOT_FOUND", message="no such job"), one("d1")]
    assert await events(client, ["d1", "d2", "d1"]) == expected
    asked = gateway.asked("WatchPreviewJobs")[0]
    assert (asked.bucket, list(asked.job_ids), asked.page_url_ttl.seconds) == (BUCKET, ["d1", "d2"], 60)


async def test_a_stream_that_ends_is_replaced_by_one_of_the_jobs_that_have_not_ended(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """No state is told twice."""
    gateway.will(
        "WatchPreviewJobs",
        [one("d1", RUNNING), one("d2"), gone("d3"), one("d4", RUNNING), LIMIT],
        [one("d1", RUNNING), one("d4"), BROKEN],
        [one("d1")],
    )
    found = await events(client, ["d1", "d2", "d3", "d4"])
    assert [list(asked.job_ids) for asked in gateway.asked("WatchPreviewJobs")] == [
        ["d1", "d2", "d3", "d4"],
        ["d1", "d4"],
        ["d1"],
    ]
    states = [(event.job_id, event.state == SUCCESS) for event in found if isinstance(event, PreviewJob)]
    assert states == [("d1", False), ("d2", True), ("d4", False), ("d4", True), ("d1", True)]


async def test_more_than_a_thousand_jobs_are_watched_over_several_streams(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    ids = [f"d{number}" for number in range(2500)]

    def first(request: WatchPreviewJobsRequest) -> PreviewJob:
        return one(request.job_ids[0])

    def rest(request: WatchPreviewJobsRequest) -> PreviewJob:
        return one(request.job_ids[-1])

    gateway.will("WatchPreviewJobs", [first, rest])
    found = await events(client, ids)
    assert sorted(len(asked.job_ids) for asked in gateway.asked("WatchPreviewJobs")) == [500, 1000, 1000]
    assert {job_id for asked in gateway.asked("WatchPreviewJobs") for job_id in asked.job_ids} == set(ids)
    assert len(found) == 6


async def test_an_error_of_one_stream_ends_the_watch_of_all(gateway: FakeGateway, client: DocPreviewClient) -> None:
    refused = failure(grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED")
    gateway.will("WatchPreviewJobs", [Silence()], [refused])
    with pytest.raises(PermissionDenied):
        await events(client, [f"d{number}" for number in range(1001)])
    assert await asyncio.to_thread(gateway.call("WatchPreviewJobs", 1).ended.wait, PATIENCE)


async def test_a_closed_watch_ends_its_streams_at_the_gateway(gateway: FakeGateway, client: DocPreviewClient) -> None:
    gateway.will("WatchPreviewJobs", [one("d1", RUNNING), Silence()])
    async with aclosing(client.watch_many(BUCKET, ["d1"])) as coming:
        await anext(coming)
    assert await asyncio.to_thread(gateway.call("WatchPreviewJobs").ended.wait, PATIENCE)


async def test_a_watch_of_no_job_ends_at_once(gateway: FakeGateway, client: DocPreviewClient) -> None:
    assert await events(client, []) == []
    assert gateway.calls == []
