"""The contract of `PageQuotaStore`, for every implementation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from docpreview_gateway.creates.pages import RETENTION_SECONDS, PageCount, Pages, Periods, Reservation
from docpreview_gateway.creates.ports import PageQuotaStoreError
from docpreview_gateway.creates.redis_pages import PREFIX, RedisPages
from docpreview_gateway.creates.sqlite_pages import SqlitePages
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
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PageQuotaStore]:
    if request.param == "fake":
        yield FakePages()
        return
    if request.param == "redis":
        async with redis_commands(request.getfixturevalue("redis_server").url) as send:
            yield RedisPages(send)
        return
    async with SqlitePages(tmp_path / "state" / "pages.db") as store:
        yield store


async def test_a_reservation_counts_in_its_day_and_its_month(store: PageQuotaStore) -> None:
    """Counts of other callers do not change."""
    result = await store.reserve(wanted("r"), BUDGET, NOW)
    assert result == ("new", PageCount(Pages(0, 30), Pages(0, 30)))
    assert await store.count("a", TODAY) == result.pages
    assert await store.count("b", TODAY) == PageCount()


async def test_a_repeated_reservation_counts_once(store: PageQuotaStore) -> None:
    """Open or charged, also when the budget is used up."""
    await store.reserve(wanted("r", pages=100), BUDGET, NOW)
    assert (await store.reserve(wanted("r", pages=100), BUDGET, NOW)).outcome == "known"
    await store.charge("r", 90)
    assert await store.reserve(wanted("r", pages=100), BUDGET, NOW) == ("known", PageCount(Pages(90, 0), Pages(90, 0)))


async def test_a_reservation_beyond_the_budget_is_refused(store: PageQuotaStore) -> None:
    """The outcome names the period, nothing is counted, and a smaller reservation is accepted."""
    await store.reserve(wanted("one", pages=80), BUDGET, NOW)
    assert (await store.reserve(wanted("two", pages=21), BUDGET, NOW)).outcome == "day"
    assert (await store.reserve(wanted("three", pages=20), BUDGET, NOW)).outcome == "new"
    assert (await store.reserve(wanted("four", pages=51, periods=TOMORROW), BUDGET, NOW)).outcome == "month"
    assert (await store.reserve(wanted("five", pages=50, periods=TOMORROW), BUDGET, NOW)).outcome == "new"
    assert await store.count("a", TOMORROW) == PageCount(Pages(0, 50), Pages(0, 150))


async def test_reservations_without_a_budget_are_accepted_and_counted(store: PageQuotaStore) -> None:
    """None and a budget without limits."""
    for name in ("one", "two"):
        assert (await store.reserve(wanted(name, pages=1000), None, NOW)).outcome == "new"
    assert (await store.reserve(wanted("three", pages=1000), PageBudget(), NOW)).outcome == "new"
    assert (await store.count("a", TODAY)).day == Pages(0, 3000)


async def test_charging_replaces_reserved_pages_by_used_ones_once(store: PageQuotaStore) -> None:
    """Later charges and releases change nothing."""
    await store.reserve(wanted("r"), BUDGET, NOW)
    for _ in range(3):
        await store.charge("r", 7)
    await store.release("r")
    assert await store.count("a", TODAY) == PageCount(Pages(7, 0), Pages(7, 0))


async def test_a_released_reservation_is_deleted(store: PageQuotaStore) -> None:
    """Nothing is counted, and its id may be reserved again."""
    await store.reserve(wanted("r"), BUDGET, NOW)
    for _ in range(2):
        await store.release("r")
    assert await store.count("a", TODAY) == PageCount()
    assert not await store.bind("r", "d1", NOW)
    assert (await store.reserve(wanted("r"), BUDGET, NOW)).outcome == "new"


async def test_a_due_reservation_is_claimed_with_its_job_until_it_is_charged(store: PageQuotaStore) -> None:
    """A claimed reservation is not returned again until it is due again."""
    early, late = wanted("early"), wanted("late")
    await store.reserve(early, BUDGET, NOW + 10)
    await store.reserve(late, BUDGET, NOW + 100)
    assert await store.bind("early", "d1", NOW + 20)
    assert await store.claim(NOW + 19, NOW + 80) == []
    assert await store.claim(NOW + 20, NOW + 80) == [replace(early, job_id="d1")]
    assert await store.claim(NOW + 79, NOW + 200) == []
    assert await store.claim(NOW + 80, NOW + 200) == [replace(early, job_id="d1")]
    await store.charge("early", 1)
    assert await store.bind("early", "d1", NOW)
    assert await store.claim(NOW + 500, NOW + 600) == [late]


async def test_concurrent_reservations_never_exceed_the_budget(store: PageQuotaStore) -> None:
    """Reserving is atomic."""
    results = await asyncio.gather(*(store.reserve(wanted(f"r{n}", pages=3), BUDGET, NOW) for n in range(60)))
    assert sum(result.outcome == "new" for result in results) == 33
    assert (await store.count("a", TODAY)).day == Pages(0, 99)


async def test_a_reopened_file_has_its_pages_and_reservations(tmp_path: Path) -> None:
    """Commits survive the process."""
    async with SqlitePages(tmp_path / "pages.db") as store:
        await store.reserve(wanted("r"), BUDGET, NOW)
    async with SqlitePages(tmp_path / "pages.db") as store:
        assert (await store.reserve(wanted("r"), BUDGET, NOW)).outcome == "known"
        assert await store.claim(NOW, NOW + 1) == [wanted("r")]
        await store.charge("r", 5)
    async with SqlitePages(tmp_path / "pages.db") as store:
        assert (await store.count("a", TODAY)).month == Pages(5, 0)


async def test_two_processes_with_one_file_share_a_budget(tmp_path: Path) -> None:
    """Reserving is atomic across processes."""
    async with SqlitePages(tmp_path / "pages.db") as one, SqlitePages(tmp_path / "pages.db") as other:
        stores = [one, other]
        results = await asyncio.gather(*(stores[n % 2].reserve(wanted(f"r{n}"), BUDGET, NOW) for n in range(20)))
        assert sum(result.outcome == "new" for result in results) == 3


async def test_old_charged_reservations_are_deleted_and_their_pages_stay_counted(tmp_path: Path) -> None:
    """The next reservation deletes them."""
    async with SqlitePages(tmp_path / "pages.db") as store:
        await store.reserve(wanted("r"), BUDGET, NOW)
        await store.charge("r", 5)
        await store.reserve(replace(wanted("later"), made_at=NOW + RETENTION_SECONDS + 1), BUDGET, NOW)
        assert (await store.reserve(wanted("r"), BUDGET, NOW)).outcome == "new"
        assert (await store.count("a", TODAY)).day == Pages(5, 60)


async def test_a_file_that_is_not_a_page_database_is_rejected(tmp_path: Path) -> None:
    """The error has the path."""
    path = tmp_path / "pages.db"
    path.write_bytes(b"not a database, but long enough to be one" * 100)
    with pytest.raises(PageQuotaStoreError, match=r"pages\.db"):
        await SqlitePages(path).__aenter__()


async def test_a_reservation_that_the_server_lost_is_ignored(redis_server: RedisServer) -> None:
    """Claims and charges do not fail."""
    async with redis_commands(redis_server.url) as send:
        store = RedisPages(send)
        await store.reserve(wanted("r"), BUDGET, NOW)
        await store.reserve(wanted("s"), BUDGET, NOW)
        await send("DEL", f"{PREFIX}reservation:r")
        await store.charge("r", 5)
        await send("ZADD", f"{PREFIX}open", 0, "r")
        assert await store.claim(NOW, NOW + 1) == [wanted("s")]
        assert (await store.count("a", TODAY)).day.used == 0


@pytest.mark.parametrize(
    "answer", [None, b"yes", [1, b"abc"], [b"maybe", 1, 2, 3, 4], [b"new", 1], [[b"r"]], 1.5, "OK"]
)
async def test_a_reply_of_an_unexpected_type_is_a_page_quota_store_error(answer: object) -> None:
    """It is neither a success nor an internal error."""

    async def send(*_command: object) -> object:
        return answer

    store = RedisPages(send)
    for call in (
        store.reserve(wanted("r"), BUDGET, NOW),
        store.bind("r", "d1", NOW),
        store.charge("r", 5),
        store.release("r"),
        store.claim(NOW, NOW + 1),
        store.count("a", TODAY),
    ):
        with pytest.raises(PageQuotaStoreError):
            await call
