"""The store of creates in Redis, beyond the contract of all stores in tests/contract/test_create_store.py."""

from __future__ import annotations

import asyncio
import hashlib
import random
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from redis.crc import key_slot
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.pages import PageCount, Pages, Periods
from docpreview_gateway.creates.ports import Change, Lease, StoreError, StoreLost, UnknownSecret
from docpreview_gateway.creates.records import Record, State, Timing
from docpreview_gateway.creates.redis_creates import TAKE_OVER_SIZE, RedisCreates, key_names
from docpreview_gateway.model.callers import PageBudget
from docpreview_gateway.storage.redis_connections import redis_commands
from docpreview_gateway.storage.redis_health import may_lack, read_health
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.redis_server import RedisServer

NOW = 1_796_000_000.0
DAY = "2026-11-30"
PERIODS = Periods(DAY, "2026-11")
BUDGET = PageBudget(per_day=1000, per_month=1000)
BUCKET = "docs-1250000000"
OLD_SECRET, SECRET = bytes(range(1, 33)), bytes(range(32))
KEYS = CreateKeys("unit", [SECRET])
NAMES = key_names("unit")
RECORDS, COUNTERS, DUE, META = NAMES
LEASE = Lease("x", "a", DAY, 5, NOW)
SCANS = frozenset({"hgetall", "hscan", "hkeys", "hvals", "zrange", "keys", "scan", "smembers"})


def record(name: str = "r", *, place: str = "p", render: str = "content", now: float = NOW) -> Record:
    opened = Record(
        key=KEYS.record_keys("a", BUCKET, name)[0],
        body=b"0123456789abcdef",
        kid=KEYS.id,
        caller="a",
        bucket=BUCKET,
        request=b"",
        place=place,
        render=render,
        keep=3600.0,
        day=DAY,
        asked=3,
    )
    return opened.opened(now, Timing())


def accepted(opened: Record, job_id: str = "job") -> Record:
    return opened.accepted(PreviewJob(bucket=BUCKET, job_id=job_id), NOW)


@dataclass
class Side:
    """A store, and commands to its server beside it."""

    store: RedisCreates
    send: Callable[..., Awaitable[Any]]

    async def begun(self, wanted: Record) -> Record:
        assert (await self.store.begin(wanted, NOW, BUDGET, dedupe_since=None)).outcome == "new"
        return wanted

    async def finished(self, wanted: Record, job_id: str = "job") -> Record:
        done = accepted(await self.begun(wanted), job_id)
        assert await self.store.change([Change(wanted, done, NOW)]) == [True]
        return done

    async def contents(self) -> list[Any]:
        hashes = [await self.send("HGETALL", name) for name in (RECORDS, COUNTERS, META)]
        return [*hashes, await self.send("ZRANGE", DUE, 0, -1, "WITHSCORES")]


@asynccontextmanager
async def side_of(server: RedisServer, *, seconds: float = 5.0, keys: CreateKeys = KEYS) -> AsyncIterator[Side]:
    """A new store on an empty server."""
    async with redis_commands(server.url) as send:
        store = RedisCreates(send, keys, seconds=seconds)
        await store.begin_rebuild(1.0)
        assert await store.end_rebuild(1.0, 0.0, [])
        yield Side(store, send)


@pytest.fixture
async def side(redis_server: RedisServer) -> AsyncIterator[Side]:
    async with side_of(redis_server) as side:
        yield side


WRITES: dict[str, Callable[[RedisCreates, Record], Awaitable[object]]] = {
    "begin": lambda store, _: store.begin(record("new"), NOW, BUDGET, dedupe_since=None),
    "finish": lambda store, there: store.change([Change(there, accepted(there), NOW)]),
    "insert and delete": lambda store, there: store.change([Change(there, None), Change(None, record("new"), NOW)]),
    "lease": lambda store, _: store.lease(LEASE, BUDGET),
    "hand_over": lambda store, _: store.hand_over(LEASE, [(record("new"), NOW), (record("newer"), NOW)]),
    "advance": lambda store, _: store.advance(DAY, "2026-12-01"),
    "mark": lambda store, _: store.mark(NOW),
    "begin_rebuild": lambda store, _: store.begin_rebuild(NOW),
}
READS: dict[str, Callable[[RedisCreates, Record], Awaitable[object]]] = {
    "find": lambda store, there: store.find([there.key]),
    "due": lambda store, _: store.due(NOW, NOW + 9, 9),
    "open_at": lambda store, _: store.open_at("p"),
    "bound": lambda store, _: store.bound(BUCKET, ["job"]),
    "accepted": lambda store, _: store.accepted(BUCKET, NOW, NOW, 1),
    "count": lambda store, _: store.count("a", PERIODS),
    "leases": lambda store, _: store.leases(),
    "state": lambda store, _: store.state(),
}

# what the server holds


async def test_a_store_is_four_keys_without_an_end(side: Side) -> None:
    """Whatever is done with it; none of them may go by the server's clock."""
    there = await side.finished(record())
    for step in (*WRITES.values(), *READS.values()):
        await step(side.store, there)
    assert sorted(await side.send("KEYS", "*")) == sorted(name.encode() for name in NAMES)
    assert [await side.send("TTL", name) for name in NAMES] == [-1] * 4


