"""A stream of many jobs: what it tells of each, what it costs, and how it ends."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1 import preview_job_service_pb2 as pb
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview_gateway.jobs.many import PLACES
from docpreview_gateway.jobs.poller import Poller
from docpreview_gateway.limits.fair_shares import FairShares
from docpreview_gateway.model.call import MAX_REPLY_BYTES
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from tests.fakes.policies import caller_of
from tests.fakes.telemetry import FakeTelemetry
from tests.unit.conftest import BUCKET, QUICK, Office, call
from tests.unit.jobs.test_watching import next_polls, run_ready_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

RUNNING, SUCCESS = PreviewJob.STATE_RUNNING, PreviewJob.STATE_SUCCESS
Event = pb.WatchPreviewJobsResponse


def ids(count: int) -> list[str]:
    return [f"d{number}" for number in range(count)]


def running(office: Office, count: int) -> list[str]:
    """Ids of so many jobs that run."""
    for job_id in ids(count):
        office.upstream.add_job(BUCKET.name, job_id, RUNNING)
    return ids(count)


def finish(office: Office, *job_ids: str) -> None:
    for job_id in job_ids:
        office.upstream.finish(BUCKET.name, job_id)


def request(job_ids: list[str], **fields: object) -> pb.WatchPreviewJobsRequest:
    return pb.WatchPreviewJobsRequest(bucket=BUCKET.name, job_ids=job_ids, **fields)  # type: ignore[arg-type]


def told(event: Event) -> tuple[str, str]:
    """Id and state, or reason, of an event."""
    match event.WhichOneof("event"):
        case "job":
            return event.job.job_id, PreviewJob.State.Name(event.job.state).removeprefix("STATE_")
        case "error":
            return event.error.job_id, r.ErrorReason.Name(event.error.reason).removeprefix("ERROR_REASON_")
    return "", "heartbeat"


async def some(stream: AsyncGenerator[Event], count: int) -> list[tuple[str, str]]:
    return [told(await anext(stream)) for _ in range(count)]


async def rest(stream: AsyncGenerator[Event]) -> list[tuple[str, str]]:
    return [told(event) async for event in stream]


def ended_jobs_in_memory(office: Office) -> int:
    """Ended pollers, each with its job, which somebody still holds."""
    gc.collect()
    pollers = [found for found in gc.get_objects() if isinstance(found, Poller)]
    return sum(found.is_over for found in pollers if found._upstream is office.upstream)


class TestWhatIsTold:
    async def test_each_job_is_told_as_it_is_then_its_changes_and_the_stream_ends_with_the_last(
        self, office: Office
    ) -> None:
        """Ended jobs are told once."""
        job_ids = running(office, 25)
        finish(office, "d3")
        async with asyncio.timeout(20), aclosing(office.jobs.watch_many(request(job_ids), call())) as stream:
            first = await some(stream, 25)
            assert dict(first) == dict.fromkeys(job_ids, "RUNNING") | {"d3": "SUCCESS"}
            finish(office, *(job_id for job_id in job_ids if job_id != "d3"))
            after = await rest(stream)
        assert sorted(after) == sorted((job_id, "SUCCESS") for job_id in job_ids if job_id != "d3")

    async def test_an_id_that_is_given_twice_is_followed_once(self, office: Office) -> None:
        running(office, 2)
        finish(office, "d0", "d1")
        assert sorted(await rest(office.jobs.watch_many(request(["d0", "d1", "d0"]), call()))) == [
            ("d0", "SUCCESS"),
            ("d1", "SUCCESS"),
        ]

    async def test_a_missing_job_is_an_error_of_its_id_and_the_others_go_on(self, office: Office) -> None:
        job_ids = running(office, 2)
        async with asyncio.timeout(20), aclosing(office.jobs.watch_many(request(["x", *job_ids]), call())) as stream:
            assert ("x", "JOB_NOT_FOUND") in await some(stream, 3)
            finish(office, *job_ids)
            assert sorted(await rest(stream)) == [("d0", "SUCCESS"), ("d1", "SUCCESS")]

    async def test_a_hidden_job_is_told_like_a_missing_one_and_its_poller_ends(self, office: Office) -> None:
        """The same bytes but for the id."""
        running(office, 1)
        office.upstream.jobs[BUCKET.name, "d0"].input.object = "secret/a.pdf"
        caller = caller_of("mine", {BUCKET.name: ("mine/",)})
        events = [
            event async for event in office.jobs.watch_many(request(["d0", "d9"]), call()._replace(caller=caller))
        ]
        assert sorted(map(told, events)) == [("d0", "JOB_NOT_FOUND"), ("d9", "JOB_NOT_FOUND")]
        assert len({event.error.message.replace(event.error.job_id, "") for event in events}) == 1
        assert office.telemetry.pollers == 0

    async def test_a_job_whose_reads_fail_as_often_as_ends_a_watch_is_an_error(self, office: Office) -> None:
        """As often as `patience`, or once with an error that does not pass."""
        running(office, 1)
        error = UpstreamError(r.ERROR_REASON_UPSTREAM_UNAVAILABLE, "the cloud fails")
        office.upstream.failures = [error] * QUICK.schedule.patience
        assert await rest(office.jobs.watch_many(request(["d0"]), call())) == [("d0", "UPSTREAM_UNAVAILABLE")]
        office.upstream.failures = [UpstreamError(r.ERROR_REASON_UPSTREAM_ACCESS_DENIED, "no")]
        assert await rest(office.jobs.watch_many(request(["d0"]), call())) == [("d0", "UPSTREAM_ACCESS_DENIED")]

    async def test_an_unexpected_error_of_one_job_tells_nothing_of_it_and_leaves_the_others(
        self, office: Office
    ) -> None:
        running(office, 1)
        finish(office, "d0")
        office.upstream.failures = [ValueError("secret")]
        events = [event async for event in office.jobs.watch_many(request(["x", "d0"]), call())]
        assert sorted(map(told, events)) == [("d0", "SUCCESS"), ("x", "INTERNAL")]
        assert not any("secret" in str(event) for event in events)

    async def test_an_unchanged_stream_has_heartbeats(self) -> None:
        office = Office(replace(QUICK, heartbeat=0.01))
        running(office, 1)
        async with aclosing(office.jobs.watch_many(request(["d0"]), call())) as stream:
            assert await some(stream, 3) == [("d0", "RUNNING"), ("", "heartbeat"), ("", "heartbeat")]

    async def test_a_job_that_is_too_large_for_a_message_is_an_error_of_its_id(self, office: Office) -> None:
        running(office, 2)
        finish(office, "d0", "d1")
        office.upstream.jobs[BUCKET.name, "d0"].user_data = "x" * MAX_REPLY_BYTES
        found = await rest(office.jobs.watch_many(request(["d0", "d1"]), call()))
        assert sorted(found) == [("d0", "REPLY_TOO_LARGE"), ("d1", "SUCCESS")]

    async def test_pages_have_addresses_when_asked_for(self, office: Office) -> None:
        running(office, 1)
        office.upstream.jobs[BUCKET.name, "d0"].output.CopyFrom(
            ObjectLocation(bucket=BUCKET.name, object="out/p-${Page}.jpg")
        )
        finish(office, "d0")
        asked = request(["d0"])
        asked.page_url_ttl.seconds = 60
        events = [event async for event in office.jobs.watch_many(asked, call())]
        assert events[0].job.result.pages[0].url


class TestWhatItCosts:
    async def test_first_reads_come_a_few_at_a_time(self, office: Office) -> None:
        """Though the reader waits for all of them."""
        running(office, 100)
        finish(office, *ids(100))
        office.upstream.gate = asyncio.Event()
        reading = asyncio.ensure_future(rest(office.jobs.watch_many(request(ids(100)), call())))
        await run_ready_tasks()
        assert office.upstream.in_flight == PLACES
        office.upstream.gate.set()
        assert len(await reading) == 100
        assert office.upstream.most_in_flight == PLACES

    async def test_jobs_that_fail_at_first_keep_no_place_from_the_others(self) -> None:
        """They are tried again with growing pauses, and the others are told meanwhile."""
        office = Office(replace(QUICK, schedule=replace(QUICK.schedule, floor=60.0, cap=60.0)))
        running(office, 2 * PLACES)
        error = UpstreamError(r.ERROR_REASON_UPSTREAM_UNAVAILABLE, "the cloud fails")
        office.upstream.failures = [error] * PLACES
        async with asyncio.timeout(20), aclosing(office.jobs.watch_many(request(ids(2 * PLACES)), call())) as stream:
            assert dict(await some(stream, PLACES)) == dict.fromkeys(ids(2 * PLACES)[PLACES:], "RUNNING")

    async def test_the_poller_of_a_job_is_shared_with_watches_and_other_streams(self, office: Office) -> None:
        running(office, 3)
        single = pb.WatchPreviewJobRequest(bucket=BUCKET.name, job_id="d1")
        async with (
            aclosing(office.jobs.watch(single, call())) as alone,
            aclosing(office.jobs.watch_many(request(ids(3)), call())) as one,
            aclosing(office.jobs.watch_many(request(ids(3)), call())) as other,
        ):
            await anext(alone)
            await some(one, 3)
            await some(other, 3)
            assert (office.telemetry.pollers, office.telemetry.watchers) == (3, 3)

    async def test_a_slow_reader_gets_the_latest_state_of_each_and_no_backlog(self, office: Office) -> None:
        job_ids = running(office, 5)
        async with asyncio.timeout(20), aclosing(office.jobs.watch_many(request(job_ids), call())) as stream:
            await some(stream, 5)
            for state in (PreviewJob.STATE_PAUSED, RUNNING, PreviewJob.STATE_PAUSED):
                office.upstream.set_state(BUCKET.name, "d0", state)
                await next_polls(office, 10)
            assert await some(stream, 1) == [("d0", "PAUSED")]
            finish(office, *job_ids)
            assert sorted(await rest(stream)) == [(job_id, "SUCCESS") for job_id in job_ids]

    async def test_ended_jobs_that_a_slow_reader_has_not_read_are_let_go_but_a_few(self, office: Office) -> None:
        """The rest is read again when the reader comes to it, and nothing is lost."""
        job_ids = running(office, 5 * PLACES)
        async with asyncio.timeout(20), aclosing(office.jobs.watch_many(request(job_ids), call())) as stream:
            await some(stream, len(job_ids))
            finish(office, *job_ids)
            while office.telemetry.pollers:  # noqa: ASYNC110 - pollers end, and tell nobody
                await asyncio.sleep(0.001)
            assert office.watching._free == QUICK.jobs - len(job_ids)
            while ended_jobs_in_memory(office) > PLACES:  # noqa: ASYNC110 - callbacks that are due hold a few
                await asyncio.sleep(0)
            assert ended_jobs_in_memory(office) == PLACES
            assert sorted(await rest(stream)) == sorted((job_id, "SUCCESS") for job_id in job_ids)

    async def test_closing_the_stream_ends_its_pollers_and_frees_its_places(self, office: Office) -> None:
        async with aclosing(office.jobs.watch_many(request(running(office, 30)), call())) as stream:
            await some(stream, 15)
            assert office.telemetry.pollers > 10
        assert (office.telemetry.pollers, office.telemetry.watchers) == (0, 0)
        assert office.watching._free == QUICK.jobs

    async def test_streams_beyond_the_most_jobs_of_the_process_are_refused(self) -> None:
        """OVERLOADED before anything is read; jobs that have ended make room."""
        office = Office(replace(QUICK, jobs=3))
        running(office, 4)
        async with asyncio.timeout(20), aclosing(office.jobs.watch_many(request(ids(2)), call())) as stream:
            await some(stream, 2)
            with pytest.raises(GatewayError) as caught:
                await rest(office.jobs.watch_many(request(ids(4)), call()))
            assert (caught.value.reason, caught.value.retry_after) == (r.ERROR_REASON_OVERLOADED, 1.0)
            assert ("get", "d3") not in office.upstream.asked
            finish(office, *ids(4))
            assert len(await some(stream, 1)) == 1
            assert len(await rest(office.jobs.watch_many(request(["d2", "d3"]), call()))) == 2

    async def test_a_callers_jobs_are_within_its_fair_share_and_leave_room_when_they_end(self) -> None:
        """However its streams end: by themselves, closed, or refused."""
        shares = FairShares(100, "jobs", FakeTelemetry())
        office = Office(replace(QUICK, jobs=100), shares=shares)
        running(office, 80)
        async with asyncio.timeout(20), aclosing(office.jobs.watch_many(request(ids(50)), call())) as stream:
            await some(stream, 50)
            with pytest.raises(GatewayError) as caught:
                await rest(office.jobs.watch_many(request(ids(30)), call()))
            assert caught.value.reason == r.ERROR_REASON_CONCURRENCY_LIMITED
            finish(office, *ids(80))
            assert len(await rest(stream)) == 50
        async with asyncio.timeout(20), aclosing(office.jobs.watch_many(request(ids(75)), call())) as stream:
            await some(stream, 5)
        assert len(await rest(office.jobs.watch_many(request(ids(75)), call()))) == 75

    async def test_ids_that_no_cache_has_count_for_the_callers_rates(self, office: Office) -> None:
        """As in a batch: one is paid with the call, a cached one costs nothing, a hidden one as much as a missing."""
        charged: list[int] = []

        async def charge(calls: int) -> None:
            charged.append(calls)

        for job_id, key in (("d0", "mine/a"), ("d1", "secret/a")):
            job = office.upstream.add_job(BUCKET.name, job_id, SUCCESS)
            job.input.object = key
            office.upstream.cached[BUCKET.name, job_id] = job
        made = call()._replace(charge=charge, caller=caller_of("mine", {BUCKET.name: ("mine/",)}))
        assert len(await rest(office.jobs.watch_many(request(["d0", "d1", "d2", "d3"]), made))) == 4
        assert charged == [2]
        assert made.response.cache == ""


class TestTheEnd:
    async def test_between_two_events_a_stream_can_be_cancelled(self, office: Office) -> None:
        """Though further ones are there: a caller who has left may do so at any time."""
        running(office, 5)
        finish(office, *ids(5))
        async with aclosing(office.jobs.watch_many(request(ids(5)), call())) as stream:
            await some(stream, 1)
            await run_ready_tasks()
            assert len(office.upstream.asked) == 5
            reading = asyncio.ensure_future(rest(stream))
            asyncio.get_running_loop().call_soon(reading.cancel)
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert office.watching._free == QUICK.jobs

    @pytest.mark.parametrize("when", ["before", "while"])
    async def test_a_stopping_gateway_ends_the_whole_stream(self, office: Office, when: str) -> None:
        """SHUTTING_DOWN with the time after which to watch again, and no errors of single jobs."""
        stream = office.jobs.watch_many(request(running(office, 30)), call())
        if when == "while":
            await some(stream, 30)
        office.watching.drain()
        with pytest.raises(GatewayError) as caught:
            await rest(stream)
        assert (caught.value.reason, caught.value.retry_after) == (r.ERROR_REASON_SHUTTING_DOWN, 1.0)

    async def test_a_stream_ends_after_its_longest_lifetime(self) -> None:
        """Though its jobs have news all the time."""
        office = Office(replace(QUICK, stream=0.05))
        running(office, 1)
        stream = office.jobs.watch_many(request(["d0"]), call())

        async def changing() -> None:
            async for event in stream:
                state = PreviewJob.STATE_PAUSED if event.job.state == RUNNING else RUNNING
                office.upstream.set_state(BUCKET.name, "d0", state)

        with pytest.raises(GatewayError) as caught:
            await changing()
        assert (caught.value.reason, caught.value.retry_after) == (r.ERROR_REASON_WATCH_LIMIT_REACHED, 1.0)

    @pytest.mark.parametrize("job_ids", [[], ["d"] * 1001, ["no/id"]])
    async def test_an_invalid_request_reads_nothing(self, office: Office, job_ids: list[str]) -> None:
        with pytest.raises(GatewayError) as caught:
            await rest(office.jobs.watch_many(request(job_ids), call()))
        assert caught.value.reason == r.ERROR_REASON_INVALID_REQUEST
        assert office.upstream.asked == []
