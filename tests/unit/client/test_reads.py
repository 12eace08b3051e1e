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
    gateway.will("GetPreviewJob", succeeded("https://a/1"))
    assert await client.get(BUCKET, JOB_ID, page_url_ttl=timedelta(minutes=2)) == succeeded("https://a/1")
    request = gateway.asked("GetPreviewJob")[0]
    assert (request.bucket, request.job_id, request.page_url_ttl.seconds) == (BUCKET, JOB_ID, 120)


async def test_get_asks_for_page_urls_only_when_the_caller_does(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """They are secrets."""
    gateway.will("GetPreviewJob", job())
    await client.get(BUCKET, JOB_ID)
    assert not gateway.asked("GetPreviewJob")[0].HasField("page_url_ttl")


async def test_a_read_is_repeated_until_the_gateway_is_back(gateway: FakeGateway, client: DocPreviewClient) -> None:
    gateway.will("GetPreviewJob", UNAVAILABLE, UNAVAILABLE, job())
    assert await client.get(BUCKET, JOB_ID) == job()
    assert len(gateway.calls) == 3


async def test_a_read_that_a_stopping_server_cancelled_is_repeated(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """A stopping gRPC server answers CANCELLED to calls that it has not begun."""
    gateway.will("GetPreviewJob", Failure(grpc.StatusCode.CANCELLED), job())
    assert await client.get(BUCKET, JOB_ID) == job()


async def test_a_read_that_stays_unavailable_fails_after_four_attempts(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    gateway.will("ListPreviewJobs", UNAVAILABLE)
    with pytest.raises(Unavailable):
        await client.list_page(BUCKET)
    assert len(gateway.calls) == 4


async def test_a_throttled_read_is_not_repeated_and_says_when_to_come_back(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """Repeating would make it worse."""
    throttled = failure(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_THROTTLED", retry_delay=timedelta(milliseconds=1500)
    )
    gateway.will("GetPreviewJob", throttled)
    with pytest.raises(Throttled) as caught:
        await client.get(BUCKET, JOB_ID)
    assert caught.value.retry_delay == timedelta(milliseconds=1500)
    assert len(gateway.calls) == 1


async def test_a_read_without_a_gateway_is_unavailable_and_names_the_address(gateway: FakeGateway) -> None:
    """Well before the deadline."""
    gateway.stop()
    async with DocPreviewClient(gateway.target) as client:
        with pytest.raises(Unavailable, match=str(gateway.port)):
            await client.get(BUCKET, JOB_ID)


async def test_a_timeout_is_sent_to_the_gateway_and_ends_an_unanswered_call(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    gateway.will("GetPreviewJob", Silence())
    with pytest.raises(DeadlineExceeded):
        await client.get(BUCKET, JOB_ID, timeout=timedelta(milliseconds=300))
    assert gateway.calls[0].seconds < 0.31


@pytest.mark.parametrize("timeout", [5, 5.0, timedelta(seconds=5)])
async def test_a_timeout_is_seconds_or_a_timedelta(
    gateway: FakeGateway,
    client: DocPreviewClient,
    timeout: timedelta | float,  # noqa: ASYNC109 - the client's argument
) -> None:
    gateway.will("GetPreviewJob", job())
    gateway.will("WaitPreviewJob", succeeded())
    gateway.will("WatchPreviewJob", [succeeded()])
    await client.get(BUCKET, JOB_ID, timeout=timeout, page_url_ttl=timeout)
    await client.wait(BUCKET, JOB_ID, timeout=timeout)
    assert [seen async for seen in client.watch(BUCKET, JOB_ID, timeout=timeout)] == [succeeded()]
    assert gateway.asked("GetPreviewJob")[0].page_url_ttl.seconds == 5
    assert gateway.call("GetPreviewJob").seconds < 5.1
    assert gateway.asked("WaitPreviewJob")[0].timeout.ToTimedelta() <= timedelta(seconds=5)
    assert gateway.call("WatchPreviewJob").seconds < 5.1


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), timedelta(seconds=-1)])
async def test_a_timeout_that_is_no_length_of_time_is_refused(
    gateway: FakeGateway,
    client: DocPreviewClient,
    timeout: timedelta | float,  # noqa: ASYNC109 - the client's argument
) -> None:
    with pytest.raises(ValueError, match="not a length of time"):
        await client.get(BUCKET, JOB_ID, timeout=timeout)
    assert gateway.calls == []


async def test_a_read_without_a_timeout_has_a_deadline_of_30_seconds(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    gateway.will("GetPreviewJob", job())
    await client.get(BUCKET, JOB_ID)
    assert 25 < gateway.calls[0].seconds <= 30


async def test_batch_get_names_missing_jobs_instead_of_raising(gateway: FakeGateway, client: DocPreviewClient) -> None:
    gateway.will("BatchGetPreviewJobs", BatchGetPreviewJobsResponse(jobs=[job()], missing_job_ids=["d2"]))
    response = await client.batch_get(BUCKET, [JOB_ID, "d2"])
    assert list(response.jobs) == [job()]
    assert list(response.missing_job_ids) == ["d2"]
    assert list(gateway.asked("BatchGetPreviewJobs")[0].job_ids) == [JOB_ID, "d2"]


async def test_list_yields_the_jobs_of_all_pages_with_the_same_filters(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """An empty page in between does not end it."""
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
    assert [request.page_size for request in requests] == [100] * 3
    assert all(request.created_after.ToDatetime(UTC) == since for request in requests)


async def test_list_refuses_a_time_without_zone(client: DocPreviewClient) -> None:
    """It could mean several moments."""
    with pytest.raises(ValueError, match="no time zone"):
        await client.list_page(BUCKET, created_after=datetime(2026, 1, 2))  # noqa: DTZ001


async def test_list_queues_yields_the_queues_of_all_pages(gateway: FakeGateway, client: DocPreviewClient) -> None:
    gateway.will(
        "ListPreviewQueues",
        ListPreviewQueuesResponse(queues=[PreviewQueue(queue_id="p1")], next_page_token="two"),
        ListPreviewQueuesResponse(queues=[PreviewQueue(queue_id="p2")]),
    )
    found = [queue.queue_id async for queue in client.list_queues(BUCKET, state=PreviewQueue.STATE_ACTIVE)]
    assert found == ["p1", "p2"]
    assert [request.page_token for request in gateway.asked("ListPreviewQueues")] == ["", "two"]
    assert [request.page_size for request in gateway.asked("ListPreviewQueues")] == [100, 100]


async def test_wait_outlasts_a_restart_and_returns_the_finished_job(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """The client comes back when the gateway asks for it."""
    stopping = failure(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_delay=timedelta(milliseconds=10))
    gateway.will("WaitPreviewJob", *[stopping] * 5, succeeded())
    assert (await client.wait(BUCKET, JOB_ID)).state == PreviewJob.STATE_SUCCESS


async def test_wait_returns_the_unfinished_job_at_its_timeout(gateway: FakeGateway, client: DocPreviewClient) -> None:
    gateway.will("WaitPreviewJob", job())
    assert (await client.wait(BUCKET, JOB_ID, timeout=timedelta(0))).state == PreviewJob.STATE_RUNNING
    assert len(gateway.calls) == 1


async def test_wait_for_more_than_5_minutes_is_made_of_several_calls(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """The gateway waits for 5 minutes at most."""
    gateway.will("WaitPreviewJob", job(), succeeded())
    waited = await client.wait(BUCKET, JOB_ID, timeout=timedelta(minutes=12))
    assert waited.state == PreviewJob.STATE_SUCCESS
    assert [request.timeout.seconds for request in gateway.asked("WaitPreviewJob")] == [300, 300]
    assert all(call.seconds > 300 for call in gateway.calls)