@pytest.mark.parametrize("namespace", ["prod", "a}b{c", "{}", "} x"])
def test_the_keys_of_a_namespace_are_in_one_slot(namespace: str) -> None:
    assert len({key_slot(name.encode()) for name in key_names(namespace)}) == 1
    assert len(set(key_names(namespace) + key_names(namespace + "}"))) == 8


async def test_two_namespaces_of_a_server_know_nothing_of_each_other(side: Side) -> None:
    there = await side.finished(record())
    other = RedisCreates(side.send, CreateKeys("other", [SECRET]))
    assert (await other.state()).generation == ""
    await other.begin_rebuild(NOW)
    assert await other.find([there.key]) == [None]
    assert await other.bound(BUCKET, ["job"]) == set()
    assert await other.count("a", PERIODS) == PageCount()


async def test_a_record_of_a_replaced_secret_is_read_and_changed(redis_server: RedisServer) -> None:
    """As long as the secret is configured."""
    async with side_of(redis_server, keys=CreateKeys("unit", [OLD_SECRET])) as old:
        there = await old.begun(record())
        both = RedisCreates(old.send, CreateKeys("unit", [SECRET, OLD_SECRET]))
        assert await both.find([there.key]) == [there]
        assert await both.change([Change(there, accepted(there), NOW)]) == [True]
        assert await RedisCreates(old.send, KEYS).find([there.key]) == [accepted(there)]
        with pytest.raises(UnknownSecret, match=f"its id is {KEYS.id}.*ledger.key_file"):
            await old.store.find([there.key])


async def test_records_that_are_gone_leave_no_entries(side: Side) -> None:
    """Among many of the same places and jobs, in any order; open ones are listed at any time."""
    dice = random.Random(12)  # noqa: S311 - not a secret
    records: dict[str, Record] = {}
    for number in range(300):
        name = str(dice.randrange(40))
        old = records.pop(name, None)
        if old is None:
            records[name] = await side.begun(replace(record(name, place=dice.choice("pq")), asked=0))
        elif old.state is State.OPEN and number % 3:
            records[name] = accepted(old, f"job-{dice.randrange(5)}")
            assert await side.store.change([Change(old, records[name], NOW)]) == [True]
        else:
            assert await side.store.change([Change(old, None)]) == [True]
        for place in "pq":
            opened = [each.key for each in records.values() if each.place == place and each.state is State.OPEN]
            assert sorted(await side.store.open_at(place)) == sorted(opened)
        jobs = {each.job_id for each in records.values()} - {""}
        assert await side.store.bound(BUCKET, [f"job-{each}" for each in range(5)]) == jobs
    assert await side.store.change([Change(each, None) for each in records.values()]) == [True] * len(records)
    assert set(await side.send("HKEYS", META)) == {
        b"generation",
        b"seq",
        b"cloud_mark",
        b"lost_since",
        b"day",
        b"secrets",
        b"server",
    }
    assert await side.send("HKEYS", RECORDS) == [b"generation"]
    assert await side.send("ZCARD", DUE) == 1


async def test_a_job_of_two_records_is_bound_until_both_are_gone(side: Side) -> None:
    """An id that deduplication answered has the job of another create."""
    first = await side.finished(record("one"))
    alias = replace(first, key=record("two").key, day="", state=State.CHARGED)
    assert await side.store.change([Change(None, alias, NOW)]) == [True]
    assert await side.store.change([Change(first, None)]) == [True]
    assert await side.store.bound(BUCKET, ["job"]) == {"job"}
    assert await side.store.change([Change(alias, None)]) == [True]
    assert await side.store.bound(BUCKET, ["job"]) == set()


@pytest.mark.parametrize(("handed", "first"), [(NOW - 99, "stored"), (NOW + 99, "handed")])
async def test_of_a_handed_over_and_a_stored_create_the_later_one_has_the_place(
    side: Side, handed: float, first: str
) -> None:
    """What the later one made is at the place; it alone may answer others."""
    stored = await side.finished(record("stored"))
    await side.store.hand_over(LEASE, [(accepted(record("handed", now=handed), "job-2"), NOW)])
    hit = await side.store.begin(record("new"), NOW, BUDGET, dedupe_since=0.0)
    assert hit.outcome == "duplicate"
    assert hit.record is not None
    assert hit.record.key == (stored.key if first == "stored" else record("handed").key)


async def test_counters_of_long_ago_go_unless_pages_are_held_in_them(side: Side) -> None:
    """When a day begins. A record of that time will still be charged in its day."""
    await side.finished(record("held"))
    await side.store.change([Change(None, replace(accepted(record("b")), caller="b").charged(4), NOW)])
    assert await side.store.advance(DAY, "2027-02-08") == "2027-02-08"
    assert await side.store.count("b", PERIODS) == PageCount(Pages(4), Pages(4))
    assert await side.store.advance("2027-02-08", "2027-02-09") == "2027-02-09"
    assert await side.store.count("b", PERIODS) == PageCount()
    assert await side.store.count("a", PERIODS) == PageCount(Pages(0, 3), Pages(0, 3))


