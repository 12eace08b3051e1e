"""The contract of `CreateStore`, for every implementation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.keys import CreateKeys, random_key
from docpreview_gateway.creates.pages import PageCount, Pages, Periods
from docpreview_gateway.creates.ports import (
    MAKING,
    Change,
    Lease,
    SecretUse,
    StoreError,
    StoreLost,
    StoreState,
    UnknownSecret,
)
from docpreview_gateway.creates.records import Held, Record, State, Timing
from docpreview_gateway.model.callers import PageBudget
from tests.contract.create_stores import KEYS, STORES, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from docpreview_gateway.creates.ports import Begun, CreateStore
    from tests.contract.create_stores import Stores

NOW = 1_796_000_000.0
DAY, NEXT_DAY = "2026-11-30", "2026-12-01"
TODAY, TOMORROW = Periods(DAY, "2026-11"), Periods(NEXT_DAY, "2026-12")
BUDGET = PageBudget(per_day=100, per_month=150)
TIMING = Timing()
BUCKET = "docs-1250000000"


@pytest.fixture(params=list(STORES))
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    async with STORES[request.param](request, tmp_path) as stores:
        yield stores


@pytest.fixture
async def store(stores: Stores) -> CreateStore:
    return await opened(stores)


def record(
    request_id: str = "r",
    *,
    pages: int = 30,
    caller: str = "a",
    place: str = "p",
    render: str = "",
    day: str = DAY,
    now: float = NOW,
) -> Record:
    """An OPEN record of a caller, with a request and a body of bytes that no text encoding likes."""
    request = CreatePreviewJobRequest(bucket=BUCKET, user_data=request_id)
    return Record(
        key=KEYS.record_keys(caller, BUCKET, request_id)[0],
        body=bytes(range(0, 256, 16)),
        kid=KEYS.id,
        caller=caller,
        bucket=BUCKET,
        request=request.SerializeToString(),
        place=place,
        render=render,
        keep=TIMING.keep,
        day=day,
        asked=pages,
    ).opened(now, TIMING)


def accepted(opened: Record, job_id: str = "job") -> Record:
    job = PreviewJob(bucket=BUCKET, job_id=job_id, state=PreviewJob.STATE_SUBMITTED)
    job.create_time.FromSeconds(int(NOW))
    return opened.accepted(job, NOW)


async def begun(store: CreateStore, wanted: Record, *, budget: PageBudget | None = BUDGET) -> Record:
    """Begin a create that nothing speaks against."""
    result = await store.begin(wanted, NOW, budget, dedupe_since=None)
    assert (result.outcome, result.record) == ("new", wanted)
    return wanted


async def finished(store: CreateStore, wanted: Record, job_id: str = "job") -> Record:
    """Begin a create and accept it."""
    opened = await begun(store, wanted)
    done = accepted(opened, job_id)
    assert await store.change([Change(opened, done, NOW)]) == [True]
    return done


async def day_pages(store: CreateStore, caller: str = "a", periods: Periods = TODAY) -> Pages:
    return (await store.count(caller, periods)).day


# begin


async def test_a_begun_create_is_found_as_it_was_inserted(store: CreateStore) -> None:
    """All its fields, bytes too."""
    wanted = record(render="content")
    result = await store.begin(wanted, NOW, BUDGET, dedupe_since=None)
    assert result == ("new", wanted, PageCount(Pages(0, 30), Pages(0, 30)), DAY)
    assert await store.find([wanted.key, "none"]) == [wanted, None]


async def test_a_second_begin_of_a_key_finds_the_first_and_reserves_nothing(store: CreateStore) -> None:
    """The record is that of the attempt that was begun, whatever the second one says of itself."""
    first = await begun(store, record())
    again = await store.begin(record(pages=70), NOW + 5, BUDGET, dedupe_since=None)
    assert again == ("known", first, PageCount(Pages(0, 30), Pages(0, 30)), DAY)


async def test_a_begin_whose_answer_was_lost_finds_its_own_attempt(store: CreateStore) -> None:
    """By the nonce, which no other attempt has."""
    wanted = await begun(store, record())
    again = await store.begin(wanted, NOW, BUDGET, dedupe_since=None)
    assert again.outcome == "known"
    assert again.record is not None
    assert again.record.nonce == wanted.nonce
    assert await day_pages(store) == Pages(0, 30)


async def test_a_known_create_is_known_whatever_else_speaks_against_it(store: CreateStore) -> None:
    """Deduplication, the period and the budget come after the key."""
    known = await begun(store, record("known", place="elsewhere"))
    await finished(store, record("other", render="content"))
    await store.advance(DAY, NEXT_DAY)
    result = await store.begin(
        record("known", render="content", pages=1000), NOW, PageBudget(per_day=0), dedupe_since=0.0
    )
    assert (result.outcome, result.record, result.day) == ("known", known, NEXT_DAY)


async def test_creates_of_several_ids_have_records_of_their_own(store: CreateStore) -> None:
    first, second = await begun(store, record("one")), await begun(store, record("two"))
    assert await store.find([second.key, first.key]) == [second, first]


# deduplication


async def test_an_accepted_create_of_the_place_answers_one_of_equal_content(store: CreateStore) -> None:
    """Nothing is inserted and no page is reserved."""
    there = await finished(store, record("one", render="content"))
    wanted = record("two", render="content")
    result = await store.begin(wanted, NOW, BUDGET, dedupe_since=NOW - 3600)
    assert result == ("duplicate", there, PageCount(Pages(0, 30), Pages(0, 30)), DAY)
    assert await store.find([wanted.key]) == [None]


async def test_a_charged_create_answers_before_period_and_budget_are_asked(store: CreateStore) -> None:
    there = await finished(store, record("one", render="content"))
    charged = there.charged(3)
    assert await store.change([Change(there, charged, NOW)]) == [True]
    await store.advance(DAY, NEXT_DAY)
    wanted = record("two", render="content", pages=1000)
    result = await store.begin(wanted, NOW, PageBudget(per_day=0), dedupe_since=NOW - 3600)
    assert (result.outcome, result.record) == ("duplicate", charged)


@pytest.mark.parametrize(
    ("wanted", "since"),
    [
        (record("two", render="content"), None),
        (record("two", render="content"), NOW),
        (record("two", render="other content"), 0.0),
        (record("two", render="content", place="elsewhere"), 0.0),
        (record("two", render="content", caller="b"), 0.0),
    ],
    ids=["off", "too old", "other content", "other place", "other caller"],
)
async def test_a_create_that_differs_is_not_a_duplicate(
    store: CreateStore, wanted: Record, since: float | None
) -> None:
    """Nor is any when deduplication is off, or the one that is there began too early."""
    await finished(store, record("one", render="content"))
    assert (await store.begin(wanted, NOW, BUDGET, dedupe_since=since)).outcome == "new"


async def test_a_create_that_began_at_the_limit_still_answers(store: CreateStore) -> None:
    there = await finished(store, record("one", render="content"))
    result = await store.begin(record("two", render="content"), NOW, BUDGET, dedupe_since=there.first_start)
    assert result.outcome == "duplicate"


async def test_creates_of_unknown_content_are_no_duplicates(store: CreateStore) -> None:
    await finished(store, record("one"))
    assert (await store.begin(record("two"), NOW, BUDGET, dedupe_since=0.0)).outcome == "new"


async def test_an_open_create_answers_no_other(store: CreateStore) -> None:
    """Its outcome is not known."""
    await begun(store, record("one", render="content"))
    assert (await store.begin(record("two", render="content"), NOW, BUDGET, dedupe_since=0.0)).outcome == "new"


async def test_a_create_that_must_be_alone_finds_the_open_one_of_its_place(store: CreateStore) -> None:
    """Of any caller and content. Nothing is inserted or reserved, whatever the budget and the period say."""
    there = await begun(store, record("one", pages=1, caller="b"))
    wanted = record("two", render="content", day=NEXT_DAY, pages=1000)
    for since in (None, 0.0):
        result = await store.begin(wanted, NOW, BUDGET, dedupe_since=since, alone=True)
        assert (result.outcome, result.record) == ("occupied", there)
    assert await store.find([wanted.key]) == [None]
    assert (await store.begin(there, NOW, BUDGET, dedupe_since=None, alone=True)).outcome == "known"
    elsewhere = record("three", place="q", pages=1)
    assert (await store.begin(elsewhere, NOW, BUDGET, dedupe_since=None, alone=True)).outcome == "new"
    assert (await store.begin(record("four", pages=1), NOW, BUDGET, dedupe_since=None)).outcome == "new"


@pytest.mark.parametrize("end", ["accepted", "charged", "deleted"])
async def test_a_create_that_must_be_alone_begins_when_the_one_of_its_place_has_ended(
    store: CreateStore, end: str
) -> None:
    there = await begun(store, record("one"))
    done = accepted(there)
    await store.change([Change(there, None if end == "deleted" else done, NOW)])
    if end == "charged":
        await store.change([Change(done, done.charged(3), NOW)])
    for since in (None, 0.0):
        wanted = record(f"two {since}", pages=1, place="p" if since is None else "q")
        assert (await store.begin(wanted, NOW, BUDGET, dedupe_since=since, alone=True)).outcome == "new"


async def test_a_create_that_must_be_alone_is_answered_by_one_of_equal_content(store: CreateStore) -> None:
    there = await finished(store, record("one", render="content"))
    wanted = record("two", render="content")
    result = await store.begin(wanted, NOW, BUDGET, dedupe_since=0.0, alone=True)
    assert (result.outcome, result.record) == ("duplicate", there)


async def test_a_reopened_create_occupies_its_place_again(store: CreateStore) -> None:
    first = await begun(store, record("first", pages=1))
    second = await finished(store, record("second", pages=1))
    reopened = first.opened(NOW + 300, TIMING)
    wanted = record("third", pages=1)
    assert (await store.find([second.key])) == [second]
    await store.change([Change(first, reopened, NOW)])
    result = await store.begin(wanted, NOW, BUDGET, dedupe_since=None, alone=True)
    assert (result.outcome, result.record) == ("occupied", reopened)


async def test_of_two_replicas_that_begin_at_one_place_alone_one_does(stores: Stores, store: CreateStore) -> None:
    other = await opened(stores)
    calls = (
        each.begin(record(str(n)), NOW, BUDGET, dedupe_since=None, alone=True) for n, each in enumerate((store, other))
    )
    assert sorted(result.outcome for result in await asyncio.gather(*calls)) == ["new", "occupied"]


async def test_a_place_belongs_to_the_create_that_began_last(store: CreateStore) -> None:
    """An earlier one of equal content answers no more: the later one writes over what it made."""
    await finished(store, record("one", render="content"), "job-1")
    later = await finished(store, record("two", render="new content"), "job-2")
    back = await store.begin(record("three", render="content"), NOW, BUDGET, dedupe_since=0.0)
    assert back.outcome == "new"
    assert await store.change([Change(back.record, None)]) == [True]
    assert later.place == record("four").place


async def test_a_place_is_taken_over_by_a_reopened_create(store: CreateStore) -> None:
    first = await begun(store, record("one", render="content", pages=1))
    await finished(store, record("two", render="new content", pages=1))
    again = first.opened(NOW + 300, TIMING)
    assert await store.change([Change(first, again, NOW)]) == [True]
    done = accepted(again, "job-1")
    assert await store.change([Change(again, done, NOW)]) == [True]
    hit = await store.begin(record("three", render="content"), NOW, BUDGET, dedupe_since=0.0)
    assert (hit.outcome, hit.record) == ("duplicate", done)
    miss = await store.begin(record("four", render="new content"), NOW, BUDGET, dedupe_since=0.0)
    assert miss.outcome == "new"


async def test_a_place_is_not_taken_over_by_what_becomes_of_an_earlier_create(store: CreateStore) -> None:
    """Its acceptance and its charge leave the place to the later one."""
    first = await begun(store, record("one", render="content", pages=1))
    second = await finished(store, record("two", render="new content", pages=1), "job-2")
    done = accepted(first, "job-1")
    assert await store.change([Change(first, done, NOW), Change(done, done.charged(1), NOW)]) == [True, True]
    hit = await store.begin(record("three", render="new content"), NOW, BUDGET, dedupe_since=0.0)
    assert (hit.outcome, hit.record) == ("duplicate", second)


async def test_a_deleted_create_leaves_its_place_to_nobody(store: CreateStore) -> None:
    """Also when a create of the same id is inserted again without being begun."""
    there = await finished(store, record("one", render="content"))
    assert await store.change([Change(there, None)]) == [True]
    assert await store.change([Change(None, there, NOW)]) == [True]
    assert (await store.begin(record("two", render="content"), NOW, BUDGET, dedupe_since=0.0)).outcome == "new"


async def test_a_deleted_create_leaves_the_place_of_a_later_one_alone(store: CreateStore) -> None:
    first = await begun(store, record("one", render="content", pages=1))
    second = await finished(store, record("two", render="content", pages=1))
    assert await store.change([Change(first, None)]) == [True]
    hit = await store.begin(record("three", render="content"), NOW, BUDGET, dedupe_since=0.0)
    assert (hit.outcome, hit.record) == ("duplicate", second)


# changes


async def test_changes_are_made_in_order_and_each_by_itself(store: CreateStore) -> None:
    """Those whose condition does not hold change nothing, and keep no other from being made."""
    one, two = await begun(store, record("one")), await begun(store, record("two"))
    gone = record("gone")
    done = accepted(one)
    changes = [
        Change(one, done, NOW),
        Change(gone, accepted(gone), NOW),
        Change(done, done.charged(7), NOW),
        Change(two, None),
        Change(two, None),
    ]
    assert await store.change(changes) == [True, False, True, True, False]
    assert await store.find([one.key, gone.key, two.key]) == [done.charged(7), None, None]
    assert await day_pages(store) == Pages(7, 0)


async def test_no_changes_are_none(store: CreateStore) -> None:
    assert await store.change([]) == []
    assert await store.find([]) == []
    assert await store.bound(BUCKET, []) == set()


async def test_a_hundred_changes_are_made_at_once(store: CreateStore) -> None:
    several = [record(str(number), pages=1) for number in range(100)]
    assert await store.change([Change(None, each, NOW) for each in several]) == [True] * 100
    assert await store.find([each.key for each in several]) == several
    assert await day_pages(store) == Pages(0, 100)


@pytest.mark.parametrize("new", [None, accepted(record()), record().opened(NOW, TIMING)])
async def test_a_change_of_another_attempt_is_refused(store: CreateStore, new: Record | None) -> None:
    """The nonce differs: its release, its finish and its reopening change nothing."""
    there = await begun(store, record())
    assert await store.change([Change(replace(there, nonce=b"another!"), new, NOW)]) == [False]
    assert await store.find([there.key]) == [there]
    assert await day_pages(store) == Pages(0, 30)


async def test_a_change_of_another_state_is_refused(store: CreateStore) -> None:
    there = await begun(store, record())
    done = await _charged(store, there)
    for old in (there, accepted(there)):
        assert await store.change([Change(old, None), Change(old, accepted(old, "other"), NOW)]) == [False, False]
    assert await store.find([there.key]) == [done]


async def _charged(store: CreateStore, opened: Record, pages: int = 12) -> Record:
    done = accepted(opened)
    charged = done.charged(pages)
    assert await store.change([Change(opened, done, NOW), Change(done, charged, NOW)]) == [True, True]
    return charged


async def test_an_insert_is_made_only_where_there_is_none(store: CreateStore) -> None:
    """So a create that deduplication answers is remembered once."""
    alias = replace(accepted(replace(record("alias"), day="")), nonce=b"")
    assert await store.change([Change(None, alias, NOW)]) == [True]
    assert await store.change([Change(None, replace(alias, job_id="other"), NOW)]) == [False]
    assert await store.find([alias.key]) == [alias]
    assert await day_pages(store) == Pages()


async def test_inserted_records_count_their_pages(store: CreateStore) -> None:
    """As a rebuild does: accepted ones hold pages, charged ones have used them."""
    done = accepted(record("one"))
    charged = accepted(record("two")).charged(9)
    assert await store.change([Change(None, done, NOW), Change(None, charged, NOW)]) == [True, True]
    assert await store.count("a", TODAY) == PageCount(Pages(9, 30), Pages(9, 30))


async def test_a_charge_counts_once_however_often_it_is_sent(store: CreateStore) -> None:
    """In day and month: the reservation becomes the pages that were made, more than asked for too."""
    done = await finished(store, record())
    charge = [Change(done, done.charged(45), NOW)]
    assert await store.change(charge) == [True]
    assert await store.change(charge) == [False]
    assert await store.count("a", TODAY) == PageCount(Pages(45, 0), Pages(45, 0))


async def test_a_charge_that_is_corrected_counts_the_difference(store: CreateStore) -> None:
    charged = await _charged(store, await begun(store, record()), 30)
    assert await store.change([Change(charged, charged.charged(4), NOW)]) == [True]
    assert await day_pages(store) == Pages(4, 0)


async def test_a_released_create_gives_its_pages_back_once(store: CreateStore) -> None:
    there = await begun(store, record())
    await begun(store, record("other", pages=5))
    assert await store.change([Change(there, None)]) == [True]
    assert await store.change([Change(there, None)]) == [False]
    assert await store.count("a", TODAY) == PageCount(Pages(0, 5), Pages(0, 5))


async def test_a_reopened_create_keeps_its_reservation(store: CreateStore) -> None:
    """The same step again changes nothing: the nonce of the earlier attempt is gone."""
    there = await begun(store, record())
    again = there.opened(NOW + 300, TIMING)
    assert await store.change([Change(there, again, NOW)]) == [True]
    assert await store.change([Change(there, again, NOW)]) == [False]
    assert await store.find([there.key]) == [again]
    assert await day_pages(store) == Pages(0, 30)


async def test_the_pages_of_a_forgotten_create_stay_counted(store: CreateStore) -> None:
    """The budget of a month outlives the memory of a `request_id`. The id is free again, and is charged again."""
    charged = await _charged(store, await begun(store, record()), 12)
    assert await store.change([Change(charged, None)]) == [True]
    assert await store.count("a", TODAY) == PageCount(Pages(12, 0), Pages(12, 0))
    await begun(store, record(pages=20))
    assert await store.count("a", TODAY) == PageCount(Pages(12, 20), Pages(12, 20))


async def test_a_create_without_a_day_counts_no_pages(store: CreateStore) -> None:
    """Whatever the budget and the store's day are, and whatever becomes of it."""
    await begun(store, record("other"))
    there = await begun(store, record(day="", pages=1000))
    done = accepted(there)
    assert done.state is State.CHARGED
    assert await store.change([Change(there, done, NOW)]) == [True]
    assert await store.change([Change(done, None)]) == [True]
    assert await store.count("a", TODAY) == PageCount(Pages(0, 30), Pages(0, 30))


