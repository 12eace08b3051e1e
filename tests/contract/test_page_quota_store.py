"""What every book of pages promises, whatever keeps it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from docpreview_gateway.creates.pages import PageCount, Pages, Periods, Reservation
from docpreview_gateway.creates.ports import PageQuotaStoreError
from docpreview_gateway.creates.redis_pages import PREFIX, RedisPages
from docpreview_gateway.creates.sqlite_pages import KEEP_SECONDS, SqlitePages
from docpreview_gateway.model.callers import PageBudget
from docpreview_gateway.storage.redis_connections import redis_commands
from tests.fakes.pages import FakePages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.creates.ports import PageQuotaStore
    from tests.redis_server import RedisServer

NOW = 1_000_000.0
TODAY, TOMORROW = Periods("2026-11-23", "2026-11"), Periods("2026-11-24", "2026-11")
BUDGET = PageBudget(per_day=100, per_month=150)


def wanted(name: str, *, pages: int = 30, periods: Periods = TODAY) -> Reservation:
    return Reservation(name, "a", pages, *periods, "docs-1250000000", NOW)


@pytest.fixture(params=["fake", "sqlite", "redis"])
async def book(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PageQuotaStore]:
    if request.param == "fake":
        yield FakePages()
        return
    if request.param == "redis":
        async with redis_commands(request.getfixturevalue("redis_server").url) as send:
            yield RedisPages(send)
        return
    async with SqlitePages(tmp_path / "state" / "pages.db") as book:
        yield book


async def test_a_reservation_counts_in_its_day_and_its_month(book: PageQuotaStore) -> None:
    """It counts in its day and its month."""
    booking = await book.reserve(wanted("r"), BUDGET, NOW)
    assert booking == ("new", PageCount(Pages(0, 30), Pages(0, 30)))
    assert await book.count("a", TODAY) == booking.pages
    assert await book.count("b", TODAY) == PageCount()


async def test_same_reservation_again(book: PageQuotaStore) -> None:
    """It is charged once, open or charged, also when there is no room any more."""
    await book.reserve(wanted("r", pages=100), BUDGET, NOW)
    assert (await book.reserve(wanted("r", pages=100), BUDGET, NOW)).outcome == "known"
    await book.charge("r", 90)
    assert await book.reserve(wanted("r", pages=100), BUDGET, NOW) == ("known", PageCount(Pages(90, 0), Pages(90, 0)))


async def test_budget_without_room(book: PageQuotaStore) -> None:
    """The reservation is refused with the budget's name, and costs nothing; a smaller one fits."""
    await book.reserve(wanted("one", pages=80), BUDGET, NOW)
    assert (await book.reserve(wanted("two", pages=21), BUDGET, NOW)).outcome == "day"
    assert (await book.reserve(wanted("three", pages=20), BUDGET, NOW)).outcome == "new"
    assert (await book.reserve(wanted("four", pages=51, periods=TOMORROW), BUDGET, NOW)).outcome == "month"
    assert (await book.reserve(wanted("five", pages=50, periods=TOMORROW), BUDGET, NOW)).outcome == "new"
    assert await book.count("a", TOMORROW) == PageCount(Pages(0, 50), Pages(0, 150))


async def test_a_caller_without_a_page_quota_always_has_room_and_is_counted(book: PageQuotaStore) -> None:
    """There is always room, and the pages are counted."""
    for name in ("one", "two"):
        assert (await book.reserve(wanted(name, pages=1000), None, NOW)).outcome == "new"
    assert (await book.reserve(wanted("three", pages=1000), PageBudget(), NOW)).outcome == "new"
    assert (await book.count("a", TODAY)).day == Pages(0, 3000)


async def test_reconciling_replaces_reserved_pages_by_rendered_ones_once(book: PageQuotaStore) -> None:
    """What was made takes the place of what was reserved, once."""
    await book.reserve(wanted("r"), BUDGET, NOW)
    for _ in range(3):
        await book.charge("r", 7)
    await book.release("r")
    assert await book.count("a", TODAY) == PageCount(Pages(7, 0), Pages(7, 0))


async def test_pages_given_back(book: PageQuotaStore) -> None:
    """Nothing is used, and the id is as if it never was."""
    await book.reserve(wanted("r"), BUDGET, NOW)
    for _ in range(2):
        await book.release("r")
    assert await book.count("a", TODAY) == PageCount()
    assert not await book.bind("r", "d1", NOW)
    assert (await book.reserve(wanted("r"), BUDGET, NOW)).outcome == "new"


