"""The methods of PreviewJobService over a cloud in memory."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from google.protobuf.duration_pb2 import Duration

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1 import preview_job_service_pb2 as pb
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview_gateway.jobs.preview_jobs import BATCH_CONCURRENCY
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from tests.fakes.policies import caller_of
from tests.unit.conftest import BUCKET, OTHER, QUICK, Office, call

RUNNING, SUCCESS = PreviewJob.STATE_RUNNING, PreviewJob.STATE_SUCCESS
TTL = Duration(seconds=60)
OUTPUT = ObjectLocation(bucket=BUCKET.name, object="out/p-${Page}.jpg")


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
    async def test_a_create_without_an_output_bucket_writes_to_the_source_bucket(self, office: Office) -> None:
        """The job's output is in the source bucket."""
        office.upstream.objects.add((BUCKET.name, "a.pdf"))
        job = await office.jobs.create(create_request(), call())
        assert (job.output.bucket, job.output.region) == (BUCKET.name, BUCKET.region)

    async def test_a_create_may_write_to_another_configured_bucket(self, office: Office) -> None:
        """The job's output has the region of that bucket."""
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

    async def test_a_create_notes_its_bucket_and_its_job_for_the_operator_page(self, office: Office) -> None:
        """The bucket of a refused one too, if it is configured."""
        office.upstream.objects.add((BUCKET.name, "a.pdf"))
        made = call()
        job = await office.jobs.create(create_request(), made)
        assert (made.response.bucket, made.response.job_ids) == (BUCKET.name, (job.job_id,))
        refused = call()
        await reason_of(office.jobs.create(create_request(options=PreviewOptions(quality=1000)), refused))
        assert (refused.response.bucket, refused.response.job_ids) == (BUCKET.name, ())
        stranger = call()
        await reason_of(office.jobs.create(create_request(bucket="stranger-1250000000"), stranger))
        assert stranger.response.bucket == ""


class TestGet:
    async def test_get_returns_the_job_and_fills_the_response_info(self, office: Office) -> None:
        """The response info has the cache outcome and the cloud's request id."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        made = call()
        job = await office.jobs.get(pb.GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1"), made)
        assert job.state == RUNNING
        assert (made.response.cache, made.response.upstream_request_id) == ("miss", "upstream-1")

    async def test_get_with_a_ttl_returns_page_urls(self, office: Office) -> None:
        """The URLs are in a copy; the job of the cloud is not modified."""
        held = office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        held.output.CopyFrom(OUTPUT)
        office.upstream.finish(BUCKET.name, "d1", pages=2)
        request = pb.GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1", page_url_ttl=TTL)
        job = await office.jobs.get(request, call())
        assert all(page.url.startswith(f"https://{BUCKET.object_host}/out/p-") for page in job.result.pages)
        assert all(not page.url for page in office.upstream.jobs[BUCKET.name, "d1"].result.pages)

    async def test_get_without_a_ttl_returns_no_page_urls(self, office: Office) -> None:
        """Page URLs are made on request only."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING).output.CopyFrom(OUTPUT)
        office.upstream.finish(BUCKET.name, "d1")
        job = await office.jobs.get(pb.GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1"), call())
        assert job.result.pages[0].url == ""


class TestKept:
    REQUEST = pb.GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1")

    async def test_a_cached_job_is_returned(self, office: Office) -> None:
        """The reply needs no await."""
        office.upstream.cached[BUCKET.name, "d1"] = PreviewJob(job_id="d1")
        found = office.jobs.cached_get(self.REQUEST, made := Call("r1", 30.0))
        assert found == PreviewJob(job_id="d1").SerializeToString()
        assert (made.response.bucket, made.response.job_ids) == (BUCKET.name, ("d1",))

    async def test_a_job_that_is_not_cached_is_left_to_get(self, office: Office) -> None:
        """`cached_get` returns None."""
        assert office.jobs.cached_get(self.REQUEST, Call("r1", 30.0)) is None

    async def test_a_request_for_page_urls_is_left_to_get(self, office: Office) -> None:
        """`get` validates the `ttl` and signs the URLs."""
        office.upstream.cached[BUCKET.name, "d1"] = PreviewJob(job_id="d1")
        request = pb.GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1", page_url_ttl=Duration(seconds=60))
        assert office.jobs.cached_get(request, Call("r1", 30.0)) is None

    async def test_an_unconfigured_bucket_is_left_to_get_even_when_cached(self, office: Office) -> None:
        """`get` rejects the bucket, even if a job is cached under its name."""
        office.upstream.cached["elsewhere-1", "d1"] = PreviewJob(job_id="d1")
        assert (
            office.jobs.cached_get(pb.GetPreviewJobRequest(bucket="elsewhere-1", job_id="d1"), Call("r1", 30.0)) is None
        )


class TestKeptBatch:
    """The reply of jobs that are all cached is their stored bytes, one after the other."""

    @pytest.mark.parametrize("size", [1, 127, 128, 20_000])
    async def test_it_is_the_reply_of_the_batch(self, office: Office, size: int) -> None:
        """Of each length that protobuf writes in another number of bytes."""
        for job_id in ("d1", "d2"):
            office.upstream.cached[BUCKET.name, job_id] = PreviewJob(job_id=job_id, user_data="x" * size)
        request = pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=["d2", "d1", "d2"])
        found = office.jobs.cached_batch(request, made := Call("r1", 30.0))
        assert found is not None
        reply = pb.BatchGetPreviewJobsResponse.FromString(found)
        assert [job.job_id for job in reply.jobs] == ["d2", "d1", "d2"]
        assert all(job.user_data == "x" * size for job in reply.jobs)
        assert not reply.missing_job_ids
        assert reply.SerializeToString() == found
        assert (made.response.bucket, made.response.job_ids) == (BUCKET.name, ("d2", "d1", "d2"))

    @pytest.mark.parametrize(
        "request_",
        [
            pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=["d1", "d9"]),
            pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name),
            pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=["d1"] * 101),
            pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=["d1"], page_url_ttl=TTL),
            pb.BatchGetPreviewJobsRequest(bucket="elsewhere-1", job_ids=["d1"]),
        ],
        ids=["one is not cached", "no ids", "too many", "page urls", "another bucket"],
    )
    async def test_everything_else_is_left_to_the_batch(
        self, office: Office, request_: pb.BatchGetPreviewJobsRequest
    ) -> None:
        """It validates, reads and signs."""
        office.upstream.cached[BUCKET.name, "d1"] = PreviewJob(job_id="d1")
        assert office.jobs.cached_batch(request_, Call("r1", 30.0)) is None

    async def test_a_batch_with_a_job_that_the_caller_may_not_see_is_left_to_the_batch(self, office: Office) -> None:
        """It answers as if there were none."""
        for job_id, key in (("d1", "in/a.pdf"), ("d2", "secret/a.pdf")):
            job = office.upstream.cached[BUCKET.name, job_id] = PreviewJob(job_id=job_id)
            job.input.object = key
        restricted = call()._replace(caller=caller_of("shop", {BUCKET.name: ("in/",)}))
        for job_ids, answered in ((["d1"], True), (["d1", "d2"], False)):
            request = pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=job_ids)
            assert (office.jobs.cached_batch(request, restricted) is not None) == answered