# budgets and periods


async def test_a_create_beyond_the_day_is_refused_and_counts_nothing(store: CreateStore) -> None:
    """A smaller one still fits, to the page."""
    await begun(store, record("one", pages=80))
    refused = await store.begin(record("two", pages=21), NOW, BUDGET, dedupe_since=None)
    assert refused == ("day", None, PageCount(Pages(0, 80), Pages(0, 80)), DAY)
    assert await store.find([record("two").key]) == [None]
    await begun(store, record("three", pages=20))


async def test_a_create_beyond_the_month_is_refused_for_the_month(store: CreateStore) -> None:
    """Also when the day's budget would refuse it too: the month's takes longer to renew."""
    await begun(store, record("one", pages=100, day="2026-11-29"))
    assert await store.advance("2026-11-29", DAY) == DAY
    refused = await store.begin(record("two", pages=51), NOW, BUDGET, dedupe_since=None)
    assert refused == ("month", None, PageCount(Pages(), Pages(0, 100)), DAY)
    both = await store.begin(record("two", pages=101), NOW, BUDGET, dedupe_since=None)
    assert both.outcome == "month"
    await begun(store, record("two", pages=50))


async def test_charged_pages_use_up_the_budget_like_reserved_ones(store: CreateStore) -> None:
    charged = await _charged(store, await begun(store, record("one", pages=10)), 90)
    assert charged.made == 90
    assert (await store.begin(record("two", pages=11), NOW, BUDGET, dedupe_since=None)).outcome == "day"
    await begun(store, record("two", pages=10))


