"""The cloud's clocks, and the dates that set them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from docpreview_gateway.upstream.cloud_clock import CloudTimes, Heard, elapsed
from docpreview_gateway.upstream.wire.http import unix_time
from tests.fakes.clock import FakeClock

HOST, OTHER = "a-1250000000.ci.ap-chongqing.myqcloud.com", "b-1250000000.ci.ap-chongqing.myqcloud.com"
DATE, TIME = "Fri, 22 Sep 2023 10:00:00 GMT", 1_695_376_800
END = datetime(3000, 1, 1, tzinfo=UTC)

_PIECES = [
    *("Mon, ", "31 ", "Dec ", "Jan ", "23:59:59 ", "10:00 ", "GMT", "UT", "-0000", "+2359", "-9999999999", "."),
    *("9999 ", "10000 ", "99999999999999999999 ", "1969 ", "0001 ", "0 ", "-1 ", "-", ":", ",", "²", "٣", "\x00"),
    *("1e400", "nan", "inf", "(", " "),
]
DATES = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(_PIECES), max_size=9).map("".join))


class Scene:
    def __init__(self) -> None:
        self.ours, self.steady = FakeClock(1_000_000.0), FakeClock(50.0)
        self.times = CloudTimes(self.ours, self.steady.now)


@given(DATES)
@example("Fri, 31 Dec 9999 23:59:59 GMT")
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("Fri, 31 Dec 99999999999999999999 23:59:59 GMT")
@example("Wed, 31 Dec 1969 23:59:59 GMT")
@example("Thu, 01 Jan 1970 00:00:00 +0001")
@example("Wed, 01 Jan 3000 00:00:00 GMT")
@settings(max_examples=2000, deadline=None, derandomize=True, database=None)
def test_any_text_is_a_time_that_can_be_reckoned_with_or_none(text: str) -> None:
    """Whatever is added to it: a day and a month later there is still a date."""
    seconds = unix_time(text)
    if seconds is None:
        return
    assert math.isfinite(seconds)
    assert seconds >= 0
    later = datetime.fromtimestamp(seconds, UTC) + timedelta(days=32 * 12)
    assert unix_time(format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)) == seconds
    assert later.year <= END.year + 1


@given(st.datetimes(datetime(1970, 1, 1), datetime(2999, 12, 31, 23, 59, 59)))  # noqa: DTZ001 - hypothesis wants them so
@settings(deadline=None, derandomize=True, database=None)
def test_dates_as_http_writes_them_are_read_to_the_second(moment: datetime) -> None:
    """Of the years 1970 to 2999."""
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    assert unix_time(format_datetime(moment, usegmt=True)) == moment.timestamp()


def test_a_zone_of_minus_zero_is_the_same_as_gmt() -> None:
    """Not the zone of this machine."""
    assert unix_time(DATE.replace("GMT", "-0000")) == unix_time(DATE) == TIME


def test_a_host_that_was_not_heard_shows_our_time() -> None:
    """And nothing was heard of it."""
    scene = Scene()
    assert scene.times.now(HOST) == scene.ours.time
    assert scene.times.heard(HOST) is None


def test_a_hosts_clock_goes_on_whatever_ours_does() -> None:
    """By the time that has passed since its `Date`; other hosts have clocks of their own."""
    scene = Scene()
    assert scene.times.hear(HOST, DATE)
    scene.steady.time += 8
    scene.ours.time -= 99_999
    assert scene.times.now(HOST) == TIME + 8
    assert scene.times.now(OTHER) == scene.ours.time
    assert scene.times.heard(HOST) == Heard(TIME, 50.0)


@pytest.mark.parametrize(
    "date",
    [
        "",
        "soon",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Tue, 31 Dec 2019 23:59:59 GMT",
        "Fri, 01 Jan 2100 00:00:00 GMT",
    ],
)
def test_a_date_without_a_time_that_a_clock_can_show_changes_nothing(date: str) -> None:
    """The last one counts."""
    scene = Scene()
    assert scene.times.hear(HOST, DATE)
    assert not scene.times.hear(HOST, date)
    assert scene.times.now(HOST) == TIME


@pytest.mark.parametrize(("moved", "is_believed"), [(-901, False), (-900, True), (900, True), (901, False)])
def test_a_clock_moves_by_no_more_than_is_allowed(moved: int, *, is_believed: bool) -> None:
    """From what it shows, with the time that has passed."""
    scene = Scene()
    scene.times.hear(HOST, DATE)
    scene.steady.time += 3600
    date = format_datetime(datetime.fromtimestamp(TIME + 3600 + moved, UTC), usegmt=True)
    assert scene.times.hear(HOST, date, most=900.0) is is_believed
    assert scene.times.now(HOST) == TIME + 3600 + (moved if is_believed else 0)


def test_a_clock_can_be_set_back_to_what_it_was() -> None:
    """To an earlier `Date`, with the time that has passed since, or to none."""
    scene = Scene()
    scene.times.hear(HOST, DATE)
    before = scene.times.heard(HOST)
    scene.steady.time += 5
    scene.times.hear(HOST, "Fri, 22 Sep 2033 10:00:00 GMT")
    scene.times.restore(HOST, before)
    assert scene.times.now(HOST) == TIME + 5
    scene.times.restore(HOST, None)
    assert scene.times.heard(HOST) is None
    scene.times.restore(HOST, None)


def test_elapsed_time_does_not_go_back() -> None:
    """Of this machine."""
    assert elapsed() <= elapsed()


def test_the_latest_time_is_that_of_the_host_that_was_heard_last() -> None:
    """Whichever shows a later one; none was heard at first."""
    scene = Scene()
    assert scene.times.latest() is None
    scene.times.hear(OTHER, "Fri, 22 Sep 2033 10:00:00 GMT")
    scene.steady.time += 5
    scene.times.hear(HOST, DATE)
    scene.steady.time += 8
    assert scene.times.latest() == TIME + 8
