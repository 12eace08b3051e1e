"""Creates that another process has sent: they are followed, and sent again only when their job is proven absent."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.creates.attempts import Work
from docpreview_gateway.creates.pages import Pages
from docpreview_gateway.model.call import Call, ResponseInfo
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.operations import CreateJob
from tests.fakes.creates import MemoryCreates
from tests.unit.creates.worlds import BUCKET, COUNTED, FENCE, TIMING, Fate, Held, World, name_of, request

if TYPE_CHECKING:
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.creates.records import Record
    from tests.fakes.recorded import Recorded

DOWN = UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down")


class Followed:
    """A create that one process has sent, and another one follows."""

    def __init__(self) -> None:
        self.world = World()
        self.store = MemoryCreates(self.world.data)
        self.other: Recorded = self.world.process(self.store)
        self.asked: CreatePreviewJobRequest = request()

    async def sent(self, fate: Fate) -> asyncio.Task[object]:
        await self.other.history.hear(BUCKET)
        self.world.cloud.fates = [fate]
        task: asyncio.Task[object] = asyncio.create_task(self.world.create(self.asked, COUNTED, seconds=5))
        await asyncio.sleep(1)
        return task


@pytest.fixture
def followed() -> Followed:
    return Followed()


async def test_a_create_that_is_followed_is_in_progress_and_tells_when_to_try_again(followed: Followed) -> None:
    _ = await followed.sent(Held(sent=True))
    error = await followed.world.error(followed.asked, COUNTED, at=followed.other, seconds=0.5)
    assert (name_of(error), error.retry_after) == ("CREATE_IN_PROGRESS", 1)


@pytest.mark.parametrize("fate", [None, GatewayError(reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND, "no such document")])
async def test_a_create_is_answered_with_the_clouds_id_of_its_request(
    followed: Followed, fate: GatewayError | None
) -> None:
    """Also one that the cloud refuses: the vendor's support asks for it."""
    response = ResponseInfo()
    followed.world.cloud.fates = [] if fate is None else [fate]
    with suppress(GatewayError):
        await followed.world.create(followed.asked, COUNTED, response=response)
    assert response.upstream_request_id == f"cloud-{followed.asked.input_object}"


@pytest.mark.parametrize(
    "fate", [GatewayError(reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND, "no such document"), "lost", None]
)
async def test_a_create_that_joins_an_equal_one_has_the_clouds_id_of_the_one_request(
    followed: Followed, fate: Fate | None
) -> None:
    """Whatever becomes of it: both were one request of the same caller."""
    responses = ResponseInfo(), ResponseInfo()
    followed.world.cloud.fates = [] if fate is None else [fate]
    creates = (followed.world.create(followed.asked, COUNTED, response=response) for response in responses)
    await asyncio.gather(*creates, return_exceptions=True)
    sent = [operation for operation in followed.world.cloud.asked if isinstance(operation, CreateJob)]
    assert len(sent) == 1
    assert {response.upstream_request_id for response in responses} == {f"cloud-{followed.asked.input_object}"}


async def test_a_follower_sends_nothing_and_reserves_nothing(followed: Followed) -> None:
    _ = await followed.sent(Held(sent=True))
    await followed.world.error(followed.asked, COUNTED, at=followed.other, seconds=3)
    assert followed.world.cloud.posts == 1
    assert followed.world.pages() == Pages(0, 40)


async def test_a_follower_finds_the_job_whose_reply_the_sender_lost(followed: Followed) -> None:
    followed.world.cloud.lag = 10
    sender = await followed.sent("lost")
    await asyncio.gather(sender, return_exceptions=True)
    job = await followed.world.create(followed.asked, COUNTED, at=followed.other, seconds=29)
    assert set(followed.world.cloud.jobs) == {job.job_id}


async def test_a_follower_that_leaves_releases_nothing(followed: Followed) -> None:
    held = Held(sent=True)
    _ = await followed.sent(held)
    follower = asyncio.create_task(followed.world.create(followed.asked, COUNTED, at=followed.other))
    await asyncio.sleep(1)
    follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)
    assert followed.world.pages() == Pages(0, 40)
    held.go.set()
    await followed.other.creates.drained()
    assert followed.world.record(followed.asked, COUNTED) is not None


