"""The guarded store: what it says of a store that fails or was lost, and when."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.creates.guarded import MARK_SECONDS, GuardedStore
from docpreview_gateway.creates.pages import Periods
from docpreview_gateway.creates.ports import Change, Lease, StoreError
from docpreview_gateway.creates.records import Record
from docpreview_gateway.creates.store_memory import StoreMemory
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from tests.fakes.clock import FakeClock
from tests.fakes.creates import MemoryCreates

PLACE = "/state/creates.db"


class World:
    """A guarded store in memory, and the instant that it takes for the present one."""

    def __init__(self) -> None:
        self.now = 0.0
        self.inner = MemoryCreates()
        times = CloudTimes(FakeClock(), lambda: self.now)
        times.hear("host", "Sun, 29 Nov 2026 08:50:52 GMT")
        self.store = GuardedStore(
            self.inner,
            StoreMemory(None),
            times,
            is_first_start=_always,
            place=PLACE,
            outlook=lambda waited: f"noticed {waited:.0f} s ago",
        )

    def fail(self, *names: str) -> None:
        """Calls of these methods fail from now on; of none: no call."""
        self.inner.failing, self.inner.fail_before = names, 1000 if names else 0

    async def look(self, count: int = 1) -> None:
        for _ in range(count):
            await self.store.look()


async def _always() -> bool:
    return True


async def test_a_store_that_cannot_be_written_is_told_once_and_so_is_its_recovery() -> None:
    """Each time with the place of the store."""
    world = World()
    await world.look()
    with structlog.testing.capture_logs() as lines:
        world.now += MARK_SECONDS + 1
        world.fail("mark")
        await world.look(5)
        assert world.store.problem == f"{PLACE}: out of order"
        world.fail()
        await world.look(5)
        assert world.store.problem == ""
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("creates cannot be recorded", "error"),
        ("creates can be recorded again", "info"),
    ]
    assert PLACE in lines[0]["why"]


async def test_that_a_store_can_be_read_does_not_hide_that_it_cannot_be_written() -> None:
    """As of a full disk."""
    world = World()
    await world.look()
    world.now += MARK_SECONDS + 1
    world.fail("mark")
    await world.look()
    await world.store.count("a", Periods("2026-11-29", "2026-11"))
    assert world.store.problem


async def test_a_create_that_is_recorded_shows_that_the_store_can_be_written_and_a_repeated_one_does_not() -> None:
    """A repeated create, and one that is refused, write nothing."""
    world = World()
    await world.look()
    record = Record("k", b"b", "kid", "one", "docs-1250000000", b"", "place", "", 100.0, nonce=b"n")
    await world.store.begin(record, 1.0, None, dedupe_since=None)
    world.now += MARK_SECONDS + 1
    world.fail("mark")
    await world.look()
    world.fail()
    assert (await world.store.begin(record, 1.0, None, dedupe_since=None)).outcome != "new"
    assert world.store.problem
    begun = await world.store.begin(replace(record, key="new", place="there"), 1.0, None, dedupe_since=None)
    assert begun.outcome == "new"
    assert world.store.problem == ""


async def test_one_record_that_cannot_be_read_is_no_failure_of_the_store() -> None:
    world = World()
    world.inner.data.unreadable.add("broken")
    with suppress(StoreError):
        await world.store.find(["broken"])
    assert world.store.problem == ""


async def test_a_record_that_was_restored_is_named_no_more_when_another_create_meets_it() -> None:
    """An equal create of another id is told of it by the store."""
    world = World()
    standing = Record("standing", b"b", "kid", "one", "docs-1250000000", b"", "place", "render", 100.0, nonce=b"n")
    accepted = standing.accepted(PreviewJob(job_id="d1", create_time=Timestamp(seconds=100)), 100.0)
    await world.store.begin(standing, 1.0, None, dedupe_since=None)
    assert await world.store.change([Change(standing, accepted, 1.0)]) == [True]
    world.inner.data.unreadable.add("standing")
    with suppress(StoreError):
        await world.store.find(["standing"])
    assert world.store.damage
    world.inner.data.unreadable.clear()
    begun = await world.store.begin(replace(standing, key="new", nonce=b"m"), 1.0, None, dedupe_since=0.0)
    assert begun.record is not None
    assert begun.record.key == "standing"
    assert world.store.damage == ""


async def test_pages_that_are_handed_over_reach_the_store() -> None:
    world = World()
    paid = Record("k", b"b", "kid", "one", "docs-1250000000", b"", "place", "", 100.0, nonce=b"n")
    await world.store.hand_over(Lease("replica", "one", "2026-11-15", 0, 0.0), [(paid, 1.0)])
    assert await world.store.find(["k"]) == [paid]


@pytest.mark.parametrize("how", ["find", "begin", "due", "survey"])
async def test_a_record_that_was_restored_is_named_no_more_when_it_is_read_again(how: str) -> None:
    """By a caller that repeats its create, by the loop, or by the daily comparison; others stay named."""
    world = World()
    broken = Record("broken", b"b", "kid", "one", "docs-1250000000", b"", "place", "", 100.0, nonce=b"n")
    other = replace(broken, key="other", place="elsewhere")
    assert await world.store.change([Change(None, broken, 1.0), Change(None, other, 9.0)]) == [True, True]
    world.inner.data.unreadable |= {"broken", "other"}
    for key in ("broken", "other"):
        with suppress(StoreError):
            await world.store.find([key])
    assert "2 records cannot be read" in world.store.damage
    world.inner.data.unreadable.remove("broken")
    match how:
        case "find":
            assert await world.store.find(["broken"]) == [broken]
        case "begin":
            assert (await world.store.begin(broken, 1.0, None, dedupe_since=None)).outcome == "known"
        case "due":
            assert await world.store.due(2.0, 3.0, 10) == [broken]
        case "survey":
            assert await world.store.survey()
    assert "1 records cannot be read (other)" in world.store.damage
    world.inner.data.unreadable.clear()
    assert await world.store.find(["other"]) == [other]
    assert world.store.damage == ""


async def test_a_lost_store_is_a_problem_until_it_is_in_use_again() -> None:
    """A loss may be noted from outside; it is noted once."""
    world = World()
    await world.look()
    await world.store.note_loss("somebody said so")
    await world.store.note_loss("somebody said so")
    world.now += 7
    assert (world.store.losses, world.store.problem) == (
        1,
        f"{PLACE}: the store of creates has lost records: noticed 7 s ago",
    )
    await world.look()
    assert world.store.lost is not None
    assert await world.store.end_rebuild(world.store.lost.lost_since, 0.0, [])
    await world.store.reopen()
    assert world.store.problem == ""


async def test_a_store_in_use_notes_up_to_when_it_is_complete() -> None:
    """So that a scan after a loss is short; a little behind the cloud's time, and not in every round."""
    world = World()
    await world.look(3)
    first = world.inner.data.cloud_mark
    assert first == 1_795_942_252 - 300
    assert world.inner.calls["mark"] == 1
    world.now += 2 * MARK_SECONDS
    await world.look()
    assert world.inner.data.cloud_mark == first + 2 * MARK_SECONDS


async def test_a_create_that_could_be_recorded_again_ends_the_problem() -> None:
    """The next look is up to a minute away."""
    world = World()
    await world.look()
    world.fail("change")
    first = Record("a", b"b", "kid", "one", "docs-1250000000", b"", "place", "", 100.0, nonce=b"n")
    with suppress(StoreError):
        await world.store.change([Change(None, first)])
    assert world.store.problem
    world.fail()
    assert await world.store.change([Change(first, None)]) == [False]
    assert world.store.problem
    assert await world.store.change([Change(None, first)]) == [True]
    assert world.store.problem == ""
