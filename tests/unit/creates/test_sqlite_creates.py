"""The file of `SqliteCreates`: its modes, crashes, damage, full disks, and a file that is taken away."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.pages import PageCount, Pages, Periods
from docpreview_gateway.creates.ports import Change, Lease, StoreError, StoreLost
from docpreview_gateway.creates.records import Record, Timing, packed
from docpreview_gateway.creates.sqlite_creates import SqliteCreates
from docpreview_gateway.model.callers import PageBudget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

NOW = 1_796_000_000.0
DAY = "2026-11-30"
TODAY = Periods(DAY, "2026-11")
BUDGET = PageBudget(per_day=100, per_month=150)
OLD, NEW = b"o" * 32, b"n" * 32
KEYS = CreateKeys("test", [NEW])


def put(path: Path, content: bytes, mode: int = 0o600) -> None:
    """A file that is there already, in a folder that all can read."""
    path.parent.mkdir(0o755)
    path.write_bytes(content)
    path.chmod(mode)


def content(path: Path) -> bytes:
    return path.read_bytes()


def record(name: str = "r", *, pages: int = 10, request: bytes = b"request") -> Record:
    blank = Record(name, bytes(16), KEYS.id, "a", "docs-1250000000", request, "place", "content", 3600.0, DAY, pages)
    return blank.opened(NOW, Timing())


def accepted(opened: Record) -> Record:
    return opened.accepted(PreviewJob(job_id=f"job-{opened.key}"), NOW)


async def begun(store: SqliteCreates, wanted: Record) -> Record:
    assert (await store.begin(wanted, NOW, BUDGET, dedupe_since=None)).outcome == "new"
    return wanted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "creates.db"


@pytest.fixture
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def rows(path: Path, statement: str) -> list[Any]:
    """What another process does to the file, or finds in it."""
    with closing(sqlite3.connect(path)) as other, other:
        return other.execute(statement).fetchall()


# the file


@pytest.mark.usefixtures("_open_umask")
async def test_the_file_and_those_beside_it_are_for_this_user_alone(path: Path) -> None:
    """As is the folder, when it is made here. They hold callers' requests."""
    async with SqliteCreates(path, KEYS) as store:
        await begun(store, record())
        modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert modes == {"creates.db": 0o600, "creates.db-shm": 0o600, "creates.db-wal": 0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("_open_umask")
async def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    """A folder that was there keeps its mode: it may hold other things."""
    put(path, b"", 0o666)
    async with SqliteCreates(path, KEYS) as store:
        await begun(store, record())
        assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o755


async def test_records_pages_and_leases_survive_a_restart(path: Path) -> None:
    """The store is the same one: its generation stays."""
    async with SqliteCreates(path, KEYS) as store:
        there = await begun(store, record())
        lease = await store.lease(Lease("x", "a", DAY, 5, NOW), BUDGET)
        state = await store.state()
    async with SqliteCreates(path, KEYS) as store:
        assert await store.state() == state
        assert await store.find([there.key]) == [there]
        assert await store.leases() == [lease]
        assert await store.count("a", TODAY) == PageCount(Pages(0, 15), Pages(0, 15))


@pytest.mark.parametrize("number", range(40))
async def test_workers_that_start_at_once_make_one_store(tmp_path: Path, number: int) -> None:
    """Of a supervisor, all of them open the file that is not there yet. One time of fifteen two met in SQLite."""
    stores = [SqliteCreates(tmp_path / f"{number}.db", KEYS) for _ in range(8)]
    await asyncio.gather(*(store.__aenter__() for store in stores))
    states = await asyncio.gather(*(store.state() for store in stores))
    assert len({state.generation for state in states}) == 1
    for store in stores:
        await store.__aexit__(None, None, None)


async def test_two_files_are_two_stores(path: Path, tmp_path: Path) -> None:
    async with SqliteCreates(path, KEYS) as one, SqliteCreates(tmp_path / "other.db", KEYS) as other:
        assert (await one.state()).generation != (await other.state()).generation


async def test_every_commit_waits_for_the_disk(path: Path) -> None:
    """A create that is sent must not be forgotten by a power failure."""
    async with SqliteCreates(path, KEYS) as store:
        (setting,) = await store._file.do(lambda connection: connection.execute("PRAGMA synchronous").fetchone())
    assert setting == 2


# what cannot be opened or written


async def test_a_store_that_is_not_open_is_an_error(path: Path) -> None:
    """Before it is opened, and after it was closed."""
    store = SqliteCreates(path, KEYS)
    for _ in range(2):
        with pytest.raises(StoreError):
            await store.find(["key"])
        with pytest.raises(StoreError):
            await store.state()
        async with SqliteCreates(path, KEYS) as other:
            store = other
    assert rows(path, "SELECT * FROM creates") == []


@pytest.mark.parametrize("other", [b"not a database" * 100, b"SQLite format 3\0" + bytes(84) + b"\xff" * 4000])
async def test_a_file_that_is_no_database_is_an_error_and_stays_as_it_is(path: Path, other: bytes) -> None:
    put(path, other)
    with pytest.raises(StoreError, match=r"creates\.db"):
        await SqliteCreates(path, KEYS).__aenter__()
    assert content(path) == other


async def test_a_file_of_a_newer_version_is_an_error(path: Path) -> None:
    async with SqliteCreates(path, KEYS):
        pass
    rows(path, "PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer"):
        await SqliteCreates(path, KEYS).__aenter__()


async def test_a_path_that_cannot_be_a_file_is_an_error(tmp_path: Path) -> None:
    """A folder in the place of the file, and a file in the place of the folder."""
    put(tmp_path / "folder" / "file", b"")
    for path in (tmp_path, tmp_path / "folder" / "file" / "creates.db"):
        with pytest.raises(StoreError, match=str(path)):
            await SqliteCreates(path, KEYS).__aenter__()


async def test_a_file_that_another_process_has_locked_is_an_error(path: Path) -> None:
    """Nothing is changed, and it works again when the lock is gone."""
    async with SqliteCreates(path, KEYS) as store:
        await store.state()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await store.begin(record(), NOW, BUDGET, dedupe_since=None)
        await begun(store, record())


async def test_a_full_disk_is_an_error_that_changes_nothing(path: Path) -> None:
    """Neither records nor pages nor the sequence; what fits is written, and with room everything again."""
    async with SqliteCreates(path, KEYS) as store:
        await store.state()
        small = await begun(store, record("small"))
        before = await store.state()
        await store._file.do(lambda connection: connection.execute(f"PRAGMA max_page_count = {_pages(connection)}"))
        large = record("large", request=os.urandom(40_000))
        for _ in range(2):
            with pytest.raises(StoreError, match="full"):
                await store.begin(large, NOW, BUDGET, dedupe_since=None)
        with pytest.raises(StoreError, match="full"):
            await store.change([Change(small, None), Change(None, large)])
        assert await store.find([small.key, large.key]) == [small, None]
        assert await store.count("a", TODAY) == PageCount(Pages(0, 10), Pages(0, 10))
        assert await store.change([Change(small, accepted(small), NOW)]) == [True]
        assert (await store.state()).seq == before.seq + 1
        await store._file.do(lambda connection: connection.execute("PRAGMA max_page_count = 100000"))
        await begun(store, large)


def _pages(connection: sqlite3.Connection) -> int:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    assert isinstance(pages, int)
    return pages


# a file that is taken away


async def test_a_deleted_file_is_a_lost_store(path: Path) -> None:
    """Writes into a file without a name would be lost: nothing is written, and the next state is of a new store."""
    async with SqliteCreates(path, KEYS) as store:
        before = await store.state()
        await begun(store, record())
        for each in list(path.parent.iterdir()):
            each.unlink()
        with pytest.raises(StoreLost, match="deleted or replaced"):
            await store.begin(record("other"), NOW, BUDGET, dedupe_since=None)
        after = await store.state()
        assert after.generation not in {"", before.generation}
        assert await store.find(["r", "other"]) == [None, None]
        await begun(store, record("other"))
    assert rows(path, "SELECT key FROM creates") == [("other",)]


async def test_a_rebuild_begins_in_the_file_that_took_the_other_s_place(path: Path, tmp_path: Path) -> None:
    """A backup of some time ago: the same generation, and a sequence that went back."""
    backup = tmp_path / "backup.db"
    async with SqliteCreates(path, KEYS) as store:
        before = await store.state()
        old = await begun(store, record("old"))
        rows(path, f"VACUUM INTO '{backup}'")
        await begun(store, record("young"))
        for each in list(path.parent.iterdir()):
            each.unlink()
        shutil.copy(backup, path)
        with pytest.raises(StoreLost):
            await store.find(["old"])
        state = await store.begin_rebuild(NOW)
        assert (state.generation, state.lost_since) == (before.generation, NOW)
        assert await store.find(["old", "young"]) == [old, None]
        assert await store.end_rebuild(NOW, NOW, []) is True
    assert rows(path, "SELECT key FROM creates") == [("old",)]


async def test_a_store_whose_folder_is_gone_is_an_error_until_it_can_be_made(path: Path) -> None:
    async with SqliteCreates(path, KEYS) as store:
        before = await store.state()
        shutil.rmtree(path.parent)
        path.parent.touch()
        with pytest.raises(StoreLost):
            await store.find(["r"])
        for _ in range(2):
            with pytest.raises(StoreError):
                await store.state()
        path.parent.unlink()
        assert (await store.state()).generation != before.generation
        await begun(store, record())


# damage


@pytest.mark.parametrize(
    "damage",
    [
        "packed = CAST('text' AS TEXT)",
        "packed = x''",
        "packed = 5",
        "packed = substr(packed, 1, length(packed) - 1)",
        "held = 0",
        "used = 7",
        "day = '2026-11-29'",
        "caller = 'b'",
        "state = 'accepted'",
        "nonce = ''",
        "render = 'other'",
        "job_id = 'job'",
        "first_start = 0",
        "key = 'moved'",
    ],
)
async def test_a_damaged_row_is_named_and_never_written_over(path: Path, damage: str) -> None:
    """Its columns are not covered by the MAC; they have to agree with what is."""
    async with SqliteCreates(path, KEYS) as store:
        there = await begun(store, record())
        rows(path, f"UPDATE creates SET {damage}")  # noqa: S608 - our own words
        key = "moved" if "moved" in damage else there.key
        before = rows(path, "SELECT * FROM creates")
        stored = replace(there, key=key)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.find([key]),
            lambda: store.begin(stored, NOW, None, dedupe_since=None),
            lambda: store.change([Change(stored, None)]),
            lambda: store.change([Change(stored, accepted(stored))]),
            lambda: store.change([Change(None, stored)]),
            lambda: store.hand_over(Lease("x", "a", DAY, 5, NOW), [(stored, NOW)]),
        ]
        for call in calls:
            with pytest.raises(StoreError, match=f"record {key}: "):
                await call()
        assert rows(path, "SELECT * FROM creates") == before