async def test_a_repeat_of_a_create_whose_outcome_is_unknown_is_told_when_it_can_be_known(followed: Followed) -> None:
    """Also one that joins an earlier repeat, which has looked, and whose own time is too short for a look."""
    sender = await followed.sent("never")
    await asyncio.gather(sender, return_exceptions=True)
    await asyncio.sleep(TIMING.signature / 4)
    first = asyncio.create_task(followed.world.error(followed.asked, COUNTED, at=followed.other, seconds=25))
    await asyncio.sleep(5)
    error = await followed.world.error(followed.asked, COUNTED, at=followed.other, seconds=0.5)
    assert name_of(error) == "CREATE_OUTCOME_UNKNOWN"
    assert error.retry_after is not None
    assert error.retry_after > 60
    assert name_of(await first) == "CREATE_OUTCOME_UNKNOWN"


async def test_a_create_that_is_sent_again_is_in_flight_and_not_unknown(followed: Followed) -> None:
    """Its first attempt has made no job, as a list has proven; what is known of that one says nothing of this."""
    sender = await followed.sent("never")
    await asyncio.gather(sender, return_exceptions=True)
    await followed.world.error(followed.asked, COUNTED, at=followed.other, seconds=2)
    await asyncio.sleep(TIMING.watch + 60)
    held = Held(sent=False)
    followed.world.cloud.fates = [held]
    first = asyncio.create_task(followed.world.create(followed.asked, COUNTED, at=followed.other))
    await held.began.wait()
    error = await followed.world.error(followed.asked, COUNTED, at=followed.other, seconds=0.5)
    assert name_of(error) == "CREATE_IN_PROGRESS"
    held.go.set()
    assert (await first).job_id


async def test_a_follower_whose_look_takes_too_long_does_not_say_that_nothing_was_sent(followed: Followed) -> None:
    """The create was sent, by another process."""
    sender = await followed.sent(Held(sent=True))
    await asyncio.sleep(TIMING.signature / 4)
    followed.world.cloud.delay = 30
    error = await followed.world.error(followed.asked, COUNTED, at=followed.other, seconds=10)
    assert name_of(error) == "CREATE_IN_PROGRESS"
    sender.cancel()


async def test_a_store_that_fails_while_a_create_is_followed_is_asked_again(followed: Followed) -> None:
    held = Held(sent=True)
    _ = await followed.sent(held)
    followed.store.fail_before, followed.store.failing = 2, {"find"}
    follower = asyncio.create_task(followed.world.create(followed.asked, COUNTED, at=followed.other))
    await asyncio.sleep(2)
    held.go.set()
    assert (await follower).job_id


async def test_a_follower_of_a_refused_create_sends_its_own(followed: Followed) -> None:
    """The id is free again, and the cloud may accept it now."""
    held = Held(sent=False)
    sender = await followed.sent(held)
    follower = asyncio.create_task(followed.world.create(followed.asked, COUNTED, at=followed.other))
    await asyncio.sleep(1)
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)
    assert (await follower).job_id
    assert followed.world.pages() == Pages(0, 40)
    assert len(followed.world.cloud.jobs) == 1


async def test_a_list_that_fails_is_not_the_creates_error(followed: Followed) -> None:
    sender = await followed.sent("never")
    await asyncio.gather(sender, return_exceptions=True)
    await asyncio.sleep(20)
    followed.world.cloud.list_failures = [DOWN] * 20
    error = await followed.world.error(followed.asked, COUNTED, at=followed.other, seconds=5)
    assert name_of(error) in {"CREATE_OUTCOME_UNKNOWN", "CREATE_IN_PROGRESS"}