async def test_leased_pages_use_up_the_budget_like_reserved_ones(store: CreateStore) -> None:
    assert (await store.lease(Lease("x", "a", DAY, 60, NOW), BUDGET)).pages == 60
    assert (await store.begin(record(pages=41), NOW, BUDGET, dedupe_since=None)).outcome == "day"
    begun = await store.begin(record(pages=40), NOW, BUDGET, dedupe_since=None)
    assert (begun.outcome, sum(begun.pages.day), sum(begun.pages.month)) == ("new", 100, 100)


@pytest.mark.parametrize("budget", [None, PageBudget()])
async def test_creates_without_limits_are_counted(store: CreateStore, budget: PageBudget | None) -> None:
    for name in ("one", "two"):
        await begun(store, record(name, pages=10**9), budget=budget)
    assert await day_pages(store) == Pages(0, 2 * 10**9)


async def test_callers_have_pages_of_their_own(store: CreateStore) -> None:
    """Whatever characters their names have."""
    for caller in ("a", "b", "a:b", "ä b\n", "a|2026-11-30"):
        await begun(store, record(caller=caller, pages=100))
    assert await day_pages(store, "a") == await day_pages(store, "a:b") == Pages(0, 100)
    assert await day_pages(store, "c") == Pages()


async def test_a_create_of_another_day_is_refused_and_counts_nothing(store: CreateStore) -> None:
    """It learns the day to which the store counts, earlier or later than its own."""
    await begun(store, record("one"))
    later = await store.begin(record("two", day=NEXT_DAY), NOW, BUDGET, dedupe_since=None)
    assert (later.outcome, later.record, later.day) == ("period", None, DAY)
    assert await store.advance(DAY, NEXT_DAY) == NEXT_DAY
    earlier = await store.begin(record("two"), NOW, None, dedupe_since=None)
    assert (earlier.outcome, earlier.record, earlier.day) == ("period", None, NEXT_DAY)
    assert await store.find([record("two").key]) == [None]
    assert await store.count("a", TODAY) == PageCount(Pages(0, 30), Pages(0, 30))
    assert await store.count("a", TOMORROW) == PageCount()