async def test_calls_do_the_same_work_with_100000_records(side: Side, redis_server: RedisServer) -> None:
    """The server carries out as many commands as with a few, none of which reads a whole key."""
    steps: list[Callable[[Record], Awaitable[object]]] = [
        lambda new: side.store.begin(new, NOW, BUDGET, dedupe_since=0.0),
        lambda new: side.store.find([new.key]),
        lambda _: side.store.due(NOW, NOW, 9),
        lambda new: side.store.change([Change(new, None)]),
        lambda new: side.store.hand_over(LEASE, [(new, NOW)]),
        lambda new: side.store.change([Change(new, None)]),
        lambda _: side.store.open_at("nowhere"),
        lambda _: side.store.bound(BUCKET, ["job"]),
        lambda _: side.store.accepted(BUCKET, NOW, NOW + 9, 9),
        lambda _: side.store.count("a", PERIODS),
        lambda _: side.store.lease(LEASE, BUDGET),
        lambda _: side.store.mark(NOW),
    ]

    async def commands(name: str) -> dict[str, int]:
        redis_server.command("CONFIG", "RESETSTAT")
        new = record(name)
        for step in steps:
            await step(new)
        stats = await side.send("INFO", "commandstats")
        return {command: values["calls"] for command, values in stats.items()}

    await side.store.lease(LEASE, BUDGET)
    await side.store.mark(NOW)
    few = await commands("one")
    fill = (
        "for i = 1, 100000 do redis.call('HSET', KEYS[1], 'r' .. i, 'row') "
        "redis.call('ZADD', KEYS[3], 2000000000, 'r' .. i) redis.call('HSET', KEYS[4], 'j:' .. i, 1) end"
    )
    await side.send("EVAL", fill, 4, *NAMES)
    many = await commands("two")
    assert many == few
    assert not SCANS & {command.removeprefix("cmdstat_") for command in many}


# losses


@pytest.mark.parametrize("lost", ["c", "p", "d", "m", "all"])
async def test_a_store_without_one_of_its_keys_is_lost_and_gets_a_new_generation(side: Side, lost: str) -> None:
    """An eviction takes whole keys. Nothing is written until a rebuild has begun."""
    before = await side.store.state()
    there = await side.finished(record())
    await (side.send("FLUSHALL") if lost == "all" else side.send("DEL", dict(zip("cpdm", NAMES, strict=True))[lost]))
    left = await side.contents()
    for name, step in (WRITES | READS).items():
        if name not in {"begin_rebuild", "state"}:
            with pytest.raises(StoreLost):
                await step(side.store, there)
    assert await side.contents() == left
    assert (await side.store.state()).generation == ""
    state = await side.store.begin_rebuild(NOW)
    assert state.generation not in {"", before.generation}
    assert (state.lost_since, state.cloud_mark) == (NOW, 0.0)
    assert await side.store.find([there.key]) == [None if lost in {"c", "all"} else there]
    await side.begun(record("new"))


@pytest.mark.parametrize("lost", [COUNTERS, DUE, META])
async def test_what_a_lost_key_held_is_computed_again_from_the_records(side: Side, lost: str) -> None:
    """Held pages first of all: a charge would else give back pages that are not held, and the budget be exceeded."""
    done, opened = await side.finished(record("done"), "job-1"), await side.begun(record("open", place="q"))
    charged = accepted(record("charged", place="r"), "job-2").charged(7)
    assert await side.store.change([Change(None, charged, NOW + 5)]) == [True]
    await side.store.lease(LEASE, BUDGET)
    await side.send("DEL", lost)
    await side.store.begin_rebuild(NOW)
    leased = 0 if lost == COUNTERS else LEASE.pages
    assert await side.store.count("a", PERIODS) == PageCount(Pages(7, 6 + leased), Pages(7, 6 + leased))
    assert await side.store.bound(BUCKET, ["job-1", "job-2"]) == {"job-1", "job-2"}
    assert await side.store.open_at("q") == [opened.key]
    assert await side.store.open_at("p") == []
    due = await side.store.due(NOW, NOW + 100, 9)
    expected = {done.key, opened.key} | ({charged.key} if lost == DUE else set())
    assert {each.key for each in due} == expected
    hit = await side.store.begin(record("new"), NOW, BUDGET, dedupe_since=0.0)
    assert (hit.outcome, hit.record) == ("duplicate", done)
    assert await side.store.change([Change(done, done.charged(1), NOW)]) == [True]
    assert (await side.store.count("a", PERIODS)).day == Pages(8, 3 + leased)


@pytest.mark.parametrize(("lost", "told"), [(META, {"job": NOW}), (DUE, {})])
async def test_when_jobs_were_created_survives_the_loss_of_all_keys_but_the_one_that_says_it(
    side: Side, lost: str, told: dict[str, float]
) -> None:
    """Nothing else that a script can read has it. Lists of the time before the loss are read by its rebuild."""
    job = PreviewJob(bucket=BUCKET, job_id="job")
    job.create_time.FromSeconds(int(NOW))
    done = record().accepted(job, NOW)
    await side.store.change([Change(None, done, NOW)])
    await side.send("DEL", lost)
    await side.store.begin_rebuild(NOW)
    assert await side.store.accepted(BUCKET, NOW, NOW, 9) == told
    assert await side.store.change([Change(done, None)]) == [True]
    assert await side.store.accepted(BUCKET, NOW, NOW, 9) == {}