class TestBatchGet:
    async def test_a_batch_keeps_order_and_duplicates_and_lists_missing_ids(self, office: Office) -> None:
        """Jobs are in the order of the ids, with duplicates; ids that do not exist are listed apart."""
        for job_id in ("d1", "d2", "d3"):
            office.upstream.add_job(BUCKET.name, job_id, RUNNING)
        asked = ["d3", "x1", "d1", "d3", "x2", "x1", "d2"]
        reply = await office.jobs.batch_get(pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=asked), call())
        assert [job.job_id for job in reply.jobs] == ["d3", "d1", "d3", "d2"]
        assert list(reply.missing_job_ids) == ["x1", "x2", "x1"]
        assert sorted(job_id for _, job_id in office.upstream.asked) == ["d1", "d2", "d3", "x1", "x2"]

    async def test_a_large_batch_is_read_a_few_jobs_at_a_time(self, office: Office) -> None:
        """One caller does not take all connections."""
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
    async def test_the_first_error_ends_the_batch(self, office: Office, error: Exception) -> None:
        """The batch raises the same error, and its other reads are cancelled."""
        office.upstream.failures.append(error)
        job_ids = [f"d{number}" for number in range(50)]
        with pytest.raises(type(error)) as caught:
            await office.jobs.batch_get(pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=job_ids), call())
        assert caught.value is error
        assert office.upstream.in_flight == 0
        assert len(office.upstream.asked) <= 2 * BATCH_CONCURRENCY

    async def test_a_cancelled_batch_cancels_its_reads(self, office: Office) -> None:
        """Every read in flight is cancelled."""
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
        """Every page of every job has a URL."""
        for job_id in ("d1", "d2"):
            office.upstream.add_job(BUCKET.name, job_id, RUNNING).output.CopyFrom(OUTPUT)
            office.upstream.finish(BUCKET.name, job_id)
        request = pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=["d1", "d2"], page_url_ttl=TTL)
        reply = await office.jobs.batch_get(request, call())
        assert all(job.result.pages[0].url for job in reply.jobs)

    @pytest.mark.parametrize(
        ("cached", "shared", "charged"), [(0, 0, [9]), (4, 0, [5]), (4, 3, [2]), (4, 5, []), (10, 0, [])]
    )
    async def test_a_batch_is_charged_for_the_jobs_that_no_cache_has(
        self, office: Office, cached: int, shared: int, charged: list[int]
    ) -> None:
        """The first is paid with the call; before anything is read."""
        job_ids = [f"d{number}" for number in range(10)]
        for number, job_id in enumerate(job_ids):
            job = office.upstream.add_job(BUCKET.name, job_id, RUNNING)
            found = office.upstream.cached if number < cached else office.upstream.shared_cached
            if number < cached + shared:
                found[BUCKET.name, job_id] = job
        charges: list[int] = []

        async def charge(calls: int) -> None:
            assert office.upstream.asked == []
            charges.append(calls)

        request = pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=[*job_ids, *job_ids])
        reply = await office.jobs.batch_get(request, call()._replace(charge=charge))
        assert [job.job_id for job in reply.jobs] == [*job_ids, *job_ids]
        assert charges == charged
        assert sorted(job_id for _, job_id in office.upstream.asked) == job_ids[cached + shared :]

    async def test_a_hidden_job_costs_a_batch_as_much_as_a_missing_one(self, office: Office) -> None:
        """Wherever it is cached: the rest of a rate would tell that it exists."""
        for key in ("in/a.pdf", "secret/a.pdf"):
            job = office.upstream.add_job(BUCKET.name, f"d{key[:2]}", RUNNING)
            job.input.object = key
            office.upstream.cached[BUCKET.name, job.job_id] = job
        charges: list[int] = []

        async def charge(calls: int) -> None:
            charges.append(calls)

        restricted = call()._replace(caller=caller_of("shop", {BUCKET.name: ("in/",)}), charge=charge)
        for job_ids in (["din", "dse", "x1"], ["din", "x2", "x1"]):
            request = pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=job_ids)
            reply = await office.jobs.batch_get(request, restricted)
            assert list(reply.missing_job_ids) == job_ids[1:]
        assert charges == [1, 1]