async def test_a_store_without_a_day_takes_that_of_the_first_counted_create(store: CreateStore) -> None:
    assert (await store.state()).day == ""
    assert (await store.begin(record("one", day=""), NOW, BUDGET, dedupe_since=None)).day == ""
    assert (await store.begin(record("two"), NOW, BUDGET, dedupe_since=None)).day == DAY
    assert (await store.state()).day == DAY


async def test_the_day_moves_forward_only_and_from_where_the_store_is(store: CreateStore) -> None:
    """Two replicas that advance it at once move it by one step."""
    assert await store.advance("", DAY) == DAY
    assert await store.advance("", NEXT_DAY) == DAY
    assert await store.advance(DAY, "2026-11-29") == DAY
    assert await store.advance(DAY, DAY) == DAY
    assert await store.advance("2026-11-29", NEXT_DAY) == DAY
    assert await store.advance(DAY, NEXT_DAY) == NEXT_DAY
    assert await store.advance(DAY, NEXT_DAY) == NEXT_DAY
    assert (await store.state()).day == NEXT_DAY


async def test_a_new_month_begins_with_a_full_budget(store: CreateStore) -> None:
    """What was begun in the old one counts there, also when its job ends in the new one."""
    done = await finished(store, record("one", pages=100))
    assert await store.advance(DAY, NEXT_DAY) == NEXT_DAY
    await begun(store, record("two", pages=100, day=NEXT_DAY))
    assert await store.change([Change(done, done.charged(70), NOW)]) == [True]
    assert await store.count("a", TODAY) == PageCount(Pages(70, 0), Pages(70, 0))
    assert await store.count("a", TOMORROW) == PageCount(Pages(0, 100), Pages(0, 100))


async def test_days_of_one_month_add_up_in_it(store: CreateStore) -> None:
    await begun(store, record("one", pages=40, day="2026-11-29"))
    await store.advance("2026-11-29", DAY)
    await begun(store, record("two", pages=2))
    assert await store.count("a", TODAY) == PageCount(Pages(0, 2), Pages(0, 42))


# what is due


async def test_due_records_are_claimed_once_the_longest_due_first(store: CreateStore) -> None:
    """No more than asked for; the others next. They are due again at the time that was set."""
    names = {"late": NOW + 1, "second": NOW - 5, "first": NOW - 9, "third": NOW}
    for name, look_at in names.items():
        await store.begin(record(name, pages=1), look_at, BUDGET, dedupe_since=None)
    assert _names(await store.due(NOW, NOW + 60, 2)) == ["first", "second"]
    assert _names(await store.due(NOW, NOW + 60, 2)) == ["third"]
    assert await store.due(NOW, NOW + 60, 2) == []
    assert await store.due(NOW + 60 - 0.5, NOW + 120, 9) == await store.find([record("late").key])
    assert sorted(_names(await store.due(NOW + 60, NOW + 120, 9))) == ["first", "second", "third"]


def _names(records: list[Record]) -> list[str]:
    return [each.read_request().user_data for each in records]


async def test_two_replicas_never_claim_the_same_record(stores: Stores, store: CreateStore) -> None:
    other = await opened(stores)
    for number in range(20):
        await store.begin(record(str(number), pages=1), NOW + number, BUDGET, dedupe_since=None)
    claims = await asyncio.gather(*(each.due(NOW + 99, NOW + 200, 5) for each in (store, other, store, other)))
    claimed = [name for each in claims for name in _names(each)]
    assert sorted(claimed, key=int) == [str(number) for number in range(20)]


async def test_a_postponed_record_is_due_when_it_was_postponed_to(store: CreateStore) -> None:
    """Earlier or later than before. Keys that are gone are left out: they do not come back."""
    one = await begun(store, record("one"))
    await store.postpone([one.key, random_key()], NOW + 100)
    assert await store.due(NOW + 99, NOW + 500, 9) == []
    assert await store.due(NOW + 100, NOW + 500, 9) == [one]
    await store.postpone([one.key], NOW)
    assert await store.due(NOW, NOW + 500, 9) == [one]
    await store.postpone([], NOW)


async def test_a_change_sets_when_its_record_is_due(store: CreateStore) -> None:
    """A deleted one is due no more."""
    there = await begun(store, record())
    done = accepted(there)
    await store.change([Change(there, done, NOW + 50)])
    assert await store.due(NOW + 49, NOW + 500, 9) == []
    assert await store.due(NOW + 50, NOW + 60, 9) == [done]
    await store.change([Change(done, None)])
    assert await store.due(NOW + 10**6, NOW + 10**7, 9) == []


async def test_the_open_creates_of_a_place_are_listed(store: CreateStore) -> None:
    """Not those of others, nor those whose job is known, nor those that were released."""
    one = await begun(store, record("one", pages=1))
    two = await begun(store, record("two", pages=1))
    gone = await begun(store, record("gone", pages=1))
    await begun(store, record("elsewhere", pages=1, place="q"))
    done = await finished(store, record("done", pages=1))
    await store.change([Change(gone, None)])
    assert sorted(await store.open_at("p")) == sorted([one.key, two.key])
    await store.change([Change(done, done.opened(NOW, TIMING), NOW)])
    assert sorted(await store.open_at("p")) == sorted([one.key, two.key, done.key])
    assert await store.open_at("nowhere") == []


async def test_no_more_than_a_hundred_open_creates_of_a_place_are_listed(store: CreateStore) -> None:
    several = [record(str(number), pages=0) for number in range(101)]
    for some in (several[:100], several[100:]):
        await store.change([Change(None, each, NOW) for each in some])
    found = await store.open_at("p")
    assert len(found) == len(set(found)) == 100
    assert set(found) <= {each.key for each in several}


async def test_jobs_that_belong_to_a_record_are_told_from_others(store: CreateStore) -> None:
    """By bucket and id. The job of a deleted record belongs to none; OPEN records have no job."""
    done = await finished(store, record("one"), "job-1")
    await _charged(store, await begun(store, record("two")))
    await begun(store, record("open", pages=1))
    assert await store.bound(BUCKET, ["job-1", "job", "job-2", ""]) == {"job-1", "job"}
    assert await store.bound("other-1250000000", ["job-1"]) == set()
    await store.change([Change(done, None)])
    assert await store.bound(BUCKET, ["job-1", "job"]) == {"job"}


