"""Upgrades: what version 0.x has left is taken over, and what this version stores is read by this and later ones."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from base64 import b64decode
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from docpreview_gateway.creates.imported import OldIds, OldStoreError
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.migration import OLD_KEY, FilesMigration, RedisMigration, read_old_key
from docpreview_gateway.creates.old_redis import OldRedis
from docpreview_gateway.creates.old_sqlite import LEDGER, PAGES, OldFiles
from docpreview_gateway.creates.pages import PageCount, Pages, periods
from docpreview_gateway.creates.ports import StoreError, StoreState
from docpreview_gateway.creates.records import Record, State, Timing
from docpreview_gateway.creates.redis_creates import RedisCreates
from docpreview_gateway.creates.sqlite_creates import SqliteCreates
from docpreview_gateway.storage.redis_connections import redis_commands
from docpreview_gateway.storage.sqlite_file import SqliteFile
from tests.contract.stored_forms import (
    BUCKET,
    CALLER,
    DAY,
    FORMS,
    KEYS,
    LEASE,
    NOW,
    OLD_SECRET,
    copy_old_files,
    new_records,
    old_digest,
    request,
    restore,
)
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    from docpreview_gateway.creates.ports import CreateStore
    from tests.redis_groups import Cluster

Result = TypeVar("Result")
TIMING = Timing()
NAMES = ("sent", "unknown", "accepted", "settled", "reused", "intent")
OLD_SECRET_SCRIPT = """
redis.call('SET', 'docpreview:1:{ledger}:secret', ARGV[1], 'NX')
return redis.call('GET', 'docpreview:1:{ledger}:secret')
"""
"""As version 0.x asks for its secret with every create that it records."""


class Interrupted(BaseException):
    """The process is killed here."""


class Counting:
    """A store, or a server, that is killed before its call number `ends_at`. Counts calls from 1."""

    def __init__(self, ends_at: int = 0) -> None:
        self.ends_at = ends_at
        self.calls = 0

    def count(self) -> None:
        self.calls += 1
        if self.calls == self.ends_at:
            raise Interrupted


class MortalStore:
    """The port `TakingStore`; before and after each change the process may be killed."""

    def __init__(self, store: SqliteCreates | RedisCreates, life: Counting) -> None:
        self._store = store
        self._life = life

    async def state(self) -> StoreState:
        return await self._store.state()

    async def begin_rebuild(self, now: float) -> StoreState:
        return await self._mortal(self._store.begin_rebuild(now))

    async def end_rebuild(self, lost_since: float, cloud_mark: float, used: Sequence[tuple[str, str, int]]) -> bool:
        return await self._mortal(self._store.end_rebuild(lost_since, cloud_mark, used))

    async def take_over(
        self, source: str, records: Sequence[tuple[Record, float]], used: Sequence[tuple[str, str, int]]
    ) -> bool:
        return await self._mortal(self._store.take_over(source, records, used))

    async def _mortal(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            self._life.count()
            result = await work
        finally:
            work.close()
        self._life.count()
        return result


class Place(NamedTuple):
    """An old store, and the new one beside it. `migrate` is one start of a gateway, which `life` may end."""

    folder: Path
    store: SqliteCreates | RedisCreates
    migrate: Callable[[Counting], Awaitable[OldIds]]
    damage: Callable[[], str]
    """Make a record unreadable; its key."""
    is_open: Callable[[], bool]
    """Whether version 0.x would still write to the old store."""
    url: str = ""


@asynccontextmanager
async def files(folder: Path) -> AsyncIterator[Place]:
    copy_old_files(folder)
    async with SqliteCreates(folder / "creates.db", KEYS) as store:

        async def migrate(life: Counting) -> OldIds:
            ids = OldIds()
            await FilesMigration(
                folder, [LEDGER, PAGES], MortalStore(store, life), keys=KEYS, timing=TIMING, ids=ids
            ).run()
            return ids

        def damage() -> str:
            key = old_digest("unknown")
            with closing(sqlite3.connect(folder / LEDGER)) as connection, connection:
                connection.execute("UPDATE creates SET request = x'ff' WHERE key = ?", (key,))
            return key

        yield Place(folder, store, migrate, damage, lambda: version_of(folder / LEDGER) == 1)


@asynccontextmanager
async def shared(folder: Path) -> AsyncIterator[Place]:
    with running_redis(folder) as server:
        client = Redis.from_url(server.url)
        restore(client, FORMS / "old" / "redis.json")
        async with redis_commands(server.url) as send:
            store = RedisCreates(send, KEYS)

            async def migrate(life: Counting) -> OldIds:
                async def mortal(*command: Any) -> object:
                    life.count()
                    return await send(*command)

                ids = OldIds()
                old = OldRedis(mortal)
                await RedisMigration(old, MortalStore(store, life), keys=KEYS, timing=TIMING, ids=ids).run()
                return ids

            def damage() -> str:
                key = f"docpreview:1:{{ledger}}:create:{old_digest('unknown')}"
                client.hset(key, "stage", "elsewhere")
                return key

            yield Place(folder, store, migrate, damage, lambda: asks_for_secret(client), server.url)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        return int(found)


def asks_for_secret(client: Redis) -> bool:
    """Whether version 0.x gets its secret."""
    if client.type("docpreview:1:{ledger}:secret") == b"string":
        return bool(client.eval(OLD_SECRET_SCRIPT, 0, b"another") == OLD_SECRET)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        client.eval(OLD_SECRET_SCRIPT, 0, b"another")
    return False


@pytest.fixture(params=[files, shared], ids=["files", "redis"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with request.param(tmp_path) as found:
        yield found


async def all_records(store: CreateStore) -> dict[str, Record | None]:
    """What became of the old creates and reservations."""
    keys = {name: OldIds.key(CALLER, request(name)) for name in (*NAMES, "gone")}
    keys |= {name: f"1:page-00{name}" for name in ("bound", "unbound")}
    found = await store.find(list(keys.values()))
    return dict(zip(keys, found, strict=True))


class Seen(NamedTuple):
    """What the new store holds after an upgrade."""

    records: dict[str, Record | None]
    pages: list[PageCount]
    due: set[str]

    @classmethod
    async def of(cls, store: CreateStore) -> Seen:
        pages = [await store.count(CALLER, periods(day)) for day in (DAY, "2026-10-31", "2026-09-15")]
        return cls(await all_records(store), pages, {each.key for each in await store.due(NOW + 600, NOW, 100)})

    def body_of(self, name: str) -> bytes:
        """The digest of a create."""
        record = self.records[name]
        assert record is not None
        return record.body


async def test_old_creates_go_on_as_records_and_what_was_never_sent_is_dropped(place: Place) -> None:
    await place.migrate(Counting())
    found = await all_records(place.store)
    states = {name: record and record.state for name, record in found.items()}
    assert states == {
        "sent": State.OPEN,
        "unknown": State.OPEN,
        "accepted": State.ACCEPTED,
        "settled": State.CHARGED,
        "reused": State.CHARGED,
        "intent": None,
        "gone": None,
        "bound": State.ACCEPTED,
        "unbound": State.CHARGED,
    }
    unknown, accepted = found["unknown"], found["accepted"]
    assert unknown is not None
    assert accepted is not None
    assert (unknown.first_start, unknown.sign_end) == (NOW, NOW + 45)
    assert unknown.render.startswith("dg1-")
    assert unknown.read_request().options.quality == 80
    assert not unknown.read_request().options.password
    assert (accepted.job_id, accepted.expires_at) == ("d-accepted", NOW + 1 + 86400)
    assert accepted.answer().user_data == "of the caller"


async def test_used_pages_are_taken_over_and_reserved_ones_are_counted_anew(place: Place) -> None:
    """Of two months: 7 used today, and 2 of a create without id that may have made them; older ones are gone."""
    await place.migrate(Counting())
    seen = await Seen.of(place.store)
    assert seen.pages == [
        PageCount(Pages(9, 14), Pages(16, 14)),
        PageCount(Pages(12, 0), Pages(12, 0)),
        PageCount(),
    ]
    assert seen.due == {
        record.key for record in seen.records.values() if record is not None and record.state is not State.CHARGED
    }


async def test_old_ids_are_compared_by_the_old_secret_while_they_may_exist(place: Place) -> None:
    ids = await place.migrate(Counting())
    found = await all_records(place.store)
    for name in ("unknown", "accepted", "reused"):
        record = found[name]
        assert record is not None
        assert record.body == ids.body(request(name))
    other = request("unknown")
    other.options.password = "another"
    assert found["unknown"] is not None
    assert found["unknown"].body != ids.body(other)
    assert ids.may_exist(NOW + 86400 + 3600)
    assert not ids.may_exist(NOW + 10 * 86400)


async def test_the_next_start_knows_old_ids_and_takes_nothing_over_again(place: Place) -> None:
    await place.migrate(Counting())
    before = await Seen.of(place.store)
    ids = await place.migrate(Counting())
    assert await Seen.of(place.store) == before
    assert ids.body(request("unknown")) == before.body_of("unknown")


async def test_a_store_without_an_old_one_looks_for_no_old_ids(tmp_path: Path) -> None:
    async with SqliteCreates(tmp_path / "creates.db", KEYS) as store:
        ids = OldIds()
        assert ids.may_exist(NOW)
        await FilesMigration(tmp_path, [LEDGER, PAGES], store, keys=KEYS, timing=TIMING, ids=ids).run()
        assert not ids.may_exist(NOW)
    assert not (tmp_path / OLD_KEY).exists()


async def test_version_0_is_closed_out(place: Place) -> None:
    assert place.is_open()
    await place.migrate(Counting())
    if (place.folder / f"{LEDGER}.imported").exists():
        (place.folder / f"{LEDGER}.imported").rename(place.folder / LEDGER)
    assert not place.is_open()


async def test_version_0_refuses_a_file_that_is_being_taken_over(tmp_path: Path) -> None:
    async with files(tmp_path) as place:
        with pytest.raises(Interrupted):
            await place.migrate(Counting(ends_at=1))
    for name in (LEDGER, PAGES):
        # It opens files with the same class, which this version still has.
        with pytest.raises(StoreError, match="made by a newer version"):
            await SqliteFile(tmp_path / name, tables="", synchronous="FULL", error=StoreError).__aenter__()


@pytest.mark.parametrize("kind", [files, shared], ids=["files", "redis"])
async def test_a_start_that_is_killed_anywhere_is_repeated_with_the_same_result(kind: Any, tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    async with kind(tmp_path / "0") as place:
        whole = Counting()
        await place.migrate(whole)
        wanted = await Seen.of(place.store)
    for ends_at in range(1, whole.calls + 1):
        folder = tmp_path / str(ends_at)
        folder.mkdir()
        async with kind(folder) as place:
            with pytest.raises(Interrupted):
                await place.migrate(Counting(ends_at))
            ids = await place.migrate(Counting())
            assert await Seen.of(place.store) == wanted, ends_at
            assert ids.body(request("unknown")) == wanted.body_of("unknown")


@pytest.mark.parametrize("moment", ["closed", "without secret", LEDGER, PAGES])
async def test_files_that_were_half_put_away_are_not_counted_twice(moment: str, tmp_path: Path) -> None:
    async with files(tmp_path) as place:
        with pytest.raises(Interrupted):
            await place.migrate(Counting(ends_at=2))
        before = await Seen.of(place.store)
        if moment == "without secret":
            with closing(sqlite3.connect(tmp_path / LEDGER)) as connection, connection:
                connection.execute("DELETE FROM secret")
        if moment in {LEDGER, PAGES}:
            OldFiles(tmp_path, [moment]).put_away()
        ids = await place.migrate(Counting())
        assert await Seen.of(place.store) == before
        assert ids.body(request("unknown")) == before.body_of("unknown")
    assert {name for name in names_in(tmp_path) if ".db" in name} == {
        "creates.db",
        "ledger.db.imported",
        "pages.db.imported",
    }


async def test_two_processes_that_start_at_once_take_it_over_once(place: Place) -> None:
    await asyncio.gather(*(place.migrate(Counting()) for _ in range(3)))
    seen = await Seen.of(place.store)
    assert seen.pages[0] == PageCount(Pages(9, 14), Pages(16, 14))


async def test_a_record_that_cannot_be_read_stops_the_start_and_is_named(place: Place) -> None:
    """Nothing was changed: the operator may go back, or delete it as the message says."""
    key = place.damage()
    with pytest.raises(OldStoreError) as caught:
        await place.migrate(Counting())
    assert key in str(caught.value)
    assert "Delete it" in str(caught.value)
    assert place.is_open()


async def test_a_file_that_version_0_still_has_open_stops_the_start(tmp_path: Path) -> None:
    async with files(tmp_path) as place:
        with closing(sqlite3.connect(tmp_path / LEDGER)) as old:
            old.execute("PRAGMA journal_mode = WAL")
            old.execute("SELECT count(*) FROM creates").fetchall()
            with pytest.raises(OldStoreError, match="another process has it open"):
                await place.migrate(Counting())
        await place.migrate(Counting())


async def test_a_damaged_file_stops_the_start(tmp_path: Path) -> None:
    async with files(tmp_path) as place:
        (tmp_path / PAGES).write_bytes(b"not a database" * 1000)
        with pytest.raises(OldStoreError, match="Restore it from a backup"):
            await place.migrate(Counting())


async def test_the_old_secret_is_in_a_file_of_its_own_and_in_no_database(tmp_path: Path) -> None:
    async with files(tmp_path) as place:
        await place.migrate(Counting())
    assert read_old_key(tmp_path / OLD_KEY).secret == OLD_SECRET
    assert (tmp_path / OLD_KEY).stat().st_mode & 0o777 == 0o600
    holders = [name for name in names_in(tmp_path) if OLD_SECRET in (tmp_path / name).read_bytes()]
    assert holders == []


async def test_the_old_secret_does_not_stay_readable_in_redis(tmp_path: Path) -> None:
    async with shared(tmp_path) as place, redis_commands(place.url) as send:
        await place.migrate(Counting())
        left = await OldRedis(send).look()
        assert not any(OLD_SECRET in item for item in left.items)
        assert KEYS.unwrap(left.items[2]) == OLD_SECRET


async def test_pages_that_a_replica_counted_alone_are_handed_to_the_shared_store(tmp_path: Path) -> None:
    """Version 0.x counted in its own file while the server was away; those with an id may have made a job too."""
    async with shared(tmp_path) as place:
        await place.migrate(Counting())
        before = (await Seen.of(place.store)).pages[0].day
        shutil.copy(FORMS / "old" / PAGES, tmp_path / PAGES)
        with closing(sqlite3.connect(tmp_path / PAGES)) as connection, connection:
            connection.execute("DELETE FROM pages")
            connection.execute("DELETE FROM reservations WHERE id NOT LIKE '00%'")
            connection.execute("UPDATE reservations SET id = 'alone-' || id")
        for _ in range(2):
            own = FilesMigration(tmp_path, [PAGES], place.store, keys=KEYS, timing=TIMING, ids=OldIds())
            await own.run()
        after = (await Seen.of(place.store)).pages[0].day
        assert after == Pages(before.used + 2, before.reserved + 6)


async def test_another_deployment_at_the_same_server_leaves_it_alone(tmp_path: Path) -> None:
    """The first that starts takes the old store over, also while it is at it."""
    other = CreateKeys("another", [bytes(32)])
    async with shared(tmp_path) as place, redis_commands(place.url) as send:
        with pytest.raises(Interrupted):
            # Killed when version 0.x is closed out.
            await place.migrate(Counting(ends_at=9))
        assert not place.is_open()
        ids, store = OldIds(), RedisCreates(send, other)
        await RedisMigration(OldRedis(send), store, keys=other, timing=TIMING, ids=ids).run()
        assert not ids.may_exist(NOW)
        assert not (await store.state()).generation
        await place.migrate(Counting())
        assert (await Seen.of(place.store)).pages[0].day == Pages(9, 14)


async def test_an_old_store_in_a_cluster_is_taken_over(redis_cluster: Cluster) -> None:
    async with redis_commands(redis_cluster.url) as send:
        for words in json.loads((FORMS / "old" / "redis.json").read_text()):
            name, *rest = map(b64decode, words)
            await send(name.decode(), *rest)
        ids, store = OldIds(), RedisCreates(send, KEYS)
        for _ in range(2):
            await RedisMigration(OldRedis(send), store, keys=KEYS, timing=TIMING, ids=ids).run()
        seen = await Seen.of(store)
        assert seen.pages[0] == PageCount(Pages(9, 14), Pages(16, 14))
        assert seen.body_of("unknown") == ids.body(request("unknown"))


async def test_a_large_old_store_in_redis_is_taken_over_in_parts_that_are_counted_once(tmp_path: Path) -> None:
    """Killed after the first part, then done by another replica."""
    one = new_records()["open"]
    records = [(replace(one, key=f"1:{number:064}", place=f"place-{number}"), NOW) for number in range(1200)]
    used = [(CALLER, DAY, 5)]
    with running_redis(tmp_path) as server:
        async with redis_commands(server.url) as send:
            life = Counting()

            async def mortal(*command: Any) -> object:
                life.count()
                return await send(*command)

            first, second = RedisCreates(mortal, KEYS), RedisCreates(send, KEYS)
            begun = await first.begin_rebuild(1.0)
            await first.end_rebuild(begun.lost_since, 0.0, [])
            life.ends_at = life.calls + 2
            with pytest.raises(Interrupted):
                await first.take_over("old", records, used)
            assert (await second.count(CALLER, periods(DAY))).day == Pages(0, 500 * one.asked)
            assert await second.take_over("old", records, used)
            assert not await first.take_over("old", records, used)
            assert (await second.count(CALLER, periods(DAY))).day == Pages(5, 1200 * one.asked)


@pytest.mark.parametrize("kind", ["files", "redis"])
async def test_this_version_reads_the_stored_forms_of_2(kind: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        if kind == "files":
            shutil.copy(FORMS / "2" / "creates.db", tmp_path / "creates.db")
            store: CreateStore = await stack.enter_async_context(SqliteCreates(tmp_path / "creates.db", KEYS))
        else:
            server = stack.enter_context(running_redis(tmp_path))
            restore(Redis.from_url(server.url), FORMS / "2" / "redis.json")
            store = RedisCreates(await stack.enter_async_context(redis_commands(server.url)), KEYS)
        wanted = new_records()
        state = await store.state()
        assert state.generation
        assert (state.day, state.cloud_mark, state.lost_since) == (DAY, NOW, 0.0)
        assert await store.find([each.key for each in wanted.values()]) == list(wanted.values())
        assert await store.count(CALLER, periods(DAY)) == PageCount(Pages(2, 17), Pages(2, 17))
        assert await store.leases() == [LEASE]
        assert await store.open_at(wanted["open"].place) == [wanted["open"].key]
        assert await store.bound(BUCKET, ["d-1", "d-2"]) == {"d-1"}
        assert len(await store.due(NOW + 100, NOW + 200, 100)) == len(wanted)
