"""The use-cases of jobs over a cloud in memory."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1 import preview_job_service_pb2 as pb
from docpreview.v1.preview_job_pb2 import ObjectLocation, Page, PreviewJob, PreviewOptions
from docpreview_gateway.jobs.preview_jobs import BATCH_CONCURRENCY, MAX_LIST_BYTES
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError, InvalidRequest, ReplyTooLarge, UpstreamError
from tests.fakes.upstream import FakeUpstream
from tests.unit.conftest import BUCKET, OTHER, QUICK, Office, call

if TYPE_CHECKING:
    from docpreview_gateway.upstream.operations import JobPage, ListJobs

RUNNING, SUCCESS = PreviewJob.STATE_RUNNING, PreviewJob.STATE_SUCCESS
TTL = Duration(seconds=60)


def create_request(**fields: object) -> pb.CreatePreviewJobRequest:
    request = pb.CreatePreviewJobRequest(
        bucket=BUCKET.name, input_object="a.pdf", output=ObjectLocation(object="out/p-${Page}.jpg")
    )
    request.MergeFrom(pb.CreatePreviewJobRequest(**fields))  # type: ignore[arg-type]
    return request


async def reason_of(awaitable: object) -> r.ErrorReason.ValueType:
    with pytest.raises(GatewayError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.reason


class TestCreate:
    async def test_to_the_buckets_own_place(self, office: Office) -> None:
        """The job's results go to the source's bucket."""
        office.upstream.objects.add((BUCKET.name, "a.pdf"))
        job = await office.jobs.create(create_request(), call())
        assert (job.output.bucket, job.output.region) == (BUCKET.name, BUCKET.region)

    async def test_to_another_bucket(self, office: Office) -> None:
        """Or to another one of the configuration, in that one's region."""
        office.upstream.objects.add((BUCKET.name, "a.pdf"))
        job = await office.jobs.create(create_request(output=ObjectLocation(bucket=OTHER.name)), call())
        assert (job.output.bucket, job.output.region) == (OTHER.name, OTHER.region)

    @pytest.mark.parametrize(
        ("request_", "reason"),
        [
            (create_request(bucket="stranger-1250000000"), r.ERROR_REASON_BUCKET_NOT_CONFIGURED),
            (
                create_request(output=ObjectLocation(bucket="stranger-1250000000")),
                r.ERROR_REASON_BUCKET_NOT_CONFIGURED,
            ),
            (create_request(output=ObjectLocation(region="ap-beijing")), r.ERROR_REASON_INVALID_REQUEST),
            (create_request(options=PreviewOptions(quality=1000)), r.ERROR_REASON_INVALID_REQUEST),
        ],
    )
    async def test_a_create_that_the_gateway_refuses_never_reaches_the_cloud(
        self, office: Office, request_: pb.CreatePreviewJobRequest, reason: r.ErrorReason.ValueType
    ) -> None:
        """What the gateway refuses never reaches the cloud."""
        assert await reason_of(office.jobs.create(request_, call())) == reason
        assert office.upstream.asked == []


