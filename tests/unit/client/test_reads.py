"""Reads: what is asked, what comes back, and what is repeated."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import BatchGetPreviewJobsResponse, ListPreviewJobsResponse
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesResponse, PreviewQueue
from docpreview_client import DeadlineExceeded, DocPreviewClient, Throttled, Unavailable

from .fake_gateway import Failure, FakeGateway, Silence
from .samples import BUCKET, JOB_ID, failure, job, succeeded

UNAVAILABLE = Failure(grpc.StatusCode.UNAVAILABLE)


async def test_get_returns_the_job_as_sent_and_passes_on_the_page_url_ttl(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """A job is returned as the gateway sent it, and the time that page addresses live is passed on."""
    gateway.will("GetPreviewJob", succeeded("https://a/1"))
    assert await client.get(BUCKET, JOB_ID, page_url_ttl=timedelta(minutes=2)) == succeeded("https://a/1")
    request = gateway.asked("GetPreviewJob")[0]
    assert (request.bucket, request.job_id, request.page_url_ttl.seconds) == (BUCKET, JOB_ID, 120)


async def test_get_without_page_urls(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """Addresses of pages are secrets: they are not asked for unless the caller does."""
    gateway.will("GetPreviewJob", job())
    await client.get(BUCKET, JOB_ID)
    assert not gateway.asked("GetPreviewJob")[0].HasField("page_url_ttl")


async def test_read_that_is_unavailable_for_a_moment(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """Reads are repeated until the gateway is back: the caller does not notice."""
    gateway.will("GetPreviewJob", UNAVAILABLE, UNAVAILABLE, job())
    assert await client.get(BUCKET, JOB_ID) == job()
    assert len(gateway.calls) == 3


async def test_read_that_a_stopping_server_cancelled(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """A stopping gRPC server answers CANCELLED to calls that it has not begun; they are repeated like UNAVAILABLE."""
    gateway.will("GetPreviewJob", Failure(grpc.StatusCode.CANCELLED), job())
    assert await client.get(BUCKET, JOB_ID) == job()


async def test_read_that_stays_unavailable(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """After four attempts the caller gets the error."""
    gateway.will("ListPreviewJobs", UNAVAILABLE)
    with pytest.raises(Unavailable):
        await client.list_page(BUCKET)
    assert len(gateway.calls) == 4


async def test_read_that_is_throttled(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """RESOURCE_EXHAUSTED is not repeated: that would make it worse. The error says when to come back."""
    throttled = failure(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_THROTTLED", retry_delay=timedelta(milliseconds=1500)
    )
    gateway.will("GetPreviewJob", throttled)
    with pytest.raises(Throttled) as caught:
        await client.get(BUCKET, JOB_ID)
    assert caught.value.retry_delay == timedelta(milliseconds=1500)
    assert len(gateway.calls) == 1


async def test_gateway_that_is_not_there(gateway: FakeGateway) -> None:
    """A wrong address is an Unavailable that names the address, well before the deadline."""
    gateway.stop()
    async with DocPreviewClient(gateway.target) as client:
        with pytest.raises(Unavailable, match=str(gateway.port)):
            await client.get(BUCKET, JOB_ID)


async def test_a_timeout_is_sent_to_the_gateway_and_ends_an_unanswered_call(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """The caller's timeout is told to the gateway and kept when the gateway does not answer."""
    gateway.will("GetPreviewJob", Silence())
    with pytest.raises(DeadlineExceeded):
        await client.get(BUCKET, JOB_ID, timeout=timedelta(milliseconds=300))
    assert gateway.calls[0].seconds < 0.31


async def test_a_read_without_a_timeout_has_a_deadline_of_30_seconds(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """No call is without a deadline: reads have 30 seconds."""
    gateway.will("GetPreviewJob", job())
    await client.get(BUCKET, JOB_ID)
    assert 25 < gateway.calls[0].seconds <= 30


async def test_batch_get_names_missing_jobs_instead_of_raising(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """Jobs that do not exist are named, not raised."""
    gateway.will("BatchGetPreviewJobs", BatchGetPreviewJobsResponse(jobs=[job()], missing_job_ids=["d2"]))
    response = await client.batch_get(BUCKET, [JOB_ID, "d2"])
    assert list(response.jobs) == [job()]
    assert list(response.missing_job_ids) == ["d2"]
    assert list(gateway.asked("BatchGetPreviewJobs")[0].job_ids) == [JOB_ID, "d2"]


async def test_list_of_several_pages(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """All jobs come, page after page with the same filters, an empty page in between included."""
    gateway.will(
        "ListPreviewJobs",
        ListPreviewJobsResponse(jobs=[job(job_id="d1")], next_page_token="two"),
        ListPreviewJobsResponse(next_page_token="three"),
        ListPreviewJobsResponse(jobs=[job(job_id="d2"), job(job_id="d3")]),
    )
    since = datetime(2026, 1, 2, tzinfo=UTC)
    found = [j.job_id async for j in client.list(BUCKET, states=[PreviewJob.STATE_FAILED], created_after=since)]
    assert found == ["d1", "d2", "d3"]
    requests = gateway.asked("ListPreviewJobs")
    assert [request.page_token for request in requests] == ["", "two", "three"]
    assert all(list(request.states) == [PreviewJob.STATE_FAILED] for request in requests)
    assert all(request.created_after.ToDatetime(UTC) == since for request in requests)


async def test_list_with_a_time_without_zone(client: DocPreviewClient) -> None:
    """A time that could mean several moments is refused before anything is sent."""
    with pytest.raises(ValueError, match="no time zone"):
        await client.list_page(BUCKET, created_after=datetime(2026, 1, 2))  # noqa: DTZ001


async def test_queues_of_several_pages(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """All queues come, page after page."""
    gateway.will(
        "ListPreviewQueues",
        ListPreviewQueuesResponse(queues=[PreviewQueue(queue_id="p1")], next_page_token="two"),
        ListPreviewQueuesResponse(queues=[PreviewQueue(queue_id="p2")]),
    )
    found = [queue.queue_id async for queue in client.list_queues(BUCKET, state=PreviewQueue.STATE_ACTIVE)]
    assert found == ["p1", "p2"]
    assert [request.page_token for request in gateway.asked("ListPreviewQueues")] == ["", "two"]


async def test_wait_that_outlasts_a_restart(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """When the gateway asks to come back, the client does, and the caller gets the finished job."""
    stopping = failure(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_delay=timedelta(milliseconds=10))
    gateway.will("WaitPreviewJob", *[stopping] * 5, succeeded())
    assert (await client.wait(BUCKET, JOB_ID)).state == PreviewJob.STATE_SUCCESS


async def test_wait_until_the_timeout(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """Reaching the timeout is no error: the job comes as it is."""
    gateway.will("WaitPreviewJob", job())
    assert (await client.wait(BUCKET, JOB_ID, timeout=timedelta(0))).state == PreviewJob.STATE_RUNNING
    assert len(gateway.calls) == 1


async def test_wait_longer_than_one_call_may_take(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """The gateway waits for 5 minutes at most; longer waits are made of several calls."""
    gateway.will("WaitPreviewJob", job(), succeeded())
    waited = await client.wait(BUCKET, JOB_ID, timeout=timedelta(minutes=12))
    assert waited.state == PreviewJob.STATE_SUCCESS
    assert [request.timeout.seconds for request in gateway.asked("WaitPreviewJob")] == [300, 300]
    assert all(call.seconds > 300 for call in gateway.calls)