async def test_two_followers_of_an_absent_create_send_it_once(followed: Followed) -> None:
    """Both prove its absence; one of them reopens it."""
    sender = await followed.sent("never")
    await asyncio.gather(sender, return_exceptions=True)
    third = followed.world.process()
    await third.history.hear(BUCKET)
    for parts in (followed.other, third):
        await followed.world.error(followed.asked, COUNTED, at=parts, seconds=2)
    await asyncio.sleep(TIMING.watch + 5)
    jobs = await asyncio.gather(
        *(followed.world.create(followed.asked, COUNTED, at=parts, seconds=25) for parts in (followed.other, third))
    )
    assert {job.job_id for job in jobs} == set(followed.world.cloud.jobs)
    assert len(followed.world.cloud.jobs) == 1
    assert followed.world.cloud.posts == 2
    assert followed.world.pages() == Pages(0, 40)


async def test_a_create_sent_again_keeps_the_beginning_of_its_first_attempt(followed: Followed) -> None:
    sender = await followed.sent("never")
    await asyncio.gather(sender, return_exceptions=True)
    first = followed.world.record(followed.asked, COUNTED)
    assert first is not None
    await asyncio.sleep(45 + FENCE)
    await followed.world.create(followed.asked, COUNTED)
    second = followed.world.record(followed.asked, COUNTED)
    assert second is not None
    assert second.first_start == first.first_start
    assert second.sign_start > first.sign_start
    assert second.nonce != first.nonce


async def test_a_stale_sender_can_neither_finish_nor_release_another_attempt(followed: Followed) -> None:
    """Every change compares the nonce."""
    sender = await followed.sent("never")
    await asyncio.gather(sender, return_exceptions=True)
    record = followed.world.record(followed.asked, COUNTED)
    assert record is not None
    await asyncio.sleep(45 + FENCE)
    job = await followed.world.create(followed.asked, COUNTED)
    await followed.other.outcomes.finish(record, job, BUCKET)
    await followed.other.attempts._release(_work(followed, record))
    now = followed.world.record(followed.asked, COUNTED)
    assert now is not None
    assert now.job_id == job.job_id


async def test_a_recorded_create_ends_by_itself_in_half_a_minute(followed: Followed) -> None:
    """However late its caller's deadline is."""
    _ = await followed.sent(Held(sent=True))
    before = loop_time()
    error = await followed.world.error(followed.asked, COUNTED, at=followed.other, seconds=1000)
    assert name_of(error) in {"CREATE_OUTCOME_UNKNOWN", "CREATE_IN_PROGRESS"}
    assert loop_time() - before <= 31


def _work(followed: Followed, record: Record) -> Work:
    return Work(followed.asked, None, Call("r", 0), record)  # type: ignore[arg-type]


async def test_a_create_in_flight_is_due_for_the_loop_as_soon_as_its_absence_can_be_proven(followed: Followed) -> None:
    sender = await followed.sent(Held(sent=True))
    ((record, look_at),) = followed.world.data.records.values()
    assert look_at == record.sign_end + FENCE + 1
    sender.cancel()


async def test_a_follower_polls_soon_and_then_ever_more_seldom(followed: Followed) -> None:
    """After 0.2, 0.6, 1.4, 3, 6.2 and 12.6 seconds; the next one would be too late."""
    sender = await followed.sent(Held(sent=True))
    await followed.world.error(followed.asked, COUNTED, at=followed.other, seconds=20)
    assert followed.store.calls["find"] == 6
    sender.cancel()


async def test_the_time_that_a_create_was_under_way_counts_as_watched() -> None:
    """Not only that since its first list: each reply takes ten seconds here."""
    world = World()
    world.cloud.delay = 10.0
    world.cloud.fates = ["never"]
    error = await world.error(request(), seconds=60)
    assert error.retry_after == pytest.approx(TIMING.watch - 20 + 2, abs=2)


async def test_a_create_in_flight_elsewhere_is_looked_for_also_while_the_clouds_time_is_wrong() -> None:
    """By a `Date` that is an hour behind it would only just be sent."""
    world = World()
    world.cloud.fates, world.cloud.lag = ["lost"], 5.0
    asked = request()
    await world.error(asked, seconds=2)
    other = world.process()
    world.cloud.lies = [-3600.0]
    assert (await world.create(asked, at=other, seconds=25)).job_id == "d0000"
