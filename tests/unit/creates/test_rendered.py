"""Deduplication: which jobs are reused, which are not, and that no failure of a look fails a create."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview_gateway.creates.keys import is_unrecorded
from docpreview_gateway.creates.pages import Pages
from docpreview_gateway.creates.ports import Change
from docpreview_gateway.creates.records import State
from docpreview_gateway.creates.rendered import RenderedJobs
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import Caller, PageBudget
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.wire.user_data import read_marker, split_user_data
from tests.unit.creates.worlds import (
    BUCKET,
    DEDUPES,
    EXCLUSIVE,
    TIMING,
    Held,
    World,
    name_of,
    request,
)

BOTH = replace(DEDUPES, budget=PageBudget(per_day=100, estimate=40))


@pytest.fixture
def world() -> World:
    return World()


async def job_of(world: World, caller: Caller = DEDUPES, key: str = "a.pdf", request_id: str = "", **how: Any) -> str:
    """The id of the job of a create that anybody can have made."""
    fields = {name: how.pop(name) for name in ("options", "output", "user_data") if name in how}
    return (await world.create(request(request_id, input_object=key, **fields), caller, **how)).job_id


async def test_an_equal_create_gets_the_job_of_the_first_from_any_process(world: World) -> None:
    first = await job_of(world)
    assert await job_of(world) == first
    assert await job_of(world, at=world.process()) == first
    assert world.telemetry.deduped_creates == ["viewer", "viewer"]
    assert world.cloud.posts == 1


async def test_a_create_of_a_caller_with_deduplication_is_recorded_without_an_id_and_a_budget(world: World) -> None:
    """Its marker names a record: a later look at the cloud's list knows whose job it is."""
    job_id = await job_of(world)
    marker = read_marker(split_user_data(world.cloud.jobs[job_id][0].user_data)[1])
    assert marker is not None
    assert not is_unrecorded(marker)


async def test_a_caller_without_deduplication_is_not_looked_up(world: World) -> None:
    plain = Caller("plain")
    assert await job_of(world, plain) != await job_of(world, plain)
    assert world.tags.asked == []


async def test_an_invalid_create_is_refused_before_the_document_is_looked_at(world: World) -> None:
    assert name_of(await world.error(request("", input_object=""), DEDUPES)) == "INVALID_REQUEST"
    assert world.tags.asked == []


@pytest.mark.parametrize(
    "other",
    [
        {"key": "b.pdf"},
        {"options": PreviewOptions(quality=81)},
        {"options": PreviewOptions(password="other")},
        {"output": ObjectLocation(object="elsewhere/${Number}.jpg")},
        {"output": ObjectLocation(bucket=EXCLUSIVE.name, object="out/p-${Page}.jpg")},
        {"caller": replace(DEDUPES, name="another")},
    ],
    ids=["document", "option", "password", "template", "bucket", "caller"],
)
async def test_a_create_that_differs_in_what_shapes_its_pages_gets_its_own_job(
    world: World, other: dict[str, Any]
) -> None:
    assert await job_of(world) != await job_of(world, **other)


@pytest.mark.parametrize(
    "same",
    [
        {"user_data": "mine"},
        {"output": ObjectLocation(bucket=BUCKET.name, region=BUCKET.region, object="out/p-${Page}.jpg")},
        {"options": PreviewOptions()},
    ],
    ids=["user data", "default bucket", "options {}"],
)
async def test_a_create_that_differs_in_nothing_that_shapes_its_pages_gets_the_same_job(
    world: World, same: dict[str, Any]
) -> None:
    assert await job_of(world) == await job_of(world, **same)


async def test_content_that_changes_and_changes_back_makes_a_new_job_each_time(world: World) -> None:
    """Each job overwrites the pages of the one before, which is not reused."""
    for content in ("v1", "v2", "v1"):
        world.tags.value = content
        await job_of(world)
    assert world.cloud.posts == 3


async def test_creates_of_a_document_without_a_tag_are_never_equal(world: World) -> None:
    world.tags.value = ""
    assert await job_of(world) != await job_of(world)