async def test_used_pages_of_forgotten_creates_survive_the_loss_of_their_records(side: Side) -> None:
    done = await side.finished(record())
    await side.store.change([Change(done, done.charged(2), NOW)])
    await side.begun(record("held"))
    await side.send("DEL", RECORDS)
    state = await side.store.begin_rebuild(NOW)
    assert await side.store.end_rebuild(state.lost_since, 0.0, [])
    assert await side.store.count("a", PERIODS) == PageCount(Pages(2, 0), Pages(2, 0))


@pytest.mark.parametrize("again", [None, RECORDS, DUE])
async def test_creates_that_a_rebuild_finds_are_counted_once(side: Side, again: str | None) -> None:
    """Their pages are among the used ones that were left. Also if the store is lost again while it is rebuilt."""
    forgotten, there = await side.finished(record("forgotten", place="q"), "job-0"), await side.finished(record())
    await side.store.change([Change(forgotten, forgotten.charged(4), NOW), Change(there, there.charged(2), NOW)])
    await side.store.change([Change(forgotten.charged(4), None)])
    await side.send("DEL", RECORDS)
    state = await side.store.begin_rebuild(NOW)
    found = Change(None, there.charged(2), NOW)
    assert await side.store.change([found]) == [True]
    if again:
        await side.send("DEL", again)
        state = await side.store.begin_rebuild(NOW)
        assert await side.store.change([found]) == [again == RECORDS]
    assert await side.store.end_rebuild(state.lost_since, 0.0, [])
    assert await side.store.count("a", PERIODS) == PageCount(Pages(6, 0), Pages(6, 0))
    assert not any(b"kept" in field for field in await side.send("HKEYS", COUNTERS))


async def test_pages_that_a_rebuild_finds_beyond_those_that_were_counted_are_counted(side: Side) -> None:
    there = await side.finished(record())
    await side.store.change([Change(there, there.charged(2), NOW)])
    await side.send("DEL", RECORDS)
    state = await side.store.begin_rebuild(NOW)
    late = accepted(record("late", place="q"), "job-2").charged(5)
    await side.store.change([Change(None, there.charged(2), NOW), Change(None, late, NOW)])
    assert await side.store.end_rebuild(state.lost_since, 0.0, [])
    assert await side.store.count("a", PERIODS) == PageCount(Pages(7, 0), Pages(7, 0))


async def test_a_second_loss_during_a_rebuild_begins_it_anew(side: Side) -> None:
    """The first rebuild cannot end: what it has written may be gone."""
    other = RedisCreates(side.send, KEYS)
    await side.store.begin_rebuild(NOW)
    await side.send("DEL", RECORDS)
    assert (await other.begin_rebuild(NOW + 50)).lost_since == NOW + 50
    with pytest.raises(StoreLost):
        await side.store.end_rebuild(NOW, NOW, [])


async def test_a_server_that_evicts_never_denies_a_record_that_it_had(tmp_path: Path) -> None:
    """It is there, or the store is lost; that the create is new is never said."""
    policy = ("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru")
    with running_redis(tmp_path, *policy) as server:
        async with side_of(server) as side:
            there = await side.begun(record())
            lost = False
            for number in range(2000):
                await side.send("SET", f"other:{number}", "x" * 10_000)
                lost = lost or await side.send("EXISTS", *NAMES) < 4
            assert lost
            for step in (READS["find"], WRITES["begin"], WRITES["finish"]):
                with pytest.raises(StoreLost):
                    await step(side.store, there)


async def test_a_sequence_that_went_back_is_a_loss(side: Side) -> None:
    """To who has seen it; nothing is written."""
    there = await side.begun(record())
    seq = int(await side.send("HGET", META, "seq"))
    await side.send("HSET", META, "seq", seq - 1)
    left = await side.contents()
    for step in (WRITES["begin"], WRITES["finish"], READS["find"]):
        with pytest.raises(StoreLost):
            await step(side.store, there)
        # Whoever reads the state now and then must not accept the loss by that.
        assert (await side.store.state()).seq == seq - 1
    assert await side.contents() == left
    assert await RedisCreates(side.send, KEYS).find([there.key]) == [there]


async def test_a_loss_that_one_replica_noted_is_one_to_all(side: Side) -> None:
    """One that has not seen the changes that are gone would else begin their creates a second time."""
    behind = RedisCreates(side.send, KEYS)
    seq = (await behind.state()).seq
    there = await side.begun(record())
    assert await behind.find([there.key]) == [there]
    await side.begun(record("lost"))
    await side.send("HSET", META, "seq", seq + 1)
    await side.store.begin_rebuild(NOW)
    for step in (WRITES["begin"], WRITES["finish"], READS["find"]):
        with pytest.raises(StoreLost):
            await step(behind, there)
        assert (await behind.state()).lost_since == NOW
    assert (await behind.begin_rebuild(NOW + 9)).lost_since == NOW
    assert await behind.find([there.key]) == [there]
    assert await side.store.end_rebuild(NOW, NOW, [])
    assert await behind.find([there.key]) == [there]
    await side.store.begin_rebuild(NOW + 99)
    with pytest.raises(StoreLost):
        await behind.find([there.key])