def created(opened: Record, job_id: str, at: float, bucket: str = BUCKET) -> Record:
    """The record with a job that the cloud created at this time."""
    job = PreviewJob(bucket=bucket, job_id=job_id)
    job.create_time.FromSeconds(int(at))
    return replace(opened, bucket=bucket).accepted(job, NOW)


async def test_recorded_jobs_are_told_by_when_the_cloud_created_them(store: CreateStore) -> None:
    """Those of one bucket, with both ends of the span, the oldest ones; not those that the cloud did not date."""
    for number in range(5):
        opened = await begun(store, record(str(number), pages=1))
        await store.change([Change(opened, created(opened, f"job-{number}", NOW + 10 - number), NOW)])
    undated = replace(record("undated")).accepted(PreviewJob(bucket=BUCKET, job_id="undated"), NOW)
    elsewhere = created(record("elsewhere"), "elsewhere", NOW + 8, bucket="other-1250000000")
    await store.change([Change(None, undated, NOW), Change(None, elsewhere, NOW)])
    await begun(store, record("open", pages=1))
    assert await store.accepted(BUCKET, NOW + 7, NOW + 9, 9) == {"job-3": NOW + 7, "job-2": NOW + 8, "job-1": NOW + 9}
    assert await store.accepted(BUCKET, NOW, NOW + 99, 2) == {"job-4": NOW + 6, "job-3": NOW + 7}
    assert await store.accepted(BUCKET, NOW + 11, NOW + 99, 9) == {}
    assert await store.accepted("other-1250000000", NOW, NOW + 99, 9) == {"elsewhere": NOW + 8}
    assert await store.due(NOW + 10**8, NOW + 10**9, 1) != []


async def test_a_recorded_job_is_told_until_its_last_record_is_deleted(store: CreateStore) -> None:
    """Its charge changes nothing. An id that deduplication answered has the job of another create."""
    first = created(record("first"), "job", NOW + 5)
    alias = replace(first, key=record("alias").key, day="", state=State.CHARGED)
    other = created(record("other"), "another\tjob\nof\\n", NOW + 6)
    there = {"job": NOW + 5, "another\tjob\nof\\n": NOW + 6}
    await store.change([Change(None, each, NOW) for each in (first, alias, other)])
    assert await store.accepted(BUCKET, NOW, NOW + 99, 2) == there
    await store.change([Change(first, first.charged(3), NOW)])
    assert await store.accepted(BUCKET, NOW, NOW + 99, 9) == there
    await store.change([Change(first.charged(3), None)])
    assert await store.accepted(BUCKET, NOW, NOW + 99, 9) == there
    await store.change([Change(alias, None), Change(other, None)])
    assert await store.accepted(BUCKET, NOW, NOW + 99, 9) == {}


async def test_a_handed_over_job_is_told_like_others(store: CreateStore) -> None:
    await store.hand_over(LEASE, [(created(record(), "job", NOW + 5), NOW), (record("open"), NOW)])
    assert await store.accepted(BUCKET, NOW, NOW + 99, 9) == {"job": NOW + 5}