class TestGet:
    async def test_get_returns_the_job_and_what_the_call_learned(self, office: Office) -> None:
        """The job, and what the call learned."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        made = call()
        job = await office.jobs.get(pb.GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1"), made)
        assert job.state == RUNNING
        assert (made.response.cache, made.response.upstream_request_id) == ("miss", "upstream-1")

    async def test_with_page_addresses(self, office: Office) -> None:
        """A copy with addresses; what the cloud gave stays as it was."""
        held = office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        held.output.bucket = BUCKET.name
        office.upstream.finish(BUCKET.name, "d1", pages=2)
        request = pb.GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1", page_url_ttl=TTL)
        job = await office.jobs.get(request, call())
        assert all(page.url.startswith(f"https://{BUCKET.object_host}/out/p-") for page in job.result.pages)
        assert all(not page.url for page in office.upstream.jobs[BUCKET.name, "d1"].result.pages)

    async def test_without_asking_for_addresses(self, office: Office) -> None:
        """No addresses."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING).output.bucket = BUCKET.name
        office.upstream.finish(BUCKET.name, "d1")
        job = await office.jobs.get(pb.GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1"), call())
        assert job.result.pages[0].url == ""


class TestKept:
    REQUEST = pb.GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1")

    async def test_job_in_memory(self, office: Office) -> None:
        """It is answered without waiting."""
        office.upstream.remembered[BUCKET.name, "d1"] = PreviewJob(job_id="d1")
        found = office.jobs.cached_get(self.REQUEST, Call("r1", 30.0))
        assert found == PreviewJob(job_id="d1").SerializeToString()

    async def test_job_that_is_not_in_memory(self, office: Office) -> None:
        """Left to `get`."""
        assert office.jobs.cached_get(self.REQUEST, Call("r1", 30.0)) is None

    async def test_page_addresses_are_wanted(self, office: Office) -> None:
        """Left to `get`, which signs them and checks for how long."""
        office.upstream.remembered[BUCKET.name, "d1"] = PreviewJob(job_id="d1")
        request = pb.GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1", page_url_ttl=Duration(seconds=60))
        assert office.jobs.cached_get(request, Call("r1", 30.0)) is None

    async def test_an_unconfigured_bucket_is_left_to_get_even_when_cached(self, office: Office) -> None:
        """Left to `get`, which refuses it, even if something is remembered under its name."""
        office.upstream.remembered["elsewhere-1", "d1"] = PreviewJob(job_id="d1")
        assert (
            office.jobs.cached_get(pb.GetPreviewJobRequest(bucket="elsewhere-1", job_id="d1"), Call("r1", 30.0)) is None
        )


class TestBatchGet:
    async def test_order_doubles_and_missing(self, office: Office) -> None:
        """Jobs in the order asked, doubles as often as asked, and the ids that do not exist beside them."""
        for job_id in ("d1", "d2", "d3"):
            office.upstream.add_job(BUCKET.name, job_id, RUNNING)
        asked = ["d3", "x1", "d1", "d3", "x2", "x1", "d2"]
        reply = await office.jobs.batch_get(pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=asked), call())
        assert [job.job_id for job in reply.jobs] == ["d3", "d1", "d3", "d2"]
        assert list(reply.missing_job_ids) == ["x1", "x2", "x1"]
        assert sorted(job_id for _, job_id in office.upstream.asked) == ["d1", "d2", "d3", "x1", "x2"]

    async def test_a_large_batch_is_read_a_few_jobs_at_a_time(self, office: Office) -> None:
        """A few at a time, so that one caller does not take all connections."""
        job_ids = [f"d{number}" for number in range(100)]
        for job_id in job_ids:
            office.upstream.add_job(BUCKET.name, job_id, RUNNING)
        request = pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=job_ids)
        reply = await office.jobs.batch_get(request, call())
        assert [job.job_id for job in reply.jobs] == job_ids
        assert office.upstream.most_in_flight == BATCH_CONCURRENCY

    @pytest.mark.parametrize(
        "error", [UpstreamError(r.ERROR_REASON_UPSTREAM_THROTTLED, "slow down"), ZeroDivisionError("a bug")]
    )
    async def test_error_of_one(self, office: Office, error: Exception) -> None:
        """The first error ends the batch: the very error, and no question goes on."""
        office.upstream.failures.append(error)
        job_ids = [f"d{number}" for number in range(50)]
        with pytest.raises(type(error)) as caught:
            await office.jobs.batch_get(pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=job_ids), call())
        assert caught.value is error
        assert office.upstream.in_flight == 0
        assert len(office.upstream.asked) <= 2 * BATCH_CONCURRENCY

    async def test_caller_that_goes_away(self, office: Office) -> None:
        """Cancellation reaches every question."""
        office.upstream.gate = asyncio.Event()
        request = pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=["d1", "d2", "d3"])
        task = asyncio.ensure_future(office.jobs.batch_get(request, call()))
        while office.upstream.in_flight < 3:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (office.upstream.in_flight, office.upstream.cancelled) == (0, 3)

    async def test_each_job_of_a_batch_gets_its_page_urls(self, office: Office) -> None:
        """Each job gets its addresses."""
        for job_id in ("d1", "d2"):
            office.upstream.add_job(BUCKET.name, job_id, RUNNING).output.bucket = BUCKET.name
            office.upstream.finish(BUCKET.name, job_id)
        request = pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=["d1", "d2"], page_url_ttl=TTL)
        reply = await office.jobs.batch_get(request, call())
        assert all(job.result.pages[0].url for job in reply.jobs)


