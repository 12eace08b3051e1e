"""What `store status` and `store accept-loss` print, for somebody who has never seen a store."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from docpreview_gateway.creates.outlook import Outlook
from docpreview_gateway.creates.ports import MAKING, SecretUse, StoreState
from docpreview_gateway.creates.reconciliation import Doubled, Report
from docpreview_gateway.creates.secret_use import MARGIN_SECONDS, TO_DO
from docpreview_gateway.doctor import record_texts
from docpreview_gateway.doctor.record_texts import (
    INCOMPLETE,
    SLACK_SECONDS,
    accepted_lines,
    exit_code,
    status_lines,
    time_of,
)
from docpreview_gateway.doctor.records import Reconciled, StoreStatus

if TYPE_CHECKING:
    from docpreview_gateway.creates.rebuild import OnLoss

PLACE = "redis://127.0.0.1:6379/0, namespace docs"
BUCKET = "docs-1250000000"
NOON = 1_794_744_000.0
"""2026-11-15 12:00 UTC."""

OUTLOOK = Outlook("rebuild", 225.0, 86400.0)
WHOLE = StoreStatus(PLACE, StoreState("abc", 17, NOON, 0.0, "2026-11-15"), 1234, OUTLOOK, NOON + 90)
LOST = WHOLE._replace(state=StoreState("abc", 17, NOON, NOON + 60, "2026-11-15"))
EMPTY = WHOLE._replace(state=StoreState("", 0, 0.0, 0.0, ""), records=0)
NEW = WHOLE._replace(state=StoreState("abc", 1, 0.0, MAKING, ""), records=0)


def test_a_second_job_is_told_with_the_other_one_and_whose_it_is() -> None:
    report = Report(BUCKET, doubled=[Doubled("d2", "d1", "shop"), Doubled("d4", "d3", "")])
    texts = [line.result for line in record_texts.lines(Reconciled(BUCKET, report)) if line.kind == "doubled"]
    assert texts == ["is a second job of the create of shop that has d1", "is a second job of the create that has d3"]


def test_a_list_without_markers_is_no_proof_that_all_agrees() -> None:
    found = list(record_texts.lines(Reconciled(BUCKET, Report(BUCKET, is_blind=True))))
    assert [line.kind for line in found] == ["blind", "summary"]
    assert exit_code(found) == INCOMPLETE


def test_a_whole_store_says_what_it_holds_and_that_nothing_is_to_be_done() -> None:
    first, *rest = status_lines(WHOLE)
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
    on_loss: OnLoss, next_step: str
) -> None:
    first, *rest = status_lines(LOST._replace(outlook=replace(OUTLOOK, on_loss=on_loss)))
    assert first.startswith("PROBLEM")
    assert (
        "creates with request_id are refused (LEDGER_UNAVAILABLE), and without one those of callers with a page budget "
        "(LIMITER_UNAVAILABLE)"
    ) in first
    assert any("noticed at 2026-11-15T12:01:00+00:00" in line for line in rest)
    assert next_step in rest[-1]


def test_a_lost_store_says_when_a_cloud_without_echo_ends_it_at_the_earliest() -> None:
    """The four minutes are of a cloud that shows whose the jobs are; nobody knows that here."""
    *_, remedy = status_lines(LOST)
    assert "in 4 min or more" in remedy
    assert "do not go on before 2026-11-16T12:01:00+00:00 (ledger.retention_seconds" in remedy
    *_, remedy = status_lines(LOST._replace(state=LOST.state._replace(lost_since=2.0)))
    assert "do not go on for 24 h (ledger.retention_seconds" in remedy


@pytest.mark.parametrize("status", [LOST, WHOLE._replace(missing=[SecretUse("ab12", NOON)])])
@pytest.mark.parametrize("on_loss", ["rebuild", "refuse"])
def test_who_is_told_how_to_end_a_loss_by_hand_is_told_its_price_in_the_same_sentence(
    status: StoreStatus, on_loss: OnLoss
) -> None:
    *_, remedy = status_lines(status._replace(outlook=replace(OUTLOOK, on_loss=on_loss)))
    assert "store accept-loss` (a repeated request_id may then make, and bill, a second job)" in remedy


def test_a_rebuild_that_is_overdue_is_not_to_be_waited_for() -> None:
    *_, remedy = status_lines(LOST._replace(now=NOON + 60 + 225 + SLACK_SECONDS + 1))
    assert "to do: see why" in remedy
    assert "docs/runbooks/store-lost.md" in remedy
    assert "4 min" not in remedy


def test_buckets_whose_creates_are_all_refused_are_named() -> None:
    """Without a record a job there would be taken for another create's."""
    own = LOST._replace(exclusive=["own-1250000000"])
    for lines in (status_lines(own), accepted_lines(own, []), status_lines(own._replace(missing=[SecretUse("a", 1)]))):
        assert "all creates in own-1250000000 (LEDGER_UNAVAILABLE) unless the cloud shows" in "\n".join(lines)
    assert "all creates in" not in "\n".join([*status_lines(LOST), *accepted_lines(LOST, [])])