async def test_a_loss_is_noted_also_while_the_time_is_not_known(side: Side) -> None:
    """0 says that nothing is lost."""
    state = await side.store.begin_rebuild(0.0)
    assert state.lost_since > 0
    assert await side.store.end_rebuild(state.lost_since, NOW, [])


async def test_what_is_left_of_a_store_is_no_store(side: Side) -> None:
    """A process that knows no other state must not take it for one."""
    await side.begun(record())
    await side.send("DEL", RECORDS)
    assert (await RedisCreates(side.send, KEYS).state())[:2] == ("", 0)


async def test_a_late_answer_does_not_raise_the_sequence_that_is_expected(side: Side) -> None:
    """It is of the store before it was restored; the rebuild that has begun since counts."""
    answered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*command: Any) -> Any:
        answer = await side.send(*command)
        if "late" in command:
            answered.set()
            await go_on.wait()
        return answer

    store = RedisCreates(slow, KEYS, seconds=30)
    state = await store.state()
    late = asyncio.create_task(store.lease(LEASE._replace(replica="late"), BUDGET))
    await answered.wait()
    await side.send("HSET", META, "seq", state.seq)
    await store.begin_rebuild(NOW)
    go_on.set()
    await late
    assert await store.find(["none"]) == [None]


async def test_a_server_that_was_restarted_empty_is_a_lost_store(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with side_of(server) as side:
            there = await side.begun(record())
            server.kill()
            with pytest.raises(StoreError, match=r"^shared_state: ") as raised:
                await side.store.find([there.key])
            assert not isinstance(raised.value, StoreLost)
            server.start()
            with pytest.raises(StoreLost):
                await side.store.find([there.key])


async def test_a_server_that_hangs_is_an_error_in_time_and_no_loss(tmp_path: Path) -> None:
    """A command that it carries out late is found by the next one."""
    with running_redis(tmp_path) as server:
        async with side_of(server, seconds=0.3) as side:
            server.freeze()
            with pytest.raises(StoreError, match="no answer in time") as raised:
                await side.store.begin(record(), NOW, BUDGET, dedupe_since=None)
            assert not isinstance(raised.value, StoreLost)
            server.thaw()
            patient = RedisCreates(side.send, KEYS, seconds=10)
            assert (await patient.begin(record(), NOW, BUDGET, dedupe_since=None)).outcome in {"known", "new"}
            assert (await patient.count("a", PERIODS)).day == Pages(0, 3)


async def test_scripts_that_the_server_forgot_are_sent_with_each_call(side: Side) -> None:
    there = await side.begun(record())
    await side.send("SCRIPT FLUSH")
    assert await side.store.find([there.key]) == [there]


# a full server


@pytest.mark.parametrize("write", [name for name in WRITES if name != "insert and delete"])
async def test_a_full_server_changes_nothing_at_all(side: Side, redis_server: RedisServer, write: str) -> None:
    """It refuses a script's first write, or none."""
    there = await side.begun(record())
    before = await side.contents()
    redis_server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StoreError, match="maxmemory") as raised:
            await WRITES[write](side.store, there)
        assert not isinstance(raised.value, StoreLost)
        assert await side.contents() == before
    finally:
        redis_server.command("CONFIG", "SET", "maxmemory", "0")
    await WRITES[write](side.store, there)
    assert await side.contents() != before


async def test_a_change_that_a_full_server_refuses_deletes_nothing(side: Side, redis_server: RedisServer) -> None:
    """An insert and a delete in one batch are made together or not at all."""
    there = await side.begun(record())
    before = await side.contents()
    redis_server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StoreError, match="maxmemory"):
            await WRITES["insert and delete"](side.store, there)
        assert await side.contents() == before
    finally:
        redis_server.command("CONFIG", "SET", "maxmemory", "0")


async def test_on_a_full_server_creates_are_found_looked_at_released_and_forgotten(
    side: Side, redis_server: RedisServer
) -> None:
    """That makes room again."""
    done, opened = await side.finished(record("done")), await side.begun(record("open"))
    redis_server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        for step in READS.values():
            await step(side.store, done)
        await side.store.postpone([done.key], NOW + 100)
        assert await side.store.due(NOW + 100, NOW + 900, 9) == [opened, done]
        assert await side.store.change([Change(done, None), Change(opened, None)]) == [True, True]
        assert await side.store.find([done.key, opened.key]) == [None, None]
        assert (await side.store.count("a", PERIODS)).day == Pages()
    finally:
        redis_server.command("CONFIG", "SET", "maxmemory", "0")


# what is not the store's own


