"""What `store status` and `store accept-loss` print, for somebody who has never seen a store."""

from __future__ import annotations

import re

import pytest

from docpreview_gateway.creates.guarded import MAKING
from docpreview_gateway.creates.ports import StoreState
from docpreview_gateway.doctor.record_texts import accepted_lines, status_lines, time_of
from docpreview_gateway.doctor.records import StoreStatus

PLACE = "redis://127.0.0.1:6379/0, namespace docs"
NOON = 1_794_744_000.0
"""2026-11-15 12:00 UTC."""

WHOLE = StoreStatus(PLACE, StoreState("abc", 17, NOON, 0.0, "2026-11-15"), 1234)
LOST = StoreStatus(PLACE, StoreState("abc", 17, NOON, NOON + 60, "2026-11-15"), 1234)
EMPTY = StoreStatus(PLACE, StoreState("", 0, 0.0, 0.0, ""), 0)
NEW = StoreStatus(PLACE, StoreState("abc", 1, 0.0, MAKING, ""), 0)


def test_a_whole_store_says_what_it_holds_and_that_nothing_is_to_be_done() -> None:
    first, *rest = status_lines(WHOLE, "rebuild")
    assert first == f"ok       {PLACE}: the store is whole: creates are recorded in it"
    text = "\n".join(rest)
    assert "records: 1,234" in text
    assert "pages are counted to the day 2026-11-15 (UTC)" in text
    assert "up to 2026-11-15T12:00:00+00:00" in text
    assert "generation abc, change 17" in text
    assert "to do" not in text


@pytest.mark.parametrize(
    ("on_loss", "next_step"),
    [("rebuild", "to do: wait:"), ("refuse", "to do: decide:"), ("accept", "to do: wait some")],
)
def test_a_lost_store_says_since_when_who_is_refused_and_what_to_do_with_these_settings(
    on_loss: str, next_step: str
) -> None:
    first, *rest = status_lines(LOST, on_loss)  # type: ignore[arg-type]
    assert first.startswith("PROBLEM")
    assert "LEDGER_UNAVAILABLE" in first
    assert "LIMITER_UNAVAILABLE" in first
    assert any("noticed at 2026-11-15T12:01:00+00:00" in line for line in rest)
    assert next_step in rest[-1]


def test_a_loss_noticed_before_the_clouds_clock_was_known_has_no_time_of_1970() -> None:
    text = "\n".join(status_lines(LOST._replace(state=LOST.state._replace(lost_since=2.0)), "rebuild"))
    assert "before the cloud's clock was known" in text
    assert "1970" not in text


@pytest.mark.parametrize(("status", "words"), [(EMPTY, "is empty"), (NEW, "just making the store: nothing is lost")])
def test_a_store_that_is_not_in_use_yet_is_no_lost_one(status: StoreStatus, words: str) -> None:
    first, *rest = status_lines(status, "rebuild")
    assert words in first
    assert "1970" not in "\n".join(rest)
    assert "start a gateway" in rest[-1]


def test_an_accepted_loss_says_what_is_given_up_and_which_callers_were_refused() -> None:
    text = "\n".join(accepted_lines(LOST, ["archive", "shop"]))
    assert "noticed at 2026-11-15T12:01:00+00:00" in text
    assert "of creates after 2026-11-15T12:00:00+00:00" in text
    assert "second job" in text
    assert "(LIMITER_UNAVAILABLE): archive, shop;" in text
    assert "reconcile --since DAY --charge" in text


@pytest.mark.parametrize("status", [WHOLE, NEW])
def test_without_a_loss_nothing_is_accepted(status: StoreStatus) -> None:
    assert list(accepted_lines(status, [])) == [f"{PLACE}: nothing is noted as lost, and nothing was changed"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-15", 12 * 3600),
        ("2026-11-15T11:59Z", 60),
        ("2026-11-15T12:30+01:00", 1800),
        ("2026-11-15 11:00", 3600),
    ],
)
def test_a_time_to_begin_at_is_a_day_or_an_instant_of_utc(text: str, seconds: int) -> None:
    assert time_of(text, NOON) == NOON - seconds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("yesterday", "is no day such as 2026-11-28"),
        ("", "is no day"),
        ("2026-11-31", "is no day"),
        ("1794744000", "is no day"),
        ("2026-11-16", "is in the future, so there is nothing to compare: it is 2026-11-15T12:00:00+00:00 now"),
        ("2026-11-15T12:00:01Z", "is in the future"),
        ("1900-01-01", "is before 1970"),
        ("0001-01-01T00:00+23:59", "is before 1970"),
    ],
)
def test_a_time_to_begin_at_that_is_none_or_in_the_future_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        time_of(text, NOON)