class TestWait:
    def request(self, seconds: float | None = None) -> pb.WaitPreviewJobRequest:
        request = pb.WaitPreviewJobRequest(bucket=BUCKET.name, job_id="d1", page_url_ttl=TTL)
        if seconds is not None:
            request.timeout.FromMilliseconds(int(seconds * 1000))
        return request

    async def test_a_wait_with_a_timeout_of_0_returns_the_job_as_it_is(self, office: Office) -> None:
        """A timeout of 0 waits for the first poll only."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        made = call()
        assert (await office.jobs.wait(self.request(0), made)).state == RUNNING
        assert (made.response.cache, made.response.upstream_request_id) == ("miss", "upstream-1")

    async def test_a_wait_returns_the_current_state_after_its_timeout(self, office: Office) -> None:
        """The timeout is not an error."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        begin = asyncio.get_running_loop().time()
        assert (await office.jobs.wait(self.request(0.05), call())).state == RUNNING
        assert 0.05 <= asyncio.get_running_loop().time() - begin < 5

    async def test_a_wait_ends_before_the_callers_deadline(self, office: Office) -> None:
        """The reply still reaches the caller."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        made = call(0.4)
        assert (await office.jobs.wait(self.request(), made)).state == RUNNING
        assert asyncio.get_running_loop().time() < made.deadline

    async def test_a_wait_returns_the_ended_job_with_page_urls(self, office: Office) -> None:
        """The wait ends with the job."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING).output.CopyFrom(OUTPUT)
        waiting = asyncio.ensure_future(office.jobs.wait(self.request(), call()))
        await office.upstream.called.wait()
        office.upstream.finish(BUCKET.name, "d1")
        job = await waiting
        assert job.state == SUCCESS
        assert job.result.pages[0].url

    async def test_a_wait_in_an_unconfigured_bucket_polls_nothing(self, office: Office) -> None:
        """The bucket is rejected before a poller starts."""
        request = pb.WaitPreviewJobRequest(bucket="stranger-1250000000", job_id="d1")
        assert await reason_of(office.jobs.wait(request, call())) == r.ERROR_REASON_BUCKET_NOT_CONFIGURED
        assert office.telemetry.most_pollers == 0


class TestWatch:
    async def test_a_watch_yields_changes_heartbeats_and_the_end(self) -> None:
        """States have page URLs, heartbeats are empty messages, and the stream ends with the job."""
        office = Office(replace(QUICK, heartbeat=0.02))
        office.upstream.add_job(BUCKET.name, "d1", RUNNING).output.CopyFrom(OUTPUT)
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
        """The poller is shared, the page URLs are not."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        request = pb.WatchPreviewJobRequest(bucket=BUCKET.name, job_id="d1")
        one, other = call(), call()
        first, second = office.jobs.watch(request, one), office.jobs.watch(request, other)
        async with aclosing(first), aclosing(second):
            assert (await anext(first)).job == (await anext(second)).job
        assert (one.response.cache, other.response.cache) == ("miss", "coalesced")

    async def test_closing_a_watch_releases_its_poller(self, office: Office) -> None:
        """The last subscription that is closed cancels the poller."""
        office.upstream.add_job(BUCKET.name, "d1", RUNNING)
        request = pb.WatchPreviewJobRequest(bucket=BUCKET.name, job_id="d1")
        async with aclosing(office.jobs.watch(request, call())) as stream:
            await anext(stream)
            assert office.telemetry.watchers == 1
        assert office.telemetry.watchers == 0