def _forged(key: str, row: bytes, old: bytes, new: bytes) -> bytes:
    """A changed row with the right checksum."""
    assert old in row
    content = row[40:].replace(old, new, 1)
    return hashlib.sha1(key.encode() + content, usedforsecurity=False).hexdigest().encode() + content


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"job"', b'"jab"'), (b"\taccepted\t", b"\tcharged\t"), (b"\ta\t2026", b"\tb\t2026"), (b"\n", b"\n\n")],
    ids=["the packed record", "its state", "its caller", "a byte more"],
)
async def test_a_record_that_was_changed_with_care_is_not_believed(side: Side, old: bytes, new: bytes) -> None:
    """Whoever can write into the server cannot compute a MAC."""
    there = await side.finished(record())
    row = await side.send("HGET", RECORDS, there.key)
    await side.send("HSET", RECORDS, there.key, _forged(there.key, row, old, new))
    for step in (READS["find"], READS["due"]):
        with pytest.raises(StoreError, match=there.key):
            await step(side.store, there)
    with pytest.raises(StoreError, match=there.key):
        await side.store.begin(record(), NOW, BUDGET, dedupe_since=None)


@pytest.mark.parametrize("offset", [0, 39, 40, 41, 60, 200, -1])
async def test_a_damaged_record_is_neither_replaced_nor_deleted(side: Side, offset: int) -> None:
    """Wherever a byte has changed; and it answers no other create."""
    there = await side.finished(record())
    row = bytearray(await side.send("HGET", RECORDS, there.key))
    row[offset] ^= 1
    await side.send("HSET", RECORDS, there.key, bytes(row))
    before = await side.contents()
    changes = [Change(there, None), Change(there, there.charged(1), NOW), Change(None, there, NOW)]
    steps: list[Awaitable[object]] = [side.store.change([each]) for each in changes]
    steps.append(side.store.hand_over(LEASE, [(record("new"), NOW), (there, NOW)]))
    steps.append(side.store.begin(record("new"), NOW, BUDGET, dedupe_since=0.0))
    for step in steps:
        with pytest.raises(StoreError, match=there.key):
            await step
    assert await side.contents() == before


@pytest.mark.parametrize("field", ["day", "held", "index"])
async def test_entries_that_are_no_numbers_break_nothing_half_way(side: Side, field: str) -> None:
    """Counters are checked before the first write; indexes are a saving only."""
    there = await side.begun(record())
    names = {"day": f"used:{DAY}\ta", "held": f"held:{PERIODS.month}\ta"}
    if field == "index":
        await side.send("HSET", META, "n:p", "many", f"i:{there.key}", "x", f"j:{BUCKET}\tjob", "")
        assert await WRITES["finish"](side.store, there) == [True]
        return
    await side.send("HSET", COUNTERS, names[field], "many")
    before = await side.contents()
    for name in ("begin", "finish", "lease", "hand_over"):
        with pytest.raises(StoreError):
            await WRITES[name](side.store, there)
    assert await side.contents() == before


async def test_a_create_that_the_index_lacks_takes_no_other_out_of_it(side: Side) -> None:
    there, *others = [await side.begun(record(name)) for name in ("there", "one", "two")]
    await side.send("HDEL", META, f"i:{there.key}")
    assert await WRITES["finish"](side.store, there) == [True]
    for other in others:
        assert other.key in await side.store.open_at("p")
        assert await WRITES["finish"](side.store, other) == [True]
        assert other.key not in await side.store.open_at("p")


@pytest.mark.parametrize("key", NAMES)
async def test_a_key_of_another_type_is_an_error_that_names_it(side: Side, key: str) -> None:
    """What to do, too: without it the store is a lost one, and is rebuilt."""
    await side.send("SET", key, "text")
    for step in (WRITES["begin"], READS["find"], READS["state"], WRITES["begin_rebuild"]):
        with pytest.raises(StoreError, match=f"the key {key} is a string") as raised:
            await step(side.store, record())
        assert "WRONGTYPE" not in str(raised.value)
    await side.send("DEL", key)
    assert (await side.store.begin_rebuild(NOW)).generation


@pytest.mark.parametrize("value", ["many", "nan", "inf", "-1", "1.5", "1e300", ""])
async def test_a_counter_that_is_no_number_of_pages_is_named(side: Side, value: str) -> None:
    """`nan` would pass every budget."""
    await side.send("HSET", COUNTERS, f"used:{DAY}\ta", value)
    before = await side.contents()
    for step in (WRITES["begin"], WRITES["lease"], READS["count"]):
        with pytest.raises(
            StoreError, match=f"{COUNTERS}: the field used:{DAY}\ta is not a number of pages;"
        ) as raised:
            await step(side.store, record())
        assert "script" not in str(raised.value)
    assert await side.contents() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("day", "many"), ("day", "2026-13-01"), ("cloud_mark", "nan"), ("cloud_mark", "soon"), ("lost_since", "yes")],
)
async def test_a_field_of_the_store_that_cannot_be_read_is_named(side: Side, field: str, value: str) -> None:
    await side.send("HSET", META, field, value)
    with pytest.raises(StoreError, match=f"{META}: the field {field} is not a"):
        await side.store.state()


async def test_a_lease_that_cannot_be_read_is_named(side: Side) -> None:
    for value in ("many", "3", "3 soon"):
        await side.send("HSET", COUNTERS, f"lease:x\ta\t{DAY}", value)
        for step in (READS["leases"], *([WRITES["lease"]] if value == "many" else [])):
            with pytest.raises(StoreError, match=f"{COUNTERS}: the field lease:x\ta\t{DAY} is not a lease"):
                await step(side.store, record())