def test_a_store_that_was_rebuilt_from_nothing_says_to_which_days_pages_count() -> None:
    """The next create sets the day; the pages of before count to the days of theirs all the same."""
    text = "\n".join(status_lines(WHOLE._replace(state=WHOLE.state._replace(day=""))))
    assert "pages are counted to the days of their creates; the next one with a budget sets the day" in text


def test_a_loss_noticed_before_the_clouds_clock_was_known_has_no_time_of_1970() -> None:
    text = "\n".join(status_lines(LOST._replace(state=LOST.state._replace(lost_since=2.0))))
    assert "before the cloud's clock was known" in text
    assert "1970" not in text


@pytest.mark.parametrize(("status", "words"), [(EMPTY, "is empty"), (NEW, "just making the store: nothing is lost")])
def test_a_store_that_is_not_in_use_yet_is_no_lost_one(status: StoreStatus, words: str) -> None:
    first, *rest = status_lines(status)
    assert words in first
    assert "1970" not in "\n".join(rest)
    assert "start a gateway" in rest[-1]


def test_a_store_of_another_secret_names_it_and_what_to_do_once() -> None:
    use = SecretUse("ab12", NOON)
    first, *rest = status_lines(WHOLE._replace(missing=[use]))
    assert first.startswith("PROBLEM")
    assert "its id is ab12, last noted use 2026-11-15T12:00:00+00:00" in first
    assert "ledger.key_file" in first
    assert [line for line in [first, *rest] if TO_DO in line] == [rest[-1]]


def test_records_that_cannot_be_read_are_named() -> None:
    *_, one, remedy = status_lines(WHOLE._replace(unreadable={"i:77": "record i:77: garbage"}))
    assert "record i:77: garbage" in one
    assert "docs/runbooks/records-failing.md" in remedy


def test_an_accepted_loss_of_a_secret_says_so() -> None:
    first, *_ = accepted_lines(WHOLE._replace(missing=[SecretUse("ab12", NOON)]), [])
    assert "recorded with a secret that is missing here is lost" in first


def test_a_secret_that_was_just_used_is_said_to_be_in_use_by_others() -> None:
    """They write with it again after it was given up. An older one is as lost as it seems."""
    young = WHOLE._replace(missing=[SecretUse("ab12", NOON)])
    old = young._replace(now=NOON + MARGIN_SECONDS)
    words = "other gateways seem to use it still (ab12, last noted use 2026-11-15T12:00:00+00:00; notes are some"
    for lines in (status_lines, lambda status: accepted_lines(status, [])):
        assert words in "\n".join(lines(young))
        assert words not in "\n".join(lines(old))
    assert "they bring it back with their next record" in "\n".join(accepted_lines(young, []))


def test_an_accepted_loss_says_what_is_given_up_and_which_callers_were_refused() -> None:
    text = "\n".join(accepted_lines(LOST, ["archive", "shop"]))
    assert "noticed at 2026-11-15T12:01:00+00:00" in text
    assert "of creates after 2026-11-15T12:00:00+00:00" in text
    assert "second job" in text
    assert "(LEDGER_UNAVAILABLE), and without one those of callers with a page budget (LIMITER_UN" in text
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
