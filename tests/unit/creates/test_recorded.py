"""Creates with a record: at most one job for an id, whatever fails, and what each caller is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.records import State
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.operations import CreateJob, ListJobs
from docpreview_gateway.upstream.wire.user_data import MARKER_PREFIX, split_user_data
from tests.fakes.creates import MemoryCreates
from tests.unit.creates.worlds import (
    BUCKET,
    COUNTED,
    DEDUPES,
    EXCLUSIVE,
    FENCE,
    HOST,
    ONE,
    TIMING,
    Held,
    World,
    name_of,
    request,
    selecting,
)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_repeated_id_gets_the_first_job_from_any_process(world: World) -> None:
    asked = request()
    first = await world.create(asked)
    assert (await world.create(asked)).job_id == first.job_id
    assert (await world.create(asked, at=world.process())).job_id == first.job_id
    assert world.cloud.posts == 1


async def test_a_repeated_id_costs_one_round_trip_and_a_new_one_two(world: World) -> None:
    asked = request()
    await world.create(asked)
    assert world.store.calls == {"begin": 1, "change": 1}
    await world.create(asked)
    assert world.store.calls == {"begin": 2, "change": 1}


async def test_a_repeated_id_is_remembered_in_lower_case(world: World) -> None:
    """UUIDs are equal in any case."""
    asked = request()
    job = await world.create(asked)
    assert (await world.create(request(asked.request_id.upper()))).job_id == job.job_id


@pytest.mark.parametrize(
    "same",
    [
        {"options": PreviewOptions()},
        {"output": request().output},
    ],
    ids=["options {}", "equal"],
)
async def test_a_repeat_that_asks_for_the_same_in_other_words_gets_the_job(world: World, same: dict[str, Any]) -> None:
    asked = request()
    job = await world.create(asked)
    assert (await world.create(request(asked.request_id, **same))).job_id == job.job_id


async def test_a_repeat_that_names_the_default_output_bucket_gets_the_job(world: World) -> None:
    asked = request()
    job = await world.create(asked)
    again = request(asked.request_id)
    again.output.bucket, again.output.region = BUCKET.name, BUCKET.region
    assert (await world.create(again)).job_id == job.job_id


async def test_a_repeat_with_fields_that_this_version_does_not_know_gets_the_job(world: World) -> None:
    asked = request()
    job = await world.create(asked)
    newer = CreatePreviewJobRequest.FromString(asked.SerializeToString() + b"\xf8\x3f\x01")
    assert (await world.create(newer)).job_id == job.job_id


@pytest.mark.parametrize(
    "other",
    [{"input_object": "b.pdf"}, {"options": PreviewOptions(password="other")}, {"user_data": "x"}, {"queue_id": "p2"}],
    ids=["document", "password", "user data", "queue"],
)
async def test_an_id_with_another_request_is_refused(world: World, other: dict[str, object]) -> None:
    asked = request(options=PreviewOptions(password="first"))
    await world.create(asked)
    changed = CreatePreviewJobRequest()
    changed.CopyFrom(asked)
    changed.MergeFrom(CreatePreviewJobRequest(**other))  # type: ignore[arg-type]
    error = await world.error(changed)
    assert (name_of(error), error.retry_after) == ("REQUEST_ID_REUSED", None)
    assert world.cloud.posts == 1


async def test_ids_of_two_callers_are_two_creates(world: World) -> None:
    asked = request()
    first, second = await world.create(asked), await world.create(asked, Caller("two"))
    assert first.job_id != second.job_id


async def test_creates_without_an_id_make_a_job_each(world: World) -> None:
    first, second = await world.create(request("")), await world.create(request(""))
    assert first.job_id != second.job_id


async def test_a_create_of_which_nothing_is_promised_has_a_marker_and_no_record(world: World) -> None:
    """While the cloud is known to echo."""
    await world.create(request())
    await world.parts.history.read(BUCKET, world.cloud.now() - 10, world.cloud.now() + 10)
    calls = dict(world.store.calls)
    job = await world.create(request(""))
    text, marker = split_user_data(world.cloud.jobs[job.job_id][0].user_data)
    assert (text, marker[:4]) == ("", MARKER_PREFIX)
    assert world.store.calls == calls


async def test_every_create_is_recorded_as_long_as_the_echo_is_not_proven(world: World) -> None:
    """An unmarked job could be any of ours."""
    await world.create(request(""))
    assert len(world.records) == 1


async def test_nothing_is_signed_before_a_date_was_heard(world: World) -> None:
    """One cheap read goes first, for all creates together."""
    await asyncio.gather(*(world.create(request()) for _ in range(3)))
    first, *others = world.cloud.asked
    assert isinstance(first, ListJobs)
    assert first.size == 1
    assert all(isinstance(each, CreateJob) for each in others)
    assert all(abs(each.sign_start + 60 - world.cloud.now()) < 2 for each in world.records)


async def test_a_create_is_not_sent_when_the_cloud_tells_no_time(world: World) -> None:
    world.cloud.list_failures = [UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down", retry_after=1.0)]
    assert name_of(await world.error(request())) == "UPSTREAM_UNAVAILABLE"
    assert world.cloud.posts == 0
    assert world.records == []


async def test_a_create_is_sent_when_a_refusal_tells_the_time(world: World) -> None:
    """The read that asks for the time may be refused; its answer has a `Date` like any other."""
    world.cloud.list_failures = [UpstreamError(reasons.ERROR_REASON_UPSTREAM_ACCESS_DENIED, "no lists")]
    world.cloud.failures_have_dates = True
    await world.create(request())
    assert world.cloud.posts == 1


async def test_a_create_whose_host_sends_no_date_at_all_is_not_signed_by_our_own_clock(world: World) -> None:
    """It is years behind here; it may as well be hours ahead."""
    world.cloud.has_dates = False
    assert name_of(await world.error(request())) == "UPSTREAM_BAD_RESPONSE"
    assert world.cloud.posts == 0
    assert world.records == []


async def test_a_create_is_signed_for_45_seconds_by_the_clouds_time(world: World) -> None:
    await world.create(request())
    (sent,) = [each for each in world.cloud.asked if isinstance(each, CreateJob)]
    assert sent.flight is not None
    now = world.cloud.now()
    assert sent.flight.window.begin == pytest.approx(now - 60, abs=1)
    assert sent.flight.window.end == pytest.approx(now + 45, abs=1)


async def test_calls_with_one_id_join_the_create_in_flight(world: World) -> None:
    """Another request with the id is refused at once."""
    held = Held(sent=True)
    world.cloud.fates = [held]
    asked = request()
    calls = [asyncio.create_task(world.create(asked)) for _ in range(5)]
    await held.began.wait()
    assert name_of(await world.error(request(asked.request_id, input_object="b.pdf"))) == "REQUEST_ID_REUSED"
    held.go.set()
    assert len({job.job_id for job in await asyncio.gather(*calls)}) == 1
    assert world.cloud.posts == 1


async def test_a_caller_that_leaves_before_the_first_byte_gives_its_pages_back_at_once(world: World) -> None:
    held = Held(sent=False)
    world.cloud.fates = [held]
    asked = request()
    leaving = asyncio.create_task(world.create(asked, COUNTED))
    await held.began.wait()
    assert world.pages() == (0, 40)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    before = loop_time()
    await world.parts.creates.drained()
    assert loop_time() == before
    assert world.pages() == (0, 0)
    assert world.record(asked, COUNTED) is None
    assert not world.cloud.jobs


async def test_of_two_callers_the_first_may_leave_and_the_other_gets_the_job(world: World) -> None:
    held = Held(sent=False)
    world.cloud.fates = [held]
    asked = request()
    leaving = asyncio.create_task(world.create(asked))
    await held.began.wait()
    staying = asyncio.create_task(world.create(asked))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    held.go.set()
    assert (await staying).job_id
    assert world.cloud.posts == 1


async def test_a_caller_that_leaves_after_the_first_byte_changes_nothing(world: World) -> None:
    """The create goes on, `drained` waits for it, its pages stay reserved, and a repeat gets its job."""
    held = Held(sent=True)
    world.cloud.fates = [held]
    asked = request()
    leaving = asyncio.create_task(world.create(asked, COUNTED))
    await held.began.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    drained = asyncio.create_task(world.parts.creates.drained())
    await asyncio.sleep(1)
    assert not drained.done()
    held.go.set()
    await drained
    (job_id,) = world.cloud.jobs
    assert (await world.create(asked, COUNTED)).job_id == job_id
    assert world.pages() == (0, 40)
    assert world.cloud.posts == 1


async def test_a_deadline_before_the_first_byte_says_that_nothing_was_sent(world: World) -> None:
    held = Held(sent=False)
    world.cloud.fates = [held]
    asked = request()
    assert name_of(await world.error(asked, COUNTED, seconds=2)) == "DEADLINE_EXCEEDED"
    await world.parts.creates.drained()
    assert world.record(asked, COUNTED) is None
    assert world.pages() == (0, 0)


async def test_a_deadline_after_the_first_byte_is_a_create_in_progress(world: World) -> None:
    held = Held(sent=True)
    world.cloud.fates = [held]
    asked = request()
    error = await world.error(asked, seconds=2)
    assert (name_of(error), error.retry_after) == ("CREATE_IN_PROGRESS", 1)
    held.go.set()
    assert (await world.create(asked)).job_id
    assert world.cloud.posts == 1


async def test_a_deadline_after_the_first_byte_without_id_is_an_unknown_outcome(world: World) -> None:
    """A repeat would be another create: the caller is told when a list is proof."""
    held = Held(sent=True)
    world.cloud.fates = [held]
    error = await world.error(request(""), COUNTED, seconds=2)
    assert name_of(error) == "CREATE_OUTCOME_UNKNOWN"
    assert error.retry_after == pytest.approx(TIMING.watch, abs=4)
    held.go.set()
    await world.parts.creates.drained()
    assert world.pages() == (0, 40)


async def test_a_create_that_waited_too_long_for_its_turn_is_not_sent(world: World) -> None:
    """Its signature ends. The id is free again, and its pages are."""
    held = Held(sent=False)
    world.cloud.fates = [held]
    asked = request()
    waiting = asyncio.create_task(world.error(asked, COUNTED, seconds=100))
    await held.began.wait()
    await asyncio.sleep(46)
    held.go.set()
    assert name_of(await waiting) in {"OVERLOADED", "DEADLINE_EXCEEDED"}
    assert world.record(asked, COUNTED) is None
    assert world.pages() == (0, 0)
    assert not world.cloud.jobs


@pytest.mark.parametrize("fate", ["unsent", UpstreamError(reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND, "no")])
async def test_a_create_that_was_not_sent_or_was_refused_leaves_its_id_and_its_pages_free(
    world: World, fate: GatewayError
) -> None:
    world.cloud.fates = [fate]
    asked = request()
    error = await world.error(asked, COUNTED)
    assert name_of(error) in {"UPSTREAM_UNREACHABLE", "INPUT_OBJECT_NOT_FOUND"}
    assert world.pages() == (0, 0)
    assert (await world.create(asked, COUNTED)).job_id
    assert len(world.cloud.jobs) == 1


async def test_a_release_that_the_store_does_not_answer_is_made_after_the_fence(world: World) -> None:
    """Until then the id is OPEN and its pages are reserved."""
    world.cloud.fates = ["unsent"]
    world.store.fail_before, world.store.failing = 1, {"change"}
    asked = request()
    await world.error(asked, COUNTED)
    assert world.pages() == (0, 40)
    await world.settle(1)
    await world.settle(45 + FENCE + 5)
    for _ in range(3):
        await world.settle(TIMING.watch)
    assert world.record(asked, COUNTED) is None
    assert world.pages() == (0, 0)


async def test_a_create_refused_for_the_clock_is_signed_anew_once(world: World) -> None:
    """The first `Date` was wrong by an hour; nothing was made by it."""
    world.cloud.lies = [3600.0]
    asked = request()
    job = await world.create(asked)
    assert job.job_id
    assert world.cloud.posts == 2
    record = world.record(asked)
    assert record is not None
    assert record.sign_start + 60 == pytest.approx(world.cloud.now(), abs=2)


async def test_a_create_refused_for_the_clock_twice_is_not_made_and_its_id_is_free(world: World) -> None:
    world.cloud.skew = 3600.0
    asked = request()
    error = await world.error(asked, COUNTED)
    assert name_of(error) == "CLOCK_SKEW"
    assert world.cloud.posts == 2
    assert world.record(asked, COUNTED) is None
    assert world.pages() == (0, 0)


async def test_a_date_of_a_refusal_is_forgotten_when_it_helped_nothing(world: World) -> None:
    """A wrong `Date` that moves the clock far is believed only if the cloud then accepts."""
    await world.create(request())
    world.cloud.skew = 500.0
    world.cloud.lies = [7200.0, 7200.0]
    assert name_of(await world.error(request())) == "CLOCK_SKEW"
    assert world.parts.times.now(HOST) == pytest.approx(world.cloud.now(), abs=2)


async def test_a_window_that_was_signed_ahead_stays_in_what_is_looked_through(world: World) -> None:
    """`first_start` is the earliest of all attempts."""
    world.cloud.lies = [3600.0]
    asked = request()
    await world.create(asked)
    record = world.record(asked)
    assert record is not None
    assert record.first_start <= world.cloud.now() - 59


async def test_a_job_whose_reply_was_lost_is_found_by_the_same_call(world: World) -> None:
    world.cloud.fates = ["lost"]
    asked = request(user_data="mine")
    job = await world.create(asked)
    assert set(world.cloud.jobs) == {job.job_id}
    assert job.user_data == "mine"
    assert world.telemetry.ledger_events[:2] == ["unknown", "found"]
    assert (await world.create(asked)).job_id == job.job_id
    assert world.cloud.posts == 1


async def test_a_create_is_sent_as_its_caller_and_its_job_is_looked_for_as_the_gateway(world: World) -> None:
    await world.create(request())
    world.cloud.calls.clear()
    world.cloud.fates = ["lost"]
    await world.create(request(), Caller("shop"))
    assert [(call.caller.name, call.request_id) for call in world.cloud.calls] == [("shop", "r1"), ("gateway", "")]


async def test_an_unknown_outcome_tells_the_time_to_the_fence_and_sends_nothing_again(world: World) -> None:
    world.cloud.lag = 30.0
    world.cloud.fates = ["lost"]
    asked = request()
    error = await world.error(asked, seconds=2)
    assert name_of(error) == "CREATE_OUTCOME_UNKNOWN"
    assert error.retry_after == pytest.approx(TIMING.watch, abs=4)
    await asyncio.sleep(30)
    (job_id,) = world.cloud.jobs
    assert (await world.create(asked)).job_id == job_id
    assert world.cloud.posts == 1


async def test_a_create_that_never_arrived_is_sent_again_only_after_its_fence(world: World) -> None:
    world.cloud.fates = ["never"]
    asked = request()
    assert name_of(await world.error(asked, seconds=2)) == "CREATE_OUTCOME_UNKNOWN"
    for _ in range(5):
        await asyncio.sleep(28)
        assert name_of(await world.error(asked, seconds=2)) in {"CREATE_OUTCOME_UNKNOWN", "CREATE_IN_PROGRESS"}
        assert world.cloud.posts == 1
    await asyncio.sleep(28)
    assert (await world.create(asked)).job_id
    assert world.cloud.posts == 2


@pytest.mark.parametrize("late", [20.0, 44.0, 60.0, 150.0])
async def test_a_request_that_arrives_late_makes_no_second_job(world: World, late: float) -> None:
    """In its window it is found; after it the cloud refuses it."""
    world.cloud.fates = [late]
    asked = request()
    assert name_of(await world.error(asked, seconds=2)) == "CREATE_OUTCOME_UNKNOWN"
    jobs = set()
    for _ in range(20):
        await asyncio.sleep(20)
        try:
            jobs.add((await world.create(asked, seconds=5)).job_id)
        except GatewayError as error:
            assert name_of(error) in {"CREATE_OUTCOME_UNKNOWN", "CREATE_IN_PROGRESS"}  # noqa: PT017
    assert jobs == set(world.cloud.jobs)
    assert len(jobs) == 1


async def test_a_create_of_a_process_that_died_is_in_progress_and_then_sent_by_another(world: World) -> None:
    """It was OPEN, and nobody knows whether it was sent."""
    held = Held(sent=True)
    world.cloud.fates = [held]
    asked, dead = request(), world.process()
    dying = asyncio.create_task(world.create(asked, at=dead, seconds=1000))
    await held.began.wait()
    error = await world.error(asked, seconds=3)
    assert name_of(error) in {"CREATE_IN_PROGRESS", "CREATE_OUTCOME_UNKNOWN"}
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    await asyncio.sleep(TIMING.watch + 10)
    assert (await world.create(asked, seconds=29)).job_id
    assert world.cloud.posts == 2


async def test_a_create_that_another_process_finishes_meanwhile_is_answered_with_its_job(world: World) -> None:
    held = Held(sent=True)
    world.cloud.fates = [held]
    asked = request()
    first = asyncio.create_task(world.create(asked))
    await held.began.wait()
    second = asyncio.create_task(world.create(asked, at=world.process()))
    await asyncio.sleep(2)
    held.go.set()
    assert (await first).job_id == (await second).job_id
    assert world.cloud.posts == 1


async def test_nothing_is_sent_when_the_create_cannot_be_recorded(world: World) -> None:
    world.store.fail_before = 1
    error = await world.error(request())
    assert (name_of(error), error.retry_after) == ("LEDGER_UNAVAILABLE", 1)
    assert world.cloud.posts == 0


async def test_a_record_that_cannot_be_read_is_neither_replaced_nor_sent(world: World) -> None:
    asked = request()
    await world.create(asked)
    world.data.unreadable.update(world.data.records)
    before = dict(world.data.records)
    assert name_of(await world.error(asked)) == "LEDGER_UNAVAILABLE"
    assert world.data.records == before
    assert world.cloud.posts == 1


async def test_a_begin_whose_answer_was_lost_is_found_as_our_own_and_the_id_makes_one_job(world: World) -> None:
    world.store.fail_after, world.store.failing = 1, {"begin"}
    asked = request()
    assert name_of(await world.error(asked)) == "LEDGER_UNAVAILABLE"
    assert world.cloud.posts == 0
    await asyncio.sleep(TIMING.watch + 60)
    for _ in range(10):
        try:
            await world.create(asked, seconds=29)
            break
        except GatewayError:
            await asyncio.sleep(30)
    assert len(world.cloud.jobs) == 1


async def test_a_job_that_cannot_be_recorded_is_told_all_the_same_and_found_by_its_marker(world: World) -> None:
    world.store.fail_before, world.store.failing = 1, {"change"}
    asked = request()
    job = await world.create(asked)
    record = world.record(asked)
    assert record is not None
    assert record.state is State.OPEN
    assert (await world.create(asked, at=world.process())).job_id == job.job_id
    assert world.cloud.posts == 1


async def test_duplicates_that_a_list_shows_are_reported_and_the_earliest_job_is_told(world: World) -> None:
    """One of them was made by a store that was lost."""
    world.cloud.fates = ["lost"]
    world.cloud.lag = 5.0
    asked = request()
    await world.error(asked, seconds=2)
    (first,) = list(world.cloud.jobs)
    second = PreviewJob()
    second.CopyFrom(world.cloud.jobs[first][0])
    second.job_id = "second"
    second.create_time.seconds += 3
    world.cloud.add(second)
    await asyncio.sleep(20)
    assert (await world.create(asked)).job_id == first
    assert "found" in world.telemetry.ledger_events


class TestWithoutEcho:
    """The cloud does not say what user data a job has."""

    @pytest.fixture
    def world(self) -> World:
        made = World()
        made.cloud.echo = False
        return made

    async def test_a_job_that_may_be_the_creates_is_not_told_but_ambiguous_after_the_fence(self, world: World) -> None:
        """The place is not declared exclusive: another program may have made it."""
        world.cloud.fates = ["lost"]
        asked = request()
        assert name_of(await world.error(asked, seconds=2)) == "CREATE_OUTCOME_UNKNOWN"
        await asyncio.sleep(TIMING.watch + 10)
        error = await world.error(asked, seconds=5)
        assert (name_of(error), error.retry_after) == ("CREATE_OUTCOME_AMBIGUOUS", None)
        assert next(iter(world.cloud.jobs)) in error.message
        assert world.cloud.posts == 1

    async def test_a_request_too_large_to_be_kept_makes_no_second_job(self, world: World) -> None:
        """More than 8 KiB: only a digest of it is on record."""
        world.cloud.fates = ["lost"]
        asked = request(options=PreviewOptions(image_params="\U0001f4c4" * 2048))
        await world.error(asked, seconds=2)
        await asyncio.sleep(TIMING.watch + 10)
        assert name_of(await world.error(asked, seconds=5)) == "CREATE_OUTCOME_AMBIGUOUS"
        assert world.cloud.posts == 1

    async def test_a_job_in_an_exclusive_bucket_is_told_after_the_fence(self, world: World) -> None:
        world.cloud.fates = ["lost"]
        asked = request(bucket=world.buckets[1])
        await world.error(asked, seconds=2)
        await asyncio.sleep(TIMING.watch + 10)
        assert (await world.create(asked, seconds=5)).job_id in world.cloud.jobs
        assert world.cloud.posts == 1

    @pytest.mark.parametrize("where", ["here", "elsewhere"])
    async def test_an_equal_create_in_an_exclusive_bucket_waits_for_the_one_in_flight(
        self, world: World, where: str
    ) -> None:
        """Until its caller's deadline, with nothing sent and no page reserved; and it is sent as soon as it may be."""
        at = world.parts if where == "here" else world.process()
        held = Held(sent=True)
        world.cloud.fates = [held]
        first = asyncio.create_task(world.create(request(bucket=EXCLUSIVE), seconds=200))
        await held.began.wait()
        error = await world.error(request(bucket=EXCLUSIVE), COUNTED, at=at, seconds=4)
        assert (name_of(error), error.retry_after) == ("CREATE_IN_PROGRESS", 1)
        assert "nothing was sent" in error.message
        error = await world.error(request("", bucket=EXCLUSIVE), at=at, seconds=50)
        assert (name_of(error), world.cloud.posts, world.pages().reserved) == ("CREATE_IN_PROGRESS", 1, 0)
        assert "nothing was sent" in error.message
        second = asyncio.create_task(world.create(request(bucket=EXCLUSIVE), COUNTED, at=at))
        await asyncio.sleep(3)
        held.go.set()
        assert (await first).job_id != (await second).job_id

    @pytest.mark.parametrize(
        "other",
        [
            request(),
            request(bucket=EXCLUSIVE, output=ObjectLocation(object="another/p-${Page}.jpg")),
            request(bucket=EXCLUSIVE, output=ObjectLocation(object="out/${RequestToken}/p-${Page}.jpg")),
        ],
        ids=["not exclusive", "elsewhere", "with a token"],
    )
    async def test_a_create_whose_job_can_be_told_from_that_in_flight_does_not_wait(
        self, world: World, other: CreatePreviewJobRequest
    ) -> None:
        """Or never can be: nobody makes a promise of jobs in a bucket that is not exclusive."""
        held = Held(sent=True)
        world.cloud.fates = [held]
        same = request()
        same.CopyFrom(other)
        same.request_id = ""
        first = asyncio.create_task(world.create(same if "Token" in other.output.object else request(bucket=EXCLUSIVE)))
        await held.began.wait()
        assert (await world.create(other, seconds=2)).job_id
        held.go.set()
        await first

    async def test_equal_creates_in_an_exclusive_bucket_do_not_wait_while_the_cloud_echoes(self, world: World) -> None:
        world.cloud.echo = True
        await world.create(request(bucket=EXCLUSIVE))
        await world.parts.history.read(EXCLUSIVE, world.cloud.now() - 10, world.cloud.now() + 10)
        held = Held(sent=True)
        world.cloud.fates = [held]
        first = asyncio.create_task(world.create(request(bucket=EXCLUSIVE)))
        await held.began.wait()
        assert (await world.create(request(bucket=EXCLUSIVE), seconds=2)).job_id
        held.go.set()
        await first

    async def test_a_create_that_stays_unknown_holds_others_up_until_a_minute_after_its_fence(
        self, world: World
    ) -> None:
        """It may never be told from others. Their own jobs are not taken for its job, nor its job for theirs."""
        world.cloud.fates = ["lost"]
        asked = request(bucket=EXCLUSIVE)
        await world.error(asked, seconds=2)
        record = world.record(asked)
        assert record is not None
        left = record.sign_end + FENCE + 61 - world.cloud.now()
        await asyncio.sleep(left - 4)
        assert name_of(await world.error(request(bucket=EXCLUSIVE), seconds=2)) == "CREATE_IN_PROGRESS"
        await asyncio.sleep(3)
        later = await world.create(request(bucket=EXCLUSIVE))
        assert (await world.create(asked)).job_id == "d0000" != later.job_id

    async def test_of_equal_creates_in_an_exclusive_bucket_each_is_told_its_own_job(self, world: World) -> None:
        """The reply of each is lost, and they come at the same time, to two processes."""
        world.cloud.fates = ["lost", "lost"]
        asked = [request(bucket=EXCLUSIVE) for _ in range(2)]
        at = [world.parts, world.process()]
        told: dict[str, str] = {}
        for _ in range(100):
            for each, process in zip(asked, at, strict=True):
                try:
                    told[each.request_id] = (await world.create(each, at=process, seconds=5)).job_id
                except GatewayError as error:
                    assert name_of(error) in {"CREATE_IN_PROGRESS", "CREATE_OUTCOME_UNKNOWN"}  # noqa: PT017
            await asyncio.sleep(5)
        assert told == {each.request_id: job_id for each, job_id in zip(asked, world.cloud.jobs, strict=True)}

    async def test_two_jobs_of_equal_creates_in_an_exclusive_bucket_are_never_mixed_up(self, world: World) -> None:
        """P2: a job that is told was made for that id; two ids never get one job."""
        world.cloud.fates = ["lost", "lost"]
        asked = [request(bucket=world.buckets[1]) for _ in range(2)]
        told: list[str] = []
        await asyncio.gather(*(world.error(each, seconds=2) for each in asked))
        await asyncio.sleep(TIMING.watch + 10)
        for each in asked:
            try:
                told.append((await world.create(each, seconds=5)).job_id)
            except GatewayError as error:
                assert name_of(error) in {"CREATE_OUTCOME_AMBIGUOUS", "CREATE_OUTCOME_UNKNOWN"}  # noqa: PT017
        assert len(set(told)) == len(told)

    async def test_a_job_with_the_token_in_its_path_is_told_at_once(self, world: World) -> None:
        world.cloud.fates = ["lost"]
        asked = request()
        asked.output.object = "out/${RequestToken}/p-${Page}.jpg"
        job = await world.create(asked)
        assert "${RequestToken}" not in job.output.object
        assert world.cloud.posts == 1

    async def test_a_create_without_any_job_is_absent_and_sent_again(self, world: World) -> None:
        world.cloud.fates = ["never"]
        asked = request()
        await world.error(asked, seconds=2)
        await asyncio.sleep(TIMING.watch + 10)
        assert (await world.create(asked, seconds=10)).job_id
        assert world.cloud.posts == 2

    async def test_the_job_of_another_create_is_neither_told_nor_ambiguous(self, world: World) -> None:
        """It is bound to its own record, so the lost one is absent."""
        other = await world.create(request())
        world.cloud.fates = ["never"]
        asked = request()
        await world.error(asked, seconds=2)
        await asyncio.sleep(TIMING.watch + 10)
        job = await world.create(asked, seconds=10)
        assert job.job_id != other.job_id
        assert world.cloud.posts == 3