async def test_a_due_reservation_is_claimed_with_its_job_until_it_is_reconciled(book: PageQuotaStore) -> None:
    """Each is handed out to one who asks, with its job, until it is due again or settled."""
    early, late = wanted("early"), wanted("late")
    await book.reserve(early, BUDGET, NOW + 10)
    await book.reserve(late, BUDGET, NOW + 100)
    assert await book.bind("early", "d1", NOW + 20)
    assert await book.claim(NOW + 19, NOW + 80) == []
    assert await book.claim(NOW + 20, NOW + 80) == [replace(early, job_id="d1")]
    assert await book.claim(NOW + 79, NOW + 200) == []
    assert await book.claim(NOW + 80, NOW + 200) == [replace(early, job_id="d1")]
    await book.charge("early", 1)
    assert await book.bind("early", "d1", NOW)
    assert await book.claim(NOW + 500, NOW + 600) == [late]


async def test_concurrent_reservations_never_exceed_the_page_quota(book: PageQuotaStore) -> None:
    """Never more than the budget is set aside, however many ask at once."""
    bookings = await asyncio.gather(*(book.reserve(wanted(f"r{n}", pages=3), BUDGET, NOW) for n in range(60)))
    assert sum(booking.outcome == "new" for booking in bookings) == 33
    assert (await book.count("a", TODAY)).day == Pages(0, 99)


async def test_file_after_a_restart(tmp_path: Path) -> None:
    """Pages and reservations are still there."""
    async with SqlitePages(tmp_path / "pages.db") as book:
        await book.reserve(wanted("r"), BUDGET, NOW)
    async with SqlitePages(tmp_path / "pages.db") as book:
        assert (await book.reserve(wanted("r"), BUDGET, NOW)).outcome == "known"
        assert await book.claim(NOW, NOW + 1) == [wanted("r")]
        await book.charge("r", 5)
    async with SqlitePages(tmp_path / "pages.db") as book:
        assert (await book.count("a", TODAY)).month == Pages(5, 0)


async def test_two_processes_with_one_file(tmp_path: Path) -> None:
    """They keep one budget."""
    async with SqlitePages(tmp_path / "pages.db") as one, SqlitePages(tmp_path / "pages.db") as other:
        books = [one, other]
        bookings = await asyncio.gather(*(books[n % 2].reserve(wanted(f"r{n}"), BUDGET, NOW) for n in range(20)))
        assert sum(booking.outcome == "new" for booking in bookings) == 3


async def test_a_reservation_charged_long_ago_is_forgotten_but_its_pages_stay(tmp_path: Path) -> None:
    """It is forgotten, and its pages stay."""
    async with SqlitePages(tmp_path / "pages.db") as book:
        await book.reserve(wanted("r"), BUDGET, NOW)
        await book.charge("r", 5)
        await book.reserve(replace(wanted("later"), made_at=NOW + KEEP_SECONDS + 1), BUDGET, NOW)
        assert (await book.reserve(wanted("r"), BUDGET, NOW)).outcome == "new"
        assert (await book.count("a", TODAY)).day == Pages(5, 60)


async def test_a_file_that_is_no_page_database_is_refused_with_its_path(tmp_path: Path) -> None:
    """It is refused with its path."""
    path = tmp_path / "pages.db"
    path.write_bytes(b"not a database, but long enough to be one" * 100)
    with pytest.raises(PageQuotaStoreError, match=r"pages\.db"):
        await SqlitePages(path).__aenter__()


async def test_server_that_lost_a_reservation(redis_server: RedisServer) -> None:
    """It is forgotten: neither looks nor settlements stumble over it."""
    async with redis_commands(redis_server.url) as send:
        book = RedisPages(send)
        await book.reserve(wanted("r"), BUDGET, NOW)
        await book.reserve(wanted("s"), BUDGET, NOW)
        await send("DEL", f"{PREFIX}reservation:r")
        await book.charge("r", 5)
        await send("ZADD", f"{PREFIX}open", 0, "r")
        assert await book.claim(NOW, NOW + 1) == [wanted("s")]
        assert (await book.count("a", TODAY)).day.used == 0


@pytest.mark.parametrize(
    "answer", [None, b"yes", [1, b"abc"], [b"maybe", 1, 2, 3, 4], [b"new", 1], [[b"r"]], 1.5, "OK"]
)
async def test_answer_of_another_kind(answer: object) -> None:
    """It is the book's error, for which there is a rule, and neither a yes nor an internal error."""

    async def send(*_command: object) -> object:
        return answer

    book = RedisPages(send)
    for call in (
        book.reserve(wanted("r"), BUDGET, NOW),
        book.bind("r", "d1", NOW),
        book.charge("r", 5),
        book.release("r"),
        book.claim(NOW, NOW + 1),
        book.count("a", TODAY),
    ):
        with pytest.raises(PageQuotaStoreError):
            await call