async def test_of_a_thousand_recorded_jobs_of_two_buckets_all_are_told(store: CreateStore) -> None:
    names = ("other-1250000000", BUCKET)
    several = [created(record(str(n), pages=0), f"job-{n}", NOW + n // 2, bucket=names[n % 2]) for n in range(2400)]
    for at in range(0, len(several), 100):
        await store.change([Change(None, each, NOW) for each in several[at : at + 100]])
    found = await store.accepted(BUCKET, NOW, NOW + 10_000, 1100)
    assert found == {f"job-{2 * n + 1}": NOW + n for n in range(1100)}


async def test_a_thousand_jobs_and_keys_are_looked_up_at_once(store: CreateStore) -> None:
    done = await finished(store, record("one"), "job-1")
    assert await store.bound(BUCKET, [f"job-{number}" for number in range(1000)]) == {"job-1"}
    assert await store.find([random_key() for _ in range(999)] + [done.key]) == [None] * 999 + [done]


# leases


async def test_a_lease_counts_as_held_and_is_listed(store: CreateStore) -> None:
    lease = Lease("x", "a", DAY, 40, NOW)
    assert await store.lease(lease, BUDGET) == lease
    assert await store.leases() == [lease]
    assert await store.count("a", TODAY) == PageCount(Pages(0, 40), Pages(0, 40))


async def test_a_lease_is_cut_to_what_the_budgets_have_left(store: CreateStore) -> None:
    """Of day and month, others' leases and reservations counted; its own pages are not counted twice."""
    await begun(store, record(pages=50))
    assert (await store.lease(Lease("x", "a", DAY, 40, NOW), BUDGET)).pages == 40
    assert (await store.lease(Lease("y", "a", DAY, 40, NOW), BUDGET)).pages == 10
    assert (await store.lease(Lease("x", "a", DAY, 45, NOW), BUDGET)).pages == 40
    assert (await store.lease(Lease("y", "a", DAY, 40, NOW), PageBudget(per_month=95))).pages == 5
    assert (await store.lease(Lease("x", "a", DAY, 10**6, NOW), PageBudget())).pages == 10**6
    assert await day_pages(store) == Pages(0, 50 + 10**6 + 5)


@pytest.mark.parametrize(("budget", "over"), [(PageBudget(per_day=0), "day"), (PageBudget(per_month=0), "month")])
async def test_a_budget_of_no_pages_lets_none_pass(store: CreateStore, budget: PageBudget, over: str) -> None:
    assert (await store.begin(record(pages=1), NOW, budget, dedupe_since=None)).outcome == over
    assert (await store.lease(Lease("x", "a", DAY, 40, NOW), budget)).pages == 0


async def test_a_lease_of_a_budget_that_is_used_up_has_no_pages(store: CreateStore) -> None:
    """Also when more than the budget is used."""
    await _charged(store, await begun(store, record(pages=100)), 120)
    assert (await store.lease(Lease("x", "a", DAY, 40, NOW), BUDGET)).pages == 0
    assert await store.leases() == []
    assert await day_pages(store) == Pages(120, 0)


async def test_a_renewed_lease_replaces_the_one_before(store: CreateStore) -> None:
    """Smaller, later; no pages delete it. Leases of other replicas, callers and days stay."""
    others = [Lease("y", "a", DAY, 1, NOW), Lease("x", "b", DAY, 2, NOW), Lease("x", "a", NEXT_DAY, 3, NOW)]
    for lease in [Lease("x", "a", DAY, 40, NOW), *others]:
        assert await store.lease(lease, BUDGET) == lease
    renewed = Lease("x", "a", DAY, 15, NOW + 30)
    assert await store.lease(renewed, BUDGET) == renewed
    assert sorted(await store.leases()) == sorted([renewed, *others])
    assert await day_pages(store) == Pages(0, 16)
    assert (await store.lease(renewed._replace(pages=0), BUDGET)).pages == 0
    assert sorted(await store.leases()) == sorted(others)
    assert await day_pages(store) == Pages(0, 1)


async def test_handed_over_creates_take_their_pages_out_of_the_lease(store: CreateStore) -> None:
    """The total stays: what the lease held is held by records. They are due at their time."""
    lease = await store.lease(Lease("x", "a", DAY, 40, NOW), BUDGET)
    one, two = record("one", pages=10), accepted(record("two", pages=20)).charged(25)
    await store.hand_over(lease, [(one, NOW + 5), (two, NOW + 10)])
    assert await store.leases() == [lease._replace(pages=5)]
    assert await store.count("a", TODAY) == PageCount(Pages(25, 15), Pages(25, 15))
    assert await store.due(NOW + 5, NOW + 99, 9) == [one]
    assert await store.find([two.key]) == [two]


async def test_creates_that_are_handed_over_again_count_once(store: CreateStore) -> None:
    """Those whose key is there stay as they are, whatever has become of them."""
    lease = await store.lease(Lease("x", "a", DAY, 40, NOW), BUDGET)
    one, two = record("one", pages=10), record("two", pages=5)
    await store.hand_over(lease, [(one, NOW)])
    charged = await _charged(store, one, 8)
    await store.hand_over(lease, [(one, NOW), (two, NOW)])
    assert await store.find([one.key, two.key]) == [charged, two]
    assert await store.leases() == [lease._replace(pages=25)]
    assert await day_pages(store) == Pages(8, 30)


async def test_pages_beyond_the_lease_are_counted_all_the_same(store: CreateStore) -> None:
    """Also without any lease: they were made, or may be."""
    lease = await store.lease(Lease("x", "a", DAY, 40, NOW), BUDGET)
    await store.hand_over(lease, [(record("one", pages=90), NOW), (record("two", pages=20), NOW)])
    assert await store.leases() == []
    assert await day_pages(store) == Pages(0, 110)
    await store.hand_over(lease, [(record("three", pages=7), NOW)])
    assert await store.leases() == []
    assert await store.count("a", TODAY) == PageCount(Pages(0, 117), Pages(0, 117))


async def test_a_hand_over_leaves_leases_of_others_alone(store: CreateStore) -> None:
    lease = await store.lease(Lease("x", "a", DAY, 40, NOW), BUDGET)
    other = await store.lease(Lease("y", "a", DAY, 40, NOW), BUDGET)
    await store.hand_over(lease, [(record(pages=60), NOW)])
    assert await store.leases() == [other]


# losses


async def test_the_state_tells_what_the_store_is(store: CreateStore) -> None:
    """Its generation stays, its `seq` rises with every change."""
    state = await store.state()
    assert state.generation
    assert (state.cloud_mark, state.lost_since, state.day) == (0, 0, "")
    assert await store.state() == state


async def _insert(store: CreateStore) -> None:
    await begun(store, record("another", pages=1))


async def _finish(store: CreateStore) -> None:
    there = record("there", pages=1)
    (stored,) = await store.find([there.key])
    assert stored is not None
    assert await store.change([Change(stored, accepted(stored), NOW)]) == [True]


async def _release(store: CreateStore) -> None:
    (stored,) = await store.find([record("there").key])
    assert await store.change([Change(stored, None)]) == [True]


async def _hand_over(store: CreateStore) -> None:
    await store.hand_over(Lease("x", "a", DAY, 0, NOW), [(record("handed"), NOW)])


async def _lease(store: CreateStore) -> None:
    await store.lease(Lease("x", "a", DAY, 1, NOW), BUDGET)


async def _advance(store: CreateStore) -> None:
    assert await store.advance(DAY, NEXT_DAY) == NEXT_DAY


async def _mark(store: CreateStore) -> None:
    await store.mark(NOW)


async def _rebuild(store: CreateStore) -> None:
    state = await store.begin_rebuild(NOW)
    assert await store.end_rebuild(state.lost_since, NOW, [])


CHANGES = [_insert, _finish, _release, _hand_over, _lease, _advance, _mark, _rebuild]


@pytest.mark.parametrize("change", CHANGES)
async def test_every_change_raises_the_sequence(
    store: CreateStore, change: Callable[[CreateStore], Awaitable[None]]
) -> None:
    """A change that a restored store lacks is noticed by it."""
    await begun(store, record("there", pages=1))
    before = await store.state()
    await change(store)
    after = await store.state()
    assert after.generation == before.generation
    assert after.seq > before.seq


async def test_a_store_in_use_is_not_made_anew(store: CreateStore) -> None:
    """Another replica has found it empty, and comes late: those that use it must not take that for a loss."""
    await begun(store, record("there", pages=1))
    before = await store.state()
    assert await store.begin_rebuild(MAKING) == before
    assert await store.state() == before
    assert len(await store.find([record("there").key])) == 1


async def test_a_look_that_finds_nothing_leaves_the_sequence(store: CreateStore) -> None:
    """Replicas look every second or so; a copy of the store that lacks these looks lacks nothing."""
    await begun(store, record("there", pages=1))
    before = await store.state()
    assert await store.due(NOW - 10**6, NOW, 9) == []
    await store.find([record("there").key])
    await store.open_at("p")
    assert await store.state() == before


async def test_the_mark_moves_forward_only(store: CreateStore) -> None:
    await store.mark(NOW)
    await store.mark(NOW - 100)
    assert (await store.state()).cloud_mark == NOW


LEASE = Lease("x", "a", DAY, 1, NOW)
STEPS: dict[str, Callable[[CreateStore], Awaitable[object]]] = {
    "begin": lambda store: store.begin(record(), NOW, BUDGET, dedupe_since=None),
    "change": lambda store: store.change([Change(None, record(), NOW)]),
    "find": lambda store: store.find([record().key]),
    "due": lambda store: store.due(NOW, NOW, 1),
    "postpone": lambda store: store.postpone([record().key], NOW),
    "open_at": lambda store: store.open_at("p"),
    "bound": lambda store: store.bound(BUCKET, ["job"]),
    "accepted": lambda store: store.accepted(BUCKET, NOW, NOW, 1),
    "count": lambda store: store.count("a", TODAY),
    "advance": lambda store: store.advance("", DAY),
    "lease": lambda store: store.lease(LEASE, BUDGET),
    "leases": lambda store: store.leases(),
    "hand_over": lambda store: store.hand_over(LEASE, [(record(), NOW)]),
    "mark": lambda store: store.mark(NOW),
    "end_rebuild": lambda store: store.end_rebuild(0.0, NOW, [("a", DAY, 5)]),
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_store_that_was_emptied_is_lost_to_every_step(stores: Stores, store: CreateStore, step: str) -> None:
    """Nothing is written into it until a rebuild has begun, also after its state was read."""
    await begun(store, record("one"))
    await stores.empty()
    with pytest.raises(StoreLost):
        await STEPS[step](store)
    assert (await store.state())[:2] == ("", 0)
    with pytest.raises(StoreLost):
        await STEPS[step](store)
    await store.begin_rebuild(NOW)
    assert await store.find([record().key, record("one").key]) == [None, None]
    assert await store.count("a", TODAY) == PageCount()
    assert await store.leases() == []
    await STEPS[step](store)


@pytest.mark.parametrize("step", STEPS)
async def test_a_store_of_another_generation_is_lost_to_every_step(
    stores: Stores, store: CreateStore, step: str
) -> None:
    """Another replica has begun the rebuild of an emptied store: this one has to know of it first."""
    other = await opened(stores)
    await stores.empty()
    await other.begin_rebuild(NOW)
    with pytest.raises(StoreLost):
        await STEPS[step](store)
    assert await other.find([record().key]) == [None]
    assert (await store.state()).lost_since == NOW
    await STEPS[step](store)


@pytest.mark.parametrize("step", STEPS)
async def test_a_store_that_went_back_is_lost_to_every_step(stores: Stores, store: CreateStore, step: str) -> None:
    """A backup was put in its place, or a failover has lost changes: it lacks one that this process has seen."""
    await stores.save()
    await begun(store, record("one"))
    await stores.restore()
    with pytest.raises(StoreLost):
        await STEPS[step](store)
    assert await (await opened(stores)).find([record().key, record("one").key]) == [None, None]
    state = await store.begin_rebuild(NOW)
    assert state.lost_since == NOW
    await STEPS[step](store)


async def test_changes_of_other_replicas_are_no_loss(stores: Stores, store: CreateStore) -> None:
    """A replica that has not asked for the state yet expects nothing."""
    other = await stores.connect()
    there = await begun(store, record("one"))
    assert await other.find([there.key]) == [there]
    await other.state()
    two = await begun(other, record("two"))
    assert await store.find([two.key]) == [two]


async def test_a_rebuild_is_begun_once_and_ended_once(stores: Stores, store: CreateStore) -> None:
    """Two replicas notice the loss: the first one's time is kept, and the last one's end changes nothing."""
    other = await opened(stores)
    await stores.empty()
    first, second = await store.begin_rebuild(NOW), await other.begin_rebuild(NOW + 7)
    assert (first.lost_since, second.lost_since) == (NOW, NOW)
    assert first.generation == second.generation != ""
    assert await store.end_rebuild(NOW + 7, NOW + 90, [("a", DAY, 1)]) is False
    assert await store.end_rebuild(NOW, NOW + 100, [("a", DAY, 40), ("a", "2026-11", 60)]) is True
    assert await other.end_rebuild(NOW, NOW + 200, [("a", DAY, 90)]) is False
    state = await other.state()
    assert (state.lost_since, state.cloud_mark) == (0, NOW + 100)
    assert await other.count("a", TODAY) == PageCount(Pages(40, 0), Pages(60, 0))


async def test_an_emptied_store_gets_a_generation_that_it_never_had(stores: Stores, store: CreateStore) -> None:
    seen = {(await store.state()).generation}
    for number in (1, 2):
        await stores.empty()
        state = await store.begin_rebuild(NOW + number)
        assert await store.end_rebuild(state.lost_since, NOW, [])
        seen.add(state.generation)
    assert len(seen) == 3


async def test_a_rebuild_of_a_store_that_is_whole_changes_no_generation(store: CreateStore) -> None:
    """Records and pages stay. It is noted again when it has ended."""
    there = await begun(store, record())
    before = await store.state()
    assert (await store.begin_rebuild(NOW)).generation == before.generation
    assert await store.find([there.key]) == [there]
    assert await store.end_rebuild(NOW, NOW, []) is True
    assert (await store.begin_rebuild(NOW + 50)).lost_since == NOW + 50


async def test_rebuilt_counts_are_raised_and_never_lowered(store: CreateStore) -> None:
    """Used pages only: what records hold is counted with them."""
    await _charged(store, await begun(store, record("one")), 20)
    await begun(store, record("two", pages=5))
    await store.begin_rebuild(NOW)
    used = [("a", DAY, 10), ("a", "2026-11", 33), ("b", DAY, 4)]
    assert await store.end_rebuild(NOW, NOW, used) is True
    assert await store.count("a", TODAY) == PageCount(Pages(20, 5), Pages(33, 5))
    assert await store.count("b", TODAY) == PageCount(Pages(4, 0), Pages())


async def test_an_end_without_a_rebuild_changes_nothing(store: CreateStore) -> None:
    assert await store.end_rebuild(0.0, NOW, [("a", DAY, 1)]) is False
    assert await store.end_rebuild(NOW, NOW, [("a", DAY, 1)]) is False
    assert (await store.state()).cloud_mark == 0
    assert await store.count("a", TODAY) == PageCount()


# records that cannot be read

READERS: dict[str, Callable[[CreateStore, Record], Awaitable[object]]] = {
    "begin": lambda store, there: store.begin(there, NOW, BUDGET, dedupe_since=None),
    "dedupe": lambda store, _: store.begin(record("new", render="content"), NOW, BUDGET, dedupe_since=0.0),
    "find": lambda store, there: store.find([record("other").key, there.key]),
    "charge": lambda store, there: store.change([Change(there, there.charged(1), NOW)]),
    "delete": lambda store, there: store.change([Change(there, None)]),
    "insert": lambda store, there: store.change([Change(None, there, NOW)]),
    "hand_over": lambda store, there: store.hand_over(LEASE, [(record("new"), NOW), (there, NOW)]),
    "due": lambda store, _: store.due(NOW, NOW + 60, 9),
}


@pytest.mark.parametrize("reader", READERS)
async def test_a_record_that_was_tampered_with_is_named_and_left_as_it_is(
    stores: Stores, store: CreateStore, reader: str
) -> None:
    """Every step that meets it fails, and again; pages are not counted anew."""
    there = await finished(store, record("there", render="content"))
    await stores.tamper(there.key)
    before = await store.count("a", TODAY)
    for _ in range(2 if reader != "due" else 1):
        with pytest.raises(StoreError, match=there.key) as raised:
            await READERS[reader](store, there)
        assert not isinstance(raised.value, StoreLost)
    assert await store.count("a", TODAY) == before
    assert await store.find([record("new").key]) == [None]
    assert await store.bound(BUCKET, ["job"]) == {"job"}


async def test_one_unreadable_record_keeps_no_other_change_from_a_later_try(stores: Stores, store: CreateStore) -> None:
    """A batch with it fails as a whole; without it, it is made."""
    good, bad = await finished(store, record("good"), "job-1"), await finished(store, record("bad"), "job-2")
    await stores.tamper(bad.key)
    charges = [Change(good, good.charged(1), NOW), Change(bad, bad.charged(2), NOW)]
    with pytest.raises(StoreError, match=bad.key):
        await store.change(charges)
    assert await store.find([good.key]) == [good]
    assert await store.change(charges[:1]) == [True]


async def test_one_unreadable_record_does_not_keep_the_others_from_being_due(
    stores: Stores, store: CreateStore
) -> None:
    """It is reported once in its turn, and again when it is due again; the others are claimed by the next call."""
    bad = await finished(store, record("bad"), "job-1")
    good = await finished(store, record("good"), "job-2")
    await store.postpone([bad.key], NOW - 100)
    await stores.tamper(bad.key)
    with pytest.raises(StoreError, match=bad.key):
        await store.due(NOW, NOW + 60, 9)
    assert await store.due(NOW, NOW + 60, 9) == [good]
    with pytest.raises(StoreError, match=bad.key):
        await store.due(NOW + 60, NOW + 120, 9)


async def test_a_record_under_another_key_is_not_taken_for_its_own(stores: Stores, store: CreateStore) -> None:
    """Its MAC is valid, so that who can write into the store cannot answer one caller with another's job."""
    one, two = await begun(store, record("one")), await begun(store, record("two", caller="b"))
    await stores.swap(one.key, two.key)
    for key in (one.key, two.key):
        with pytest.raises(StoreError, match=key):
            await store.find([key])


# several replicas


async def test_of_two_replicas_that_begin_one_id_one_inserts_it(stores: Stores, store: CreateStore) -> None:
    other = await opened(stores)
    attempts = [record(now=NOW + number) for number in range(10)]
    results: list[Begun] = await asyncio.gather(
        *(
            each.begin(attempt, NOW, BUDGET, dedupe_since=None)
            for each, attempt in zip([store, other] * 5, attempts, strict=True)
        )
    )
    assert sorted(each.outcome for each in results) == ["known"] * 9 + ["new"]
    assert len({each.record.nonce for each in results if each.record}) == 1
    assert await day_pages(store) == Pages(0, 30)


async def test_replicas_that_begin_at_once_never_exceed_the_budget(stores: Stores, store: CreateStore) -> None:
    other = await opened(stores)
    results = await asyncio.gather(
        *(
            each.begin(record(str(number), pages=15), NOW, BUDGET, dedupe_since=None)
            for number, each in enumerate([store, other] * 10)
        )
    )
    assert [each.outcome for each in results].count("new") == 6
    assert await day_pages(other) == Pages(0, 90)


async def test_of_two_replicas_that_change_one_attempt_one_does(stores: Stores, store: CreateStore) -> None:
    """One found the job, one concluded that there is none, one reopens it."""
    other = await opened(stores)
    for round_ in range(5):
        there = await begun(store, record(str(round_), pages=10))
        changes = [Change(there, accepted(there), NOW), Change(there, None), Change(there, there.opened(NOW, TIMING))]
        made = await asyncio.gather(*(each.change([change]) for each in (store, other) for change in changes))
        assert sum(each == [True] for each in made) == 1
        (left,) = await store.find([there.key])
        await store.change([Change(left, None)])
        assert await day_pages(other) == Pages()


async def test_two_replicas_that_lease_at_once_never_exceed_the_budget(stores: Stores, store: CreateStore) -> None:
    other = await opened(stores)
    leased = await asyncio.gather(
        store.lease(Lease("x", "a", DAY, 70, NOW), BUDGET), other.lease(Lease("y", "a", DAY, 70, NOW), BUDGET)
    )
    assert sorted(each.pages for each in leased) == [30, 70]


async def test_two_replicas_that_notice_a_loss_at_once_rebuild_together(stores: Stores, store: CreateStore) -> None:
    other = await opened(stores)
    await stores.empty()
    first, second = await asyncio.gather(store.begin_rebuild(NOW), other.begin_rebuild(NOW + 1))
    assert first[:1] + first[3:5] == second[:1] + second[3:5]
    ended = await asyncio.gather(*(each.end_rebuild(first.lost_since, NOW, [("a", DAY, 5)]) for each in (store, other)))
    assert sorted(ended) == [False, True]
    assert await day_pages(store) == Pages(5, 0)


async def test_the_state_of_an_emptied_store_has_nothing_in_it(stores: Stores, store: CreateStore) -> None:
    """Not a loss either: whether it is one, others have to say."""
    await begun(store, record())
    await stores.empty()
    assert await store.state() == StoreState("", 0, 0.0, 0.0, "")


async def test_pages_without_a_day_are_counted_nowhere(store: CreateStore) -> None:
    """Of a caller without a budget, or one that nobody knows any more."""
    await begun(store, record(day=""))
    assert await store.count("a", Periods("", "")) == PageCount()
    assert await store.count("a", TODAY) == PageCount()


async def test_a_record_that_stands_twice_in_a_hand_over_counts_once(store: CreateStore) -> None:
    lease = await store.lease(Lease("x", "a", DAY, 50, NOW), BUDGET)
    await store.hand_over(lease, [(record(), NOW), (record(), NOW)])
    assert await day_pages(store) == Pages(0, 50)
    assert [each.pages for each in await store.leases()] == [20]


async def test_a_rebuild_begins_with_the_state_of_the_store_as_it_is(store: CreateStore) -> None:
    await begun(store, record())
    await store.mark(NOW - 5)
    state = await store.begin_rebuild(NOW)
    assert state._replace(seq=0) == (await store.state())._replace(seq=0)
    assert (state.day, state.cloud_mark, state.lost_since) == (DAY, NOW - 5, NOW)


@pytest.mark.parametrize("mark", [NOW - 9, NOW + 9])
async def test_the_end_of_a_rebuild_takes_no_mark_back(store: CreateStore, mark: float) -> None:
    await store.mark(NOW)
    await store.begin_rebuild(NOW)
    assert await store.end_rebuild(NOW, mark, [])
    assert (await store.state()).cloud_mark == max(NOW, mark)


# secrets

OTHER = bytes(range(1, 33))
ROTATED = CreateKeys(KEYS.namespace, [OTHER, bytes(range(32))])


async def test_the_store_knows_with_which_secrets_something_was_written(stores: Stores, store: CreateStore) -> None:
    """The first change of a process adds its current secret, a mark the cloud's time up to which it is in use."""
    await begun(store, record("first"))
    assert (await store.state()).secrets == (SecretUse(KEYS.id, 0.0),)
    await store.mark(NOW)
    rotated = await opened(stores, ROTATED)
    await rotated.find(["none"])
    assert (await store.state()).secrets == (SecretUse(KEYS.id, NOW),)
    await begun(rotated, record())
    await rotated.mark(NOW + 60)
    expected = {SecretUse(KEYS.id, NOW), SecretUse(ROTATED.id, NOW + 60)}
    assert set((await store.state()).secrets) == expected


async def test_nothing_is_read_or_written_once_a_secret_that_is_not_known_has_come_into_use(
    stores: Stores, store: CreateStore
) -> None:
    """A repeated id would not find the record that was made with it."""
    other = await opened(stores, CreateKeys(KEYS.namespace, [OTHER]))
    wanted = record("other")
    await begun(other, wanted)
    before = await other.state()
    for work in (
        lambda: store.begin(record(), NOW, BUDGET, dedupe_since=None),
        lambda: store.find(["none"]),
        lambda: store.mark(NOW),
    ):
        with pytest.raises(UnknownSecret):
            await work()
    assert await other.state() == before
    await store.state()
    # The state was looked at: whether it matters is for others to say.
    assert await store.find(["none"]) == [None]


async def test_a_secret_that_is_known_comes_into_use_unnoticed(stores: Stores) -> None:
    """Each replica has it as its second one before the first replica uses it."""
    ready = await opened(stores, CreateKeys(KEYS.namespace, [bytes(range(32)), OTHER]))
    rotated = await opened(stores, ROTATED)
    wanted = await begun(rotated, record())
    assert await ready.find([wanted.key]) == [wanted]
    await begun(ready, record("another"))


# survey


async def test_a_survey_sums_all_records_and_names_those_that_cannot_be_read(
    stores: Stores, store: CreateStore
) -> None:
    """However many there are."""
    opened, done = await begun(store, record("open")), await finished(store, record("done", pages=20))
    assert await store.change([Change(done, done.charged(7), NOW)]) == [True]
    await begun(store, record("other day", day="", caller="b"))
    many = [Change(None, record(str(number), pages=1, caller="many"), NOW) for number in range(1200)]
    for at in range(0, len(many), 100):
        assert all(await store.change(many[at : at + 100]))
    found = await store.survey()
    assert found.counted == {("a", DAY): Held(30, 7), ("many", DAY): Held(1200, 0)}
    assert found.unreadable == {}
    await stores.tamper(opened.key)
    found = await store.survey()
    assert found.counted["a", DAY] == Held(0, 7)
    assert list(found.unreadable) == [opened.key]