ANSWERS = [
    None,
    b"OK",
    "OK",
    7,
    1.5,
    True,
    [],
    [None],
    [b"ok"],
    [b"ok", None],
    [b"no", 1],
    [b"ok", 1, {}, 2, 3, 4, 5, 6],
]


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
async def test_an_unexpected_answer_is_an_error_of_every_step(answer: object) -> None:
    """It is never taken for success: a create would be sent without a record, or twice."""

    async def send(*_command: object) -> object:
        return answer

    store = RedisCreates(send, KEYS)
    steps = WRITES | READS | {"end_rebuild": lambda store, _: store.end_rebuild(1.0, 1.0, [])}
    for name, step in steps.items():
        with pytest.raises(StoreError) as raised:
            pytest.fail(f"{name}: {await step(store, record())}")
        assert not isinstance(raised.value, StoreLost)


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("begin", [b"new", b"k", b"row", [0, 0, 0, 0], b""]),
        ("begin", [b"known", b"", b"", [0, 0, 0, 0], b""]),
        ("begin", [b"new", b"", b"", [0, 0, 0], b""]),
        ("begin", [b"perhaps", b"", b"", [0, 0, 0, 0], b""]),
        ("finish", [[1, 1]]),
        ("finish", [[]]),
        ("finish", [[b"1"]]),
        ("find", [[None, None]]),
        ("find", [[1]]),
        ("bound", [[]]),
        ("count", [[0, 0, 0, b"0"]]),
        ("due", [[b"key"]]),
        ("state", [[b"g", 1, b"", b"", b""]]),
        ("state", [[b"g", b"1", b"", b"", b"", b"", b""]]),
        ("accepted", [[b"job"]]),
        ("accepted", [[b"job", 1]]),
        ("accepted", [[b"job", b"soon"]]),
    ],
)
async def test_an_answer_that_is_nearly_right_is_an_error(name: str, rest: list[object]) -> None:
    async def send(*_command: object) -> object:
        return [b"ok", 1, *rest]

    with pytest.raises(StoreError, match="unexpected answer"):
        await (WRITES | READS)[name](RedisCreates(send, KEYS), record())


async def test_an_error_reply_is_an_error_and_no_loss() -> None:
    async def send(*_command: object) -> object:
        raise ResponseError("READONLY You can't write against a read only replica.")

    with pytest.raises(StoreError, match=r"^shared_state: READONLY") as raised:
        await RedisCreates(send, KEYS).mark(NOW)
    assert not isinstance(raised.value, StoreLost)


# many at once


async def test_creates_begun_at_once_never_exceed_the_budget(side: Side) -> None:
    """By two replicas, with their ends in between."""
    other = RedisCreates(side.send, KEYS, seconds=5)
    stores, budget = (side.store, other), PageBudget(per_day=30)

    async def create(number: int) -> int:
        wanted, store = record(str(number), place=str(number)), stores[number % 2]
        if (await store.begin(wanted, NOW, budget, dedupe_since=None)).outcome != "new":
            return 0
        done = accepted(wanted, f"job-{number}")
        assert await store.change([Change(wanted, done, NOW), Change(done, done.charged(3), NOW)]) == [True, True]
        return 3

    made = await asyncio.gather(*map(create, range(100)))
    assert sum(made) == 30
    assert await other.count("a", PERIODS) == PageCount(Pages(30, 0), Pages(30, 0))