async def test_a_document_whose_tag_cannot_be_read_is_rendered_and_ends_the_memory_of_its_place(world: World) -> None:
    first = await job_of(world)
    world.tags.failure = UpstreamError(reasons.ERROR_REASON_INPUT_OBJECT_UNREADABLE, "no")
    await job_of(world, key="b.pdf")
    world.tags.failure = None
    assert await job_of(world) != first


async def test_another_document_at_the_same_place_ends_its_memory(world: World) -> None:
    first = await job_of(world)
    await job_of(world, key="b.pdf")
    assert await job_of(world) != first


async def test_documents_of_a_template_with_a_token_have_a_place_each(world: World) -> None:
    output = ObjectLocation(object="${RequestToken}/${Number}.jpg")
    first = await job_of(world, output=output)
    await job_of(world, key="b.pdf", output=output)
    assert await job_of(world, output=output) == first


async def test_a_job_is_reused_for_its_time_from_its_create(world: World) -> None:
    """Reusing it does not prolong the time."""
    short = replace(DEDUPES, dedupe_seconds=600)
    first = await job_of(world, short)
    await asyncio.sleep(400)
    assert await job_of(world, short) == first
    await asyncio.sleep(100)
    assert await job_of(world, short) == first
    await asyncio.sleep(110)
    assert await job_of(world, short) != first


@pytest.mark.parametrize(
    ("state", "reused"),
    [
        (PreviewJob.STATE_SUBMITTED, True),
        (PreviewJob.STATE_RUNNING, True),
        (PreviewJob.STATE_PAUSED, True),
        (PreviewJob.STATE_SUCCESS, True),
        (PreviewJob.STATE_FAILED, False),
        (PreviewJob.STATE_CANCELLED, False),
        (PreviewJob.STATE_UNSPECIFIED, False),
    ],
)
async def test_only_a_job_that_made_or_may_make_its_pages_is_reused(
    world: World,
    state: PreviewJob.State.ValueType,
    reused: bool,  # noqa: FBT001
) -> None:
    first = await job_of(world)
    world.cloud.jobs[first][0].state = state
    assert (await job_of(world) == first) is reused


async def test_a_job_that_cannot_be_read_is_replaced(world: World) -> None:
    first = await job_of(world)
    world.cloud.get_failures = [UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, "gone")]
    second = await job_of(world)
    assert second != first
    assert await job_of(world) == second


async def test_a_no_cache_create_makes_a_new_job_that_later_creates_get(world: World) -> None:
    first = await job_of(world)
    second = await job_of(world, no_cache=True)
    assert second != first
    assert await job_of(world) == second


async def test_a_create_of_unknown_outcome_ends_the_memory_of_its_place(world: World) -> None:
    """It may have overwritten the pages that were there."""
    first = await job_of(world)
    world.cloud.fates = ["never"]
    await world.error(request("", input_object="b.pdf"), DEDUPES, seconds=2)
    assert await job_of(world) != first


async def test_an_id_that_is_sent_again_ends_the_memory_of_its_place(world: World) -> None:
    """Another document was rendered there between the attempts, and is overwritten by the second one."""
    asked = request(input_object="a.pdf")
    world.cloud.fates = ["never"]
    await world.error(asked, DEDUPES, seconds=2)
    second = await job_of(world, key="b.pdf")
    await asyncio.sleep(TIMING.watch + 10)
    await world.create(asked, DEDUPES, seconds=10)
    assert await job_of(world, key="b.pdf") != second


async def test_an_id_that_a_dead_process_left_open_ends_the_memory_of_its_place(world: World) -> None:
    asked, dead = request(input_object="a.pdf"), world.process()
    await dead.history.hear(BUCKET)
    world.cloud.fates = ["never"]
    await world.error(asked, DEDUPES, seconds=2, at=dead)
    second = await job_of(world, key="b.pdf")
    for _ in range(20):
        await asyncio.sleep(20)
        try:
            await world.create(asked, DEDUPES, seconds=10)
            break
        except UpstreamError:
            continue
    assert await job_of(world, key="b.pdf") != second