class Heavy(FakeUpstream):
    """A cloud whose replies, or whose jobs, are too large beyond a number of jobs."""

    def __init__(self, *, most: int, padding: int = 0) -> None:
        super().__init__()
        self.most = most
        self.padding = padding
        self.sizes: list[int] = []

    async def list_jobs(self, query: ListJobs, call: Call) -> JobPage:
        self.sizes.append(query.size)
        if query.size > self.most:
            raise ReplyTooLarge
        return await super().list_jobs(query, call)

    def fill(self, count: int) -> list[str]:
        for number in range(count):
            job = self.add_job(BUCKET.name, f"d{number:03}", SUCCESS)
            job.result.pages.append(Page(object="x" * self.padding))
        return [f"d{number:03}" for number in reversed(range(count))]


class TestList:
    async def test_page_by_page(self, office: Office) -> None:
        """The tokens lead through all jobs, each once, ten at a time unless asked otherwise."""
        for number in range(25):
            office.upstream.add_job(BUCKET.name, f"d{number:02}", RUNNING)
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name)
        pages = []
        while True:
            page = await office.jobs.list_jobs(request, call())
            pages.append([job.job_id for job in page.jobs])
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert [len(page) for page in pages] == [10, 10, 5]
        assert list(chain.from_iterable(pages)) == [f"d{number:02}" for number in reversed(range(25))]

    async def test_token_of_another_list(self, office: Office) -> None:
        """A token belongs to its filters."""
        for number in range(3):
            office.upstream.add_job(BUCKET.name, f"d{number}", RUNNING)
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=1)
        request.page_token = (await office.jobs.list_jobs(request, call())).next_page_token
        request.states.append(RUNNING)
        with pytest.raises(InvalidRequest):
            await office.jobs.list_jobs(request, call())

    @pytest.mark.parametrize(
        ("upstream", "sizes"),
        [
            (Heavy(most=5), [100, 25, 6, 1]),
            (Heavy(most=30), [100, 25]),
            (Heavy(most=1000, padding=1_000_000), [100, 25, 6, 1]),
        ],
        ids=["reply", "reply-once", "message"],
    )
    async def test_page_that_is_too_large(self, upstream: Heavy, sizes: list[int]) -> None:
        """Fewer jobs are asked for until they fit; the tokens still lead through all of them."""
        office = Office(upstream=upstream)
        expected = upstream.fill(30)
        seen: list[str] = []
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=100, include_pages=True)
        while True:
            page = await office.jobs.list_jobs(request, call())
            if not seen:
                assert upstream.sizes == sizes
            assert page.ByteSize() <= MAX_LIST_BYTES
            seen += [job.job_id for job in page.jobs]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        assert seen == expected

    async def test_single_job_that_is_too_large_to_read(self) -> None:
        """UPSTREAM_BAD_RESPONSE: there is nothing smaller to ask for."""
        office = Office(upstream=Heavy(most=0))
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name)
        assert await reason_of(office.jobs.list_jobs(request, call())) == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE

    async def test_single_job_that_is_too_large_to_send(self) -> None:
        """It is handed on; the layer that sends it says REPLY_TOO_LARGE."""
        upstream = Heavy(most=10, padding=MAX_LIST_BYTES)
        upstream.fill(1)
        reply = await Office(upstream=upstream).jobs.list_jobs(
            pb.ListPreviewJobsRequest(bucket=BUCKET.name, include_pages=True), call()
        )
        assert len(reply.jobs) == 1