async def test_what_an_earlier_version_has_left_is_taken_over_once(side: Side) -> None:
    """In parts, of which the last one is the end; records that are there stay, used pages are counted on top."""
    used = [("a", DAY, 5), ("a", "2026-11", 6), ("b", DAY, 1)]
    there = await side.begun(record("there"))
    left = [accepted(record(f"left {number}", place="q"), f"job {number}") for number in range(TAKE_OVER_SIZE + 1)]
    parts = [(replace(there, asked=50), NOW), *((each, NOW + 5) for each in left)]
    assert await side.store.take_over("old", parts[: TAKE_OVER_SIZE // 2], [])
    assert await side.store.take_over("new", parts, used)
    contents = await side.contents()
    assert not await side.store.take_over("new", [(record("late"), NOW)], used)
    assert await side.contents() == contents
    assert await side.store.find([there.key, *(each.key for each in left)]) == [there, *left]
    reserved = 3 * (len(left) + 1)
    assert await side.store.count("a", PERIODS) == PageCount(Pages(5, reserved), Pages(6, reserved))
    assert await side.store.count("b", PERIODS) == PageCount(Pages(1, 0), Pages(0, 0))
    assert await side.store.bound(BUCKET, ["job 0", "job 7", "none"]) == {"job 0", "job 7"}
    assert await side.store.due(NOW + 4, NOW + 9, 10) == [there]
    assert len(await side.store.due(NOW + 5, NOW + 9, len(parts))) == len(left)
    assert await side.store.take_over("older", [], used)
    assert await side.store.count("a", PERIODS) == PageCount(Pages(10, reserved), Pages(12, reserved))


async def test_all_leases_are_listed_however_many_there_are(side: Side) -> None:
    """The server shows them in parts."""
    await side.store.lease(LEASE, BUDGET)
    words = [word for number in range(3000) for word in (f"lease:r{number}\ta\t{DAY}", "5 1.0")]
    await side.send("HSET", COUNTERS, *words)
    found = {lease.replica: lease for lease in await side.store.leases()}
    assert len(found) == 3001
    assert found["x"] == LEASE
    assert found["r7"] == Lease("r7", "a", DAY, 5, 1.0)


async def test_a_counter_of_changes_that_cannot_be_read_is_a_loss_which_a_rebuild_heals(side: Side) -> None:
    there = await side.begun(record())
    await side.send("HSET", META, "seq", "x")
    with pytest.raises(StoreLost):
        await side.store.find([there.key])
    assert (await side.store.state()).generation == ""
    await side.store.begin_rebuild(NOW)
    assert await side.store.end_rebuild(NOW, 0.0, [])
    assert await side.store.find([there.key]) == [there]


# another server


def judged(send: Callable[..., Awaitable[Any]]) -> RedisCreates:
    """A store that asks its server whether it may lack changes, as the gateway does."""

    async def server_may_lack(before: str) -> bool:
        return may_lack(await read_health(send, RECORDS), before)

    return RedisCreates(send, KEYS, seconds=5, may_lack=server_may_lack)


async def _lacks_nothing(_before: str) -> bool:
    return False


@pytest.mark.parametrize("ran_before", [True, False])
async def test_a_create_is_not_begun_again_on_a_server_that_lost_it_although_others_wrote_since(
    tmp_path: Path,
    ran_before: bool,  # noqa: FBT001
) -> None:
    """The counter of changes is beyond what this replica has seen, but the server is not the one of before."""
    with running_redis(tmp_path) as server:
        async with side_of(server) as side:
            here = judged(side.send)
            await here.state()
            wanted = record("first")
            await here.begin(wanted, NOW, BUDGET, dedupe_since=None)
            server.command("SAVE")
            lost = record("lost", place="q")
            await (here if ran_before else side.store).begin(lost, NOW, BUDGET, dedupe_since=None)
            server.kill()
            server.start()
            # One that does not ask its server for more than the store itself tells.
            later = RedisCreates(side.send, KEYS, seconds=5, may_lack=_lacks_nothing)
            with suppress(StoreError):
                # A connection that the server has closed.
                await later.state()
            await later.state()
            for number in range(5):
                await later.begin(record(f"later-{number}", place="r"), NOW, BUDGET, dedupe_since=None)
            for _ in range(2):
                with pytest.raises(StoreLost):
                    await here.begin(lost, NOW, BUDGET, dedupe_since=None)
            assert await side.send("HEXISTS", RECORDS, lost.key) == 0
            assert (await here.begin_rebuild(NOW)).lost_since == NOW
            with pytest.raises(StoreLost):
                await later.find([wanted.key])


async def test_a_new_process_notices_that_the_server_is_not_the_one_of_the_last_change(tmp_path: Path) -> None:
    """It has seen nothing of what is lost, and is the first that comes."""
    with running_redis(tmp_path) as server:
        async with side_of(server) as side:
            await judged(side.send).begin(record("kept"), NOW, BUDGET, dedupe_since=None)
            server.command("SAVE")
            lost = record("lost", place="q")
            await judged(side.send).begin(lost, NOW, BUDGET, dedupe_since=None)
            server.kill()
            server.start()
            later = judged(side.send)
            with suppress(StoreError):
                # A connection that the server has closed.
                await later.state()
            await later.state()
            with pytest.raises(StoreLost):
                await later.begin(lost, NOW, BUDGET, dedupe_since=None)
            # A loss that is noted is that of the present server.
            await later.begin_rebuild(NOW)
            assert await later.end_rebuild(NOW, 0.0, [])
            another = judged(side.send)
            await another.state()
            assert (await another.begin(lost, NOW, BUDGET, dedupe_since=None)).outcome == "new"


async def test_a_server_that_was_restarted_and_has_written_every_change_is_used_at_once(tmp_path: Path) -> None:
    """It is asked by the first command that meets it, for all that wait, and no create fails."""
    with running_redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        async with side_of(server) as side:
            sent: list[Any] = []

            async def send(*command: Any) -> object:
                sent.append(command[0])
                return await side.send(*command)

            here = judged(send)
            await here.state()
            server.kill()
            server.start()
            with suppress(NoConnection):
                await side.send("PING")
            wanted = [record(str(number), place=str(number)) for number in range(8)]
            begun = await asyncio.gather(*(here.begin(each, NOW, BUDGET, dedupe_since=None) for each in wanted))
            assert [each.outcome for each in begun] == ["new"] * 8
            assert sent.count("CONFIG GET") == 1
            sent.clear()
            await here.find([wanted[0].key])
            assert sent == ["EVAL"]


async def test_a_server_that_may_not_be_asked_for_its_id_is_compared_by_the_counter_alone(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        server.command("ACL", "SETUSER", "plain", "on", "nopass", "~*", "+@all", "-info")
        async with redis_commands(f"redis://plain:x@127.0.0.1:{server.port}/0") as send:
            store = judged(send)
            await store.begin_rebuild(1.0)
            assert await store.end_rebuild(1.0, 0.0, [])
            assert (await store.begin(record(), NOW, BUDGET, dedupe_since=None)).outcome == "new"