async def test_a_look_that_hangs_takes_a_quarter_of_the_callers_time_at_most(world: World) -> None:
    world.tags.gate = asyncio.Event()
    before = loop_time()
    await job_of(world, seconds=8)
    assert loop_time() - before <= 3


async def test_a_store_that_fails_does_not_fail_creates_without_id(world: World) -> None:
    """Nothing else was promised."""
    first = await job_of(world)
    world.store.fail_before = 1
    assert await job_of(world) != first


async def test_a_new_id_gets_the_rendered_job_and_stays_bound_to_it(world: World) -> None:
    """The place, the document and the process may change, and the caller may deduplicate no more."""
    asked = request()
    first = await job_of(world)
    assert (await world.create(asked, DEDUPES)).job_id == first
    world.tags.value = "v2"
    await asyncio.sleep(100)
    await job_of(world)
    assert (await world.create(asked, DEDUPES, at=world.process())).job_id == first
    assert (await world.create(asked, replace(DEDUPES, dedupe_seconds=0))).job_id == first
    assert world.cloud.posts == 2


async def test_an_id_of_another_request_is_refused_though_a_job_of_the_new_one_exists(world: World) -> None:
    asked = request(input_object="b.pdf")
    await job_of(world)
    await world.create(asked, DEDUPES)
    error = await world.error(request(asked.request_id), DEDUPES)
    assert name_of(error) == "REQUEST_ID_REUSED"


async def test_a_known_id_gets_its_own_job_whatever_was_rendered_since(world: World) -> None:
    asked = request()
    first = await world.create(asked, DEDUPES)
    await job_of(world, no_cache=True)
    assert (await world.create(asked, DEDUPES)).job_id == first.job_id


async def test_the_job_of_another_id_is_told_as_it_is_now_without_its_pages_of_then(world: World) -> None:
    first = await job_of(world)
    asked = request()
    await world.create(asked, DEDUPES)
    record = world.record(asked, DEDUPES)
    assert record is not None
    assert not record.answer().result.pages
    world.cloud.end(first, 3)
    again = await world.create(asked, DEDUPES)
    assert (again.state, again.result.total_page_count) == (PreviewJob.STATE_SUCCESS, 3)


async def test_an_answer_of_deduplication_costs_no_pages(world: World) -> None:
    first = (await world.create(request(), BOTH)).job_id
    assert world.pages(BOTH) == Pages(0, 40)
    asked = request()
    for each in (asked, request(""), asked):
        assert (await world.create(each, BOTH)).job_id == first
    assert world.pages(BOTH) == Pages(0, 40)
    world.cloud.end(first, 7)
    await world.settle(3)
    assert world.pages(BOTH) == Pages(7, 0)
    record = world.record(asked, BOTH)
    assert record is not None
    assert (record.state, record.asked, record.made, record.day) == (State.CHARGED, 0, 0, "")


async def test_an_answer_of_deduplication_passes_though_the_budget_is_used_up(world: World) -> None:
    tight = replace(BOTH, budget=PageBudget(per_day=40, estimate=40))
    first = await world.create(request(), tight)
    assert (await world.create(request(), tight)).job_id == first.job_id


async def test_a_job_that_another_callers_create_made_is_never_reused(world: World) -> None:
    """Not even at the same place: each caller sees its own jobs only."""
    first = await job_of(world)
    assert await job_of(world, replace(DEDUPES, name="another")) != first


async def test_concurrent_equal_creates_of_one_process_make_one_job(world: World) -> None:
    found = await asyncio.gather(*(job_of(world, request_id=request().request_id) for _ in range(10)))
    assert len(set(found)) == 1
    assert world.cloud.posts == 1