async def test_an_answer_of_dedupe_is_bound_to_a_new_id_in_two_round_trips(world: World) -> None:
    first = await world.create(request(""), DEDUPES)
    world.store.calls.clear()
    asked = request()
    assert (await world.create(asked, DEDUPES)).job_id == first.job_id
    assert world.store.calls == {"begin": 1, "change": 1}
    world.store.calls.clear()
    assert (await world.create(asked, DEDUPES)).job_id == first.job_id
    assert world.store.calls == {"begin": 1}


async def test_a_selection_is_part_of_the_body(world: World) -> None:
    asked = selecting("1-3")
    await world.create(asked)
    assert name_of(await world.error(selecting("1-4", asked.request_id))) == "REQUEST_ID_REUSED"


async def test_two_processes_that_get_a_new_id_at_once_send_one_create(world: World) -> None:
    world.cloud.delay = 0.5
    asked = request()
    other = world.process()
    jobs = await asyncio.gather(world.create(asked, ONE), world.create(asked, ONE, at=other))
    assert jobs[0].job_id == jobs[1].job_id
    assert world.cloud.posts == 1
    assert isinstance(world.store, MemoryCreates)


async def test_a_time_that_the_cloud_did_not_tell_is_asked_for_again_by_the_next_create(world: World) -> None:
    world.cloud.list_failures = [UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down")]
    assert name_of(await world.error(request())) == "UPSTREAM_UNAVAILABLE"
    assert (await world.create(request())).job_id


async def test_a_begin_whose_answer_was_lost_is_released_at_once(world: World) -> None:
    """It is not sent, so nobody should have to wait for the end of its signature."""
    world.store.failing, world.store.fail_after = ("begin",), 1
    assert name_of(await world.error(request(), COUNTED)) == "LEDGER_UNAVAILABLE"
    await world.parts.creates.drained()
    assert (world.records, world.pages().reserved) == ([], 0)


async def test_a_create_that_cannot_be_recorded_is_not_sent_where_its_job_could_be_taken_for_anothers(
    world: World,
) -> None:
    """In an exclusive bucket without echo jobs are told by their place; with an echo each one has its marker."""
    world.store.failing, world.store.fail_before = ("begin",), 2
    asked = request("", bucket=EXCLUSIVE)
    refused = await world.error(asked, DEDUPES)
    assert name_of(refused) == "LEDGER_UNAVAILABLE"
    assert "with request_id or without" in refused.message
    assert world.cloud.posts == 0
    await world.create(request(bucket=EXCLUSIVE), at=world.process())
    await world.parts.history.read(EXCLUSIVE, world.cloud.now() - 10, world.cloud.now() + 10)
    assert world.parts.history.echoes(EXCLUSIVE)
    assert (await world.create(asked, DEDUPES)).job_id


async def test_a_caller_that_leaves_while_its_create_is_being_recorded_leaves_no_record(world: World) -> None:
    begin, begun = world.store.begin, asyncio.Event()

    async def begin_and_answer_never(*args: Any, **how: Any) -> Any:
        await begin(*args, **how)
        begun.set()
        await asyncio.Event().wait()

    world.store.begin = begin_and_answer_never  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as lines:
        create = asyncio.create_task(world.create(request(), COUNTED))
        await begun.wait()
        assert len(world.records) == 1
        create.cancel()
        await asyncio.gather(create, return_exceptions=True)
        await world.parts.creates.drained()
    assert (world.records, world.pages().reserved, world.cloud.posts) == ([], 0, 0)
    assert [line for line in lines if line["log_level"] == "error"] == []


async def test_a_create_that_was_never_recorded_is_not_counted_as_released(world: World) -> None:
    world.store.fail_before = 9
    assert name_of(await world.error(request())) == "LEDGER_UNAVAILABLE"
    await world.parts.creates.drained()
    assert world.telemetry.ledger_events == []


async def test_a_repeated_id_is_counted_as_replayed(world: World) -> None:
    asked = request()
    await world.create(asked)
    assert "replayed" not in world.telemetry.ledger_events
    await world.create(asked)
    assert world.telemetry.ledger_events[-1] == "replayed"


async def test_a_repeated_id_is_not_counted_as_allowed_by_the_budget(world: World) -> None:
    asked = request()
    for _ in range(2):
        await world.create(asked, COUNTED)
        assert world.telemetry.limits == [("shop", "page_budget", "allowed")]


@pytest.mark.parametrize(
    ("fate", "event"),
    [("unsent", "released"), (UpstreamError(reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND, "no"), "rejected")],
)
async def test_a_create_that_made_no_job_is_reported_as_released_or_as_rejected_by_the_cloud(
    world: World, fate: Any, event: str
) -> None:
    world.cloud.fates = [fate]
    await world.error(request())
    assert world.telemetry.ledger_events == [event]