async def test_records_of_a_secret_that_is_not_configured_are_named(path: Path) -> None:
    """With it they are read, and changes pack them with the current one."""
    old = CreateKeys("test", [OLD])
    async with SqliteCreates(path, old) as store:
        there = await begun(store, record())
    async with SqliteCreates(path, KEYS) as store:
        with pytest.raises(StoreError, match="record r: it was made with a secret that is not configured"):
            await store.find([there.key])
    async with SqliteCreates(path, CreateKeys("test", [NEW, OLD])) as store:
        assert await store.change([Change(there, accepted(there), NOW)]) == [True]
    assert rows(path, "SELECT packed FROM creates") == [(packed(accepted(there), KEYS),)]


# crashes


class Crashes:
    """Copies the files before each statement, as a process that is killed there would leave them."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder
        self.copies: list[Path] = []

    def __call__(self, statement: str) -> None:
        del statement
        target = self._folder / str(len(self.copies))
        shutil.copytree(self._path.parent, target)
        (target / "creates.db-shm").unlink(missing_ok=True)  # made anew from the log
        self.copies.append(target / self._path.name)


STEPS: dict[str, Callable[[SqliteCreates, Record], Awaitable[object]]] = {
    "begin": lambda store, _: store.begin(record("new"), NOW, BUDGET, dedupe_since=None),
    "finish": lambda store, there: store.change([Change(there, accepted(there), NOW)]),
    "release": lambda store, there: store.change([Change(there, None)]),
    "charge": lambda store, there: store.change(
        [Change(there, accepted(there), NOW), Change(accepted(there), accepted(there).charged(3), NOW)]
    ),
    "hand_over": lambda store, _: store.hand_over(Lease("x", "a", DAY, 20, NOW), [(record("new"), NOW)]),
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_between_any_two_statements_leaves_all_or_nothing(path: Path, tmp_path: Path, step: str) -> None:
    """Records, counters, leases and the sequence agree; the state is that before the step or that after it."""
    crashes = Crashes(path, tmp_path)
    async with SqliteCreates(path, KEYS) as store:
        there = await begun(store, record("there"))
        await store.lease(Lease("x", "a", DAY, 20, NOW), BUDGET)
        before = await _everything(path)
        await store._file.do(lambda connection: connection.set_trace_callback(crashes))
        await STEPS[step](store, there)
        await store._file.do(lambda connection: connection.set_trace_callback(None))
        after = await _everything(path)
    assert len(crashes.copies) > 5
    found = [await _everything(copy) for copy in crashes.copies]
    assert before != after
    assert found == [before] * len(found)


async def _everything(path: Path) -> list[object]:
    """What the file holds. Held pages are those of records and leases."""
    async with SqliteCreates(path, KEYS) as store:
        state = await store.state()
        count = await store.count("a", TODAY)
        records = await store.find(["there", "new"])
        leases = await store.leases()
    held = sum(each.counts.held for each in records if each) + sum(lease.pages for lease in leases)
    assert count.day.reserved == count.month.reserved == held
    return [state, count, records, leases]


async def test_a_call_that_its_caller_gives_up_is_done_or_not_done(path: Path) -> None:
    """The store works on, and the create is found or can be begun."""
    async with SqliteCreates(path, KEYS) as store:
        await store.state()
        for number in range(20):
            call = asyncio.ensure_future(store.begin(record(str(number), pages=1), NOW, BUDGET, dedupe_since=None))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        found = await store.find([str(number) for number in range(20)])
        count = await store.count("a", TODAY)
        assert count.day.reserved == sum(each is not None for each in found)


# many records


async def test_no_step_reads_the_whole_table(path: Path) -> None:
    """With 100,000 records a scan would hold up every create."""
    statements: list[str] = []
    async with SqliteCreates(path, KEYS) as store:
        there = await begun(store, record("there"))
        await store._file.do(lambda connection: connection.set_trace_callback(statements.append))
        for step in STEPS.values():
            await step(store, there)
        await store.begin(record("another"), NOW, BUDGET, dedupe_since=NOW)
        await store.due(NOW, NOW + 60, 100)
        await store.open_at("place")
        await store.bound("docs-1250000000", ["job"])
        await store.postpone(["there"], NOW)
        await store._file.do(lambda connection: connection.set_trace_callback(None))
    plans = [
        (statement, detail)
        for statement in statements
        if statement.startswith(("SELECT", "UPDATE", "DELETE"))
        for *_, detail in rows(path, f"EXPLAIN QUERY PLAN {statement}")
    ]
    assert plans
    scans = {detail for _, detail in plans if detail.startswith("SCAN") and "INDEX" not in detail}
    assert scans <= {"SCAN meta", "SCAN leases", "SCAN secrets"}
    used = {detail.partition("INDEX ")[2].split(" ")[0] for _, detail in plans}
    assert {"creates_due", "creates_open", "creates_bound"} <= used


async def test_what_an_earlier_version_has_left_is_taken_over_once(path: Path) -> None:
    """Records that are there stay as they are; used pages are counted on top."""
    left, used = accepted(record("left", pages=7)), [("a", DAY, 5), ("a", "2026-11", 6), ("b", DAY, 1)]
    async with SqliteCreates(path, KEYS) as store:
        there = await begun(store, record("there", pages=1))
        assert await store.take_over("old", [(record("there", pages=50), NOW), (left, NOW + 5)], used)
        assert await store.take_over("old", [(record("late"), NOW)], used) is False
        assert await store.find(["there", "left", "late"]) == [there, left, None]
        assert await store.count("a", TODAY) == PageCount(Pages(5, 8), Pages(6, 8))
        assert await store.count("b", TODAY) == PageCount(Pages(1, 0), Pages(0, 0))
        assert await store.due(NOW + 4, NOW + 9, 10) == [there]
        assert await store.due(NOW + 5, NOW + 9, 10) == [left]
        assert await store.take_over("older", [], used)
        assert await store.count("a", TODAY) == PageCount(Pages(10, 8), Pages(12, 8))