class TestWait:
    def request(self, seconds: float | None = None) -> pb.WaitPreviewJobRequest:
        request = pb.WaitPreviewJobRequest(bucket=BUCKET.name, job_id="d1", page_url_ttl=TTL)
        if seconds is not None:
            request.timeout.FromMilliseconds(int(seconds * 1000))
        return request

    async def test_a_wait_with_a_timeout_of_0_returns_the_job_as_it_is(self, office: Office) -> None:
        """A time-out of 0 gives the job as it is."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        made = call()
        assert (await office.jobs.wait(self.request(0), made)).state == RUNNING
        assert (made.response.cache, made.response.upstream_request_id) == ("miss", "upstream-1")

    async def test_time_that_passes(self, office: Office) -> None:
        """The job as it is by then, not an error."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        begin = asyncio.get_running_loop().time()
        assert (await office.jobs.wait(self.request(0.05), call())).state == RUNNING
        assert 0.05 <= asyncio.get_running_loop().time() - begin < 5

    async def test_callers_deadline_before_the_time(self, office: Office) -> None:
        """The answer comes soon enough to reach the caller."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        made = call(0.4)
        assert (await office.jobs.wait(self.request(), made)).state == RUNNING
        assert asyncio.get_running_loop().time() < made.deadline

    async def test_job_that_ends(self, office: Office) -> None:
        """The job as it ended, with addresses of its pages."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING).output.bucket = BUCKET.name
        waiting = asyncio.ensure_future(office.jobs.wait(self.request(), call()))
        await office.upstream.looked.wait()
        office.upstream.finish(BUCKET.name, "d1")
        job = await waiting
        assert job.state == SUCCESS
        assert job.result.pages[0].url

    async def test_a_wait_in_an_unconfigured_bucket_polls_nothing(self, office: Office) -> None:
        """Nobody polls what nobody may see."""
        request = pb.WaitPreviewJobRequest(bucket="stranger-1250000000", job_id="d1")
        assert await reason_of(office.jobs.wait(request, call())) == r.ERROR_REASON_BUCKET_NOT_CONFIGURED
        assert office.telemetry.most_pollers == 0


class TestWatch:
    async def test_a_watch_yields_changes_heartbeats_and_the_end(self) -> None:
        """States with addresses, empty messages between them, and the end."""
        office = Office(replace(QUICK, heartbeat=0.02))
        office.upstream.add_job(BUCKET.name, "d1", RUNNING).output.bucket = BUCKET.name
        request = pb.WatchPreviewJobRequest(bucket=BUCKET.name, job_id="d1", page_url_ttl=TTL)
        made = call()
        seen = []
        async for message in office.jobs.watch(request, made):
            seen.append(message)
            if not message.HasField("job"):
                office.upstream.finish(BUCKET.name, "d1")
        assert [message.job.state for message in seen if message.HasField("job")] == [RUNNING, SUCCESS]
        assert not seen[1].HasField("job")
        assert seen[-1].job.result.pages[0].url
        assert made.response.cache == "miss"

    async def test_a_second_watcher_joins_the_poller_of_the_first(self, office: Office) -> None:
        """It joins the first one's poller, and each gets addresses of its own."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        request = pb.WatchPreviewJobRequest(bucket=BUCKET.name, job_id="d1")
        one, other = call(), call()
        first, second = office.jobs.watch(request, one), office.jobs.watch(request, other)
        async with aclosing(first), aclosing(second):
            assert (await anext(first)).job == (await anext(second)).job
        assert (one.response.cache, other.response.cache) == ("miss", "coalesced")

    async def test_watcher_that_leaves(self, office: Office) -> None:
        """The poller is released as soon as the stream is closed."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        request = pb.WatchPreviewJobRequest(bucket=BUCKET.name, job_id="d1")
        async with aclosing(office.jobs.watch(request, call())) as stream:
            await anext(stream)
            assert office.telemetry.watchers == 1
        assert office.telemetry.watchers == 0
