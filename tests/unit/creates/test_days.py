"""The day to which pages are counted: the store's, moved on by the cloud's dates."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.creates.days import APART_SECONDS, Days, day_of
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.model.errors import GatewayError
from tests.fakes.creates import MemoryCreates, MemoryData
from tests.unit.creates.worlds import BUCKET, DAY, HOST, NOON, clock

if TYPE_CHECKING:
    from docpreview_gateway.model.buckets import Bucket


class Calendar:
    """The days of a process, and the store's."""

    def __init__(self) -> None:
        self.data = MemoryData(day="2026-11-15")
        self.store = MemoryCreates(self.data)
        self.times = clock()
        self.days = Days(self.store, self.times)
        self.days.learn("2026-11-15")

    async def hear(self, date: float, after: float = 0.0) -> str:
        """The store's day after a `Date`, heard so many seconds later."""
        await asyncio.sleep(after)
        self.times.hear(HOST, formatdate(date, usegmt=True))
        await self.days.move_on(HOST)
        return self.data.day


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.mark.parametrize(
    ("now", "day"),
    [(0.0, "1970-01-01"), (NOON, "2026-11-15"), (1_835_395_199.0, "2028-02-28"), (1_835_395_200.0, "2028-02-29")],
)
def test_a_day_is_that_of_utc(now: float, day: str) -> None:
    assert day_of(now) == day


async def test_two_dates_of_the_next_day_that_are_apart_move_it_on(calendar: Calendar) -> None:
    assert await calendar.hear(NOON + DAY) == "2026-11-15"
    assert await calendar.hear(NOON + DAY + 29, APART_SECONDS - 1) == "2026-11-15"
    assert await calendar.hear(NOON + DAY + 30, 1) == "2026-11-16"
    assert calendar.days.current(HOST) == "2026-11-16"


async def test_one_date_that_is_looked_at_again_later_moves_nothing(calendar: Calendar) -> None:
    await calendar.hear(NOON + DAY)
    await asyncio.sleep(1000)
    await calendar.days.move_on(HOST)
    assert calendar.data.day == "2026-11-15"


async def test_dates_of_two_other_days_move_nothing(calendar: Calendar) -> None:
    await calendar.hear(NOON + DAY)
    assert await calendar.hear(NOON + 2 * DAY, 60) == "2026-11-15"


async def test_a_right_date_between_two_wrong_ones_speaks_against_both(calendar: Calendar) -> None:
    await calendar.hear(NOON + DAY)
    await calendar.hear(NOON, 60)
    assert await calendar.hear(NOON + DAY, 60) == "2026-11-15"


async def test_the_day_never_goes_back(calendar: Calendar) -> None:
    for _ in range(3):
        assert await calendar.hear(NOON - DAY, 60) == "2026-11-15"


async def test_a_day_that_the_store_has_moved_on_to_already_is_learned(calendar: Calendar) -> None:
    calendar.data.day = "2026-11-17"
    await calendar.hear(NOON + DAY)
    await calendar.hear(NOON + DAY, 60)
    assert calendar.data.day == "2026-11-17"
    assert calendar.days.current(HOST) == "2026-11-17"


async def test_a_store_that_fails_leaves_the_day_as_it_is(calendar: Calendar) -> None:
    await calendar.hear(NOON + DAY)
    calendar.store.fail_before = 1
    with pytest.raises(StoreError):
        await calendar.hear(NOON + DAY, 60)
    assert await calendar.hear(NOON + DAY, 1) == "2026-11-16"


async def test_the_day_is_the_clouds_until_the_stores_is_known() -> None:
    days = Days(MemoryCreates(), times := clock())
    assert days.today(NOON) == "2026-11-15"
    times.hear(HOST, formatdate(NOON + DAY, usegmt=True))
    assert days.current(HOST) == days.today(NOON) == "2026-11-16"
    days.learn("2026-11-14")
    days.learn("")
    assert days.current(HOST) == days.today(NOON) == "2026-11-14"


class Asked:
    """A history of jobs whose every question is answered with the present `Date`, or fails."""

    def __init__(self, calendar: Calendar, date: float) -> None:
        self.calendar = calendar
        self.date = date
        self.asked = 0
        self.error: GatewayError | None = None

    async def hear(self, _bucket: Bucket) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        self.calendar.times.hear(HOST, formatdate(self.date, usegmt=True))


async def test_a_day_that_ends_while_nobody_creates_is_moved_on_by_asking_the_cloud(calendar: Calendar) -> None:
    """A caller whose budget is used up makes no create that would do it; within a day the cloud is not asked."""
    history: Any = Asked(calendar, NOON + DAY)
    await calendar.hear(NOON)
    await calendar.days.keep_up(history, BUCKET)
    assert history.asked == 0
    await calendar.hear(NOON + DAY)
    for _ in range(4):
        await calendar.days.keep_up(history, BUCKET)
        await asyncio.sleep(APART_SECONDS / 2)
    assert calendar.data.day == day_of(NOON + DAY)
    assert calendar.days.today(0.0) == day_of(NOON + DAY)


async def test_a_cloud_that_does_not_answer_leaves_the_day_as_it_is(calendar: Calendar) -> None:
    history: Any = Asked(calendar, NOON + DAY)
    history.error = GatewayError(reasons.ERROR_REASON_UPSTREAM_TIMEOUT, "no reply in time")
    await calendar.hear(NOON + DAY)
    await calendar.days.keep_up(history, BUCKET)
    assert (history.asked, calendar.data.day) == (1, "2026-11-15")


async def test_dates_of_the_present_day_are_not_told_to_the_store(calendar: Calendar) -> None:
    for _ in range(3):
        assert await calendar.hear(NOON, APART_SECONDS) == "2026-11-15"
    assert calendar.store.calls["advance"] == 0