async def test_creates_that_waited_for_a_failed_one_go_on(world: World) -> None:
    world.cloud.fates = [UpstreamError(reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND, "no")]
    found = await asyncio.gather(*(job_of(world) for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(each, UpstreamError) for each in found) == 1


async def test_a_create_waits_half_of_its_time_for_a_hanging_equal_one(world: World) -> None:
    held = Held(sent=True)
    world.cloud.fates = [held]
    hanging = asyncio.create_task(job_of(world))
    await held.began.wait()
    before = loop_time()
    await job_of(world, seconds=8)
    assert loop_time() - before == pytest.approx(4, abs=0.5)
    held.go.set()
    await hanging
    assert world.cloud.posts == 2


async def test_a_new_id_at_two_processes_is_bound_to_one_job(world: World) -> None:
    first = await job_of(world)
    asked = request()
    others = [world.process() for _ in range(2)]
    found = await asyncio.gather(*(world.create(asked, DEDUPES, at=each) for each in others))
    assert {job.job_id for job in found} == {first}


async def test_of_concurrent_creates_in_two_processes_the_last_to_begin_is_remembered(world: World) -> None:
    held = Held(sent=True)
    world.cloud.fates = [held]
    first = asyncio.create_task(job_of(world))
    await held.began.wait()
    second = await job_of(world, at=world.process())
    held.go.set()
    assert await first != second
    assert await job_of(world) == second


async def test_an_id_whose_equal_create_cannot_be_noted_is_refused(world: World) -> None:
    """A repeat of the id could get another job later."""
    await job_of(world)
    world.store.fail_before, world.store.failing = 9, {"change"}
    asked = request(input_object="a.pdf")
    assert name_of(await world.error(asked, DEDUPES)) == "LEDGER_UNAVAILABLE"
    assert world.cloud.posts == 1


async def test_an_answer_without_a_job_of_its_own_is_not_counted_as_allowed_by_the_budget(world: World) -> None:
    first = await job_of(world, BOTH)
    assert world.telemetry.limits == [("viewer", "page_budget", "allowed")]
    assert await job_of(world, BOTH) == first
    assert world.telemetry.limits == [("viewer", "page_budget", "allowed")]


async def test_a_caller_without_deduplication_does_not_wait_for_an_equal_create_in_flight(world: World) -> None:
    held = Held(sent=True)
    world.cloud.fates = [held]
    first = asyncio.create_task(job_of(world))
    await held.began.wait()
    begun_at = loop_time()
    await job_of(world, Caller("plain"))
    assert loop_time() - begun_at < 1
    held.go.set()
    await first


async def test_a_create_that_is_answered_with_a_job_that_was_there_is_a_hit(world: World) -> None:
    for cache in ("", "hit"):
        call = Call("r1", loop_time() + 10, DEDUPES)
        await world.parts.creates.create(request(""), call)
        assert call.response.cache == cache


@pytest.mark.parametrize(("left", "seconds"), [(8, 2), (20, 5), (600, 5)])
async def test_a_look_takes_a_quarter_of_the_time_that_is_left_and_five_seconds_at_most(
    left: float, seconds: float
) -> None:
    """It may be answered from the cache, also for a caller that asks for fresh reads."""
    call = Call("r1", loop_time() + left, DEDUPES, no_cache=True)
    lookup = RenderedJobs._lookup(call)
    assert lookup.deadline == loop_time() + seconds
    assert not lookup.no_cache
    assert lookup.response is not call.response


@pytest.mark.parametrize(("signed", "told"), [(True, PreviewJob.STATE_SUBMITTED), (False, PreviewJob.STATE_SUCCESS)])
async def test_a_repeated_id_is_told_its_job_as_it_was_accepted_if_that_is_on_record(
    world: World,
    signed: bool,  # noqa: FBT001
    told: PreviewJob.State.ValueType,
) -> None:
    """A record that an earlier version has left without the time of its signature may have an older state."""
    asked = request()
    job = await world.create(asked)
    world.cloud.end(job.job_id)
    there = world.record(asked)
    assert there is not None
    if not signed:
        await world.store.change([Change(there, replace(there, sign_end=0.0))])
    assert (await world.create(asked)).state == told
