"""The store of creates in Redis or Valkey, shared by replicas. Every method is one script, so it is atomic.

It is as durable as the server. What the server loses (by a restart without an append-only file, a failover to a replica
that lags behind, eviction) is noticed as StoreLost by the generation, or by a `seq` that went back, and by every other
replica as soon as one has noted it with `begin_rebuild`.
`docs/configuration.md` says how to run the server, `redis_scripts` what the keys hold.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from docpreview_gateway.creates import redis_answers as answers
from docpreview_gateway.creates import redis_rebuild
from docpreview_gateway.creates import redis_scripts as scripts
from docpreview_gateway.creates.ports import (
    Begun,
    Lease,
    SecretUse,
    StoreError,
    StoreLost,
    StoreState,
    Survey,
    UnknownSecret,
    UnreadableRecord,
)
from docpreview_gateway.creates.records import RecordError, index_of, packed, unpacked
from docpreview_gateway.creates.secret_use import problem
from docpreview_gateway.storage.redis_client import RedisCallError, RedisClient, script_command
from docpreview_gateway.storage.redis_keys import slot_prefix

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.pages import PageCount, Periods
    from docpreview_gateway.creates.ports import Change
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.model.callers import PageBudget

OPEN_AT = 100
"""Most keys that `open_at` returns."""

REBUILD_SECONDS = 30.0
"""Least time limit of the methods that read or write the whole store."""

SURVEY_COUNT = 500
"""Records that `survey` reads at once, about."""

ACCEPTED_FROM = 1e12
"""Score of a job that the cloud created in 1970: beyond those of all records that will ever be due."""

TAKE_OVER_SIZE = 500
"""Records that `take_over` inserts by one script."""

KEEP_COUNTERS = timedelta(days=70)
"""Counters of periods that ended longer ago, and in which nothing is held, are deleted when the next day begins."""

Result = TypeVar("Result")


class _Known:
    """The store that this process knows: generation, noted loss and server (`*`: any), its highest `seq` in an answer.

    `secrets` are the ids of those that were seen in its state; None: any.
    """

    def __init__(self, state: StoreState | None = None, server: str = "") -> None:
        self.server = server or "*"
        self.secrets = {use.id for use in state.secrets} if state else None
        self.generation = state.generation if state else "*"
        self.seq = state.seq if state else 0
        self.lost_since = repr(state.lost_since) if state else "*"


class RedisCreates:
    """The port `CreateStore` over `send`, which sends one command. A call takes at most `seconds`.

    Until `state` or `begin_rebuild` is called, any store that is whole is accepted. Only `begin_rebuild` makes an empty
    server a store; it reads all records if the store is not whole, and may take `REBUILD_SECONDS`.

    `may_lack` says whether the server may lack changes that the one with a `RedisHealth.server` has acknowledged, or
    raises RedisCallError. It is asked when the server has another one than before, before anything is read from it. The
    store itself says which one its last change was made on, so that a new process knows of one before.
    """

    def __init__(
        self,
        send: Callable[..., Awaitable[object]],
        keys: CreateKeys,
        *,
        seconds: float = 1.0,
        may_lack: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        self._may_lack = may_lack
        self._comparing = asyncio.Lock()
        self._redis = RedisClient(send, name="store of creates", seconds=seconds)
        self._patient = RedisClient(send, name="store of creates", seconds=max(seconds, REBUILD_SECONDS))
        self._keys = keys
        self._names = key_names(keys.namespace)
        self._known = _Known()

    async def state(self) -> StoreState:
        """The present state. A store that is not whole has no generation.

        A `seq` that went back, and a loss that another replica has noted, are StoreLost of the next call all the same:
        only `begin_rebuild` accepts them.
        """
        known = self._known
        state, server = await self._run(answers.state, scripts.STATE)
        if state.generation == known.generation:
            known.seq = max(known.seq, state.seq)
            known.secrets = {use.id for use in state.secrets}
        elif known is self._known:
            self._known = _Known(state, server)
        return state

    async def begin(
        self,
        record: Record,
        look_at: float,
        budget: PageBudget | None,
        *,
        dedupe_since: float | None,
        alone: bool = False,
    ) -> Begun:
        """Insert an OPEN record, or say what is in its way."""
        since = "" if dedupe_since is None else repr(float(dedupe_since))
        row = (record.key, self._row(record), float(look_at), *_limits(budget), since, "alone" if alone else "")
        outcome, key, row_found, pages, day = await self._run(answers.begun, scripts.BEGIN, *row)
        found = self._record(key, row_found) if row_found else None
        return Begun(outcome, record if outcome == "new" else found, pages, day)

    async def change(self, changes: Sequence[Change]) -> list[bool]:
        """Make up to 100 changes, each if its condition holds, in this order; which were made."""
        flat: list[str | bytes | float] = []
        for change in changes:
            old, new = change.old, change.new
            named = old or new
            if named is None:
                raise ValueError("a change of nothing")
            condition = (old.state.value, old.nonce.hex()) if old else ("-", "")
            stored = self._stored(new, change.look_at) if new else (named.key, b"", float(change.look_at), "")
            flat += [named.key, *condition, *stored[1:]]
        return await self._run(partial(answers.flags, len(changes)), scripts.CHANGE, *flat) if flat else []

    async def find(self, keys: Sequence[str]) -> list[Record | None]:
        """The records of these keys, None where there is none."""
        found = await self._run(partial(answers.rows, len(keys)), scripts.FIND, *keys)
        return [None if row is None else self._record(key, row) for key, row in zip(keys, found, strict=True)]

    async def due(self, now: float, until: float, count: int) -> list[Record]:
        """Up to `count` records that are due at `now`, the longest due first. They are due again at `until`.

        If some of them cannot be read, those alone are postponed, and StoreError names them.
        """
        records: list[Record] = []
        unreadable: dict[str, str] = {}
        rows = await self._run(answers.due, scripts.DUE, float(now), float(until), count)
        for key, row in rows:
            try:
                records.append(self._record(key, row))
            except UnreadableRecord as error:
                unreadable[key] = str(error)
        if unreadable:
            # Else one damaged record would keep those of its batch from ever being looked at.
            await self.postpone([record.key for record in records], now)
            raise UnreadableRecord("; ".join(unreadable.values()), *unreadable)
        return records

    async def postpone(self, keys: Sequence[str], look_at: float) -> None:
        """Set when these records are due next."""
        await self._run(answers.nothing, scripts.POSTPONE, float(look_at), *keys)

    async def open_at(self, place: str) -> list[str]:
        """Keys of the OPEN records of a place, up to 100."""
        return await self._run(answers.texts, scripts.OPEN_AT, _word(place), OPEN_AT)

    async def bound(self, bucket: str, job_ids: Sequence[str]) -> set[str]:
        """Those of the jobs that belong to a record."""
        read = partial(answers.flags, len(job_ids))
        flags = await self._run(read, scripts.BOUND, _word(bucket), *map(_word, job_ids))
        return {job_id for job_id, is_bound in zip(job_ids, flags, strict=True) if is_bound}

    async def accepted(self, bucket: str, begin: float, end: float, count: int) -> dict[str, float]:
        """Up to `count` jobs of records that the cloud created from `begin` to `end`, and when; the oldest ones."""
        span = (repr(ACCEPTED_FROM + begin), repr(ACCEPTED_FROM + end))
        return await self._run(partial(answers.accepted, ACCEPTED_FROM), scripts.ACCEPTED, _word(bucket), *span, count)

    async def count(self, caller: str, periods: Periods) -> PageCount:
        """A caller's pages in these periods."""
        return await self._run(answers.count, scripts.COUNT, _word(caller), *periods)

    async def advance(self, old: str, new: str) -> str:
        """Count to the day `new` if the store counts to `old` and `new` is later; the day that it counts to then."""
        return await self._run(answers.day_of, scripts.ADVANCE, old, new, _oldest_kept(new))

    async def lease(self, lease: Lease, budget: PageBudget) -> Lease:
        """Set the replica's lease for this caller and day, as far as the budget has room."""
        numbers = (lease.pages, repr(float(lease.renewed_at)), *_limits(budget))
        return lease._replace(pages=await self._run(answers.integer, scripts.LEASE, *_name(lease), *numbers))

    async def leases(self) -> list[Lease]:
        """All leases."""
        return await self._run(answers.leases, scripts.LEASES)

    async def hand_over(self, lease: Lease, records: Sequence[tuple[Record, float]]) -> None:
        """Insert records that were paid from a lease, and reduce it by their pages."""
        rows = [part for record, look_at in records for part in self._stored(record, look_at)]
        await self._run(answers.nothing, scripts.HAND_OVER, *_name(lease), *rows)

    async def survey(self) -> Survey:
        """Read all records, some at a time."""
        found, cursor = Survey({}, {}), 0
        while True:
            try:
                command = ("HSCAN", self._names[0], cursor, "COUNT", SURVEY_COUNT)
                cursor, rows = await self._patient.execute(*command, read=answers.scanned)
            except RedisCallError as error:
                raise StoreError(f"shared_state: {await self._why(error)}") from error
            for key, row in rows.items():
                if key == "generation":
                    continue
                try:
                    found.add(self._record(key, row))
                except UnreadableRecord as error:
                    found.unreadable[key] = str(error)
            if not cursor:
                return found

    async def mark(self, cloud_mark: float) -> None:
        """The records are complete up to this cloud's time."""
        await self._run(answers.nothing, scripts.MARK, repr(float(cloud_mark)))

    async def begin_rebuild(self, now: float) -> StoreState:
        """Note a loss, and expect the store's generation from now on: a new one, if the store is not whole."""
        # 0 would say that nothing is lost, and 1 is MAKING. The cloud's time may not be known yet.
        arguments = (secrets.token_hex(16), repr(float(now or 2.0)))
        state, server = await self._run(answers.state, redis_rebuild.BEGIN_REBUILD, *arguments, patient=True)
        # Replaced as a whole: a late answer to an earlier call must not raise the `seq` that is expected from now on.
        self._known = _Known(state, server)
        return state

    async def end_rebuild(self, lost_since: float, cloud_mark: float, used: Sequence[tuple[str, str, int]]) -> bool:
        """End the rebuild that began at `lost_since`; False when another replica ended it."""
        flat = [part for caller, period, pages in used for part in (_word(caller), period, pages)]
        arguments = (repr(float(lost_since)), repr(float(cloud_mark)), *flat)
        return await self._run(answers.flag, redis_rebuild.END_REBUILD, *arguments, patient=True)

    async def take_over(
        self, source: str, records: Sequence[tuple[Record, float]], used: Sequence[tuple[str, str, int]]
    ) -> bool:
        """Insert what an earlier version has left, the last part with the note that it is done; False when it was."""
        parts = [records[at : at + TAKE_OVER_SIZE] for at in range(0, len(records), TAKE_OVER_SIZE)] or [records]
        for number, part in enumerate(parts, 1):
            rows = [word for record, look_at in part for word in self._stored(record, look_at)]
            end = [word for caller, period, pages in used for word in (_word(caller), period, pages)]
            arguments = (source, len(part), *rows, *(["end", *end] if number == len(parts) else []))
            if not await self._run(answers.flag, scripts.TAKE_OVER, *arguments, patient=True):
                return False
        return True

    async def drop_secrets(self, ids: Sequence[str]) -> None:
        """Forget that these secrets were used, although records may be made with them that nobody finds then."""
        await self._run(answers.nothing, scripts.DROP_SECRETS, f",{','.join(ids)},")

    async def _run(
        self, read: Callable[..., Result], script: str, *arguments: str | bytes | float, patient: bool = False
    ) -> Result:
        """Run a script and `read` the rest of its answer. An unexpected answer is an error, never a record."""
        known, client = self._known, self._patient if patient else self._redis
        answer = await self._answer(known, client, read, script, *arguments)
        if answer.status == b"moved":
            await self._compare(known, answer.key)
            answer = await self._answer(known, client, read, script, *arguments)
        if answer.status in {b"lost", b"moved"}:
            raise StoreLost("shared_state: the store of creates was emptied, restored or replaced")
        if answer.status == b"unreadable":
            raise _unreadable(answer.key, "it cannot be read by this version")
        if answer.status == b"secret":
            raise UnknownSecret(f"shared_state: {problem([SecretUse(answer.key, 0.0)])}")
        known.seq = max(known.seq, answer.seq)
        result: Result = answer.rest
        return result

    async def _compare(self, known: _Known, server: str) -> None:
        """Accept another server in place of the known one. StoreLost when it may lack changes of that one.

        Other replicas may have written since, so that `seq` would not tell.
        """
        async with self._comparing:
            if known.server == server:
                return
            try:
                may_lack = self._may_lack is None or await self._may_lack(known.server)
            except RedisCallError as error:
                raise StoreError(f"shared_state: {error}") from error
            if may_lack:
                raise StoreLost("shared_state: the server was restarted, or another one has taken its place")
            known.server = server

    async def _answer(
        self,
        known: _Known,
        client: RedisClient,
        read: Callable[..., object],
        script: str,
        *arguments: str | bytes | float,
    ) -> answers.Answer:
        ids = "*" if known.secrets is None else f",{','.join({*known.secrets, *self._keys.ids})},"
        expected = (known.generation, f"{known.seq} {known.lost_since} {self._keys.id} {ids} {known.server}")
        command = script_command(script, self._names, *expected, *arguments)
        try:
            return await client.execute(*command, read=partial(answers.checked, read))
        except RedisCallError as error:
            raise StoreError(f"shared_state: {await self._why(error)}") from error

    async def _why(self, error: RedisCallError) -> str:
        """Why a script failed; for a key that something else has written, its name and what to do."""
        if damaged := answers.damage(error.__cause__, self._names):
            return f"{damaged}; correct it, or delete the key: the store is rebuilt then"
        if "WRONGTYPE" not in str(error):
            return str(error)
        for name, kind in zip(self._names, ("hash", "hash", "zset", "hash"), strict=True):
            with suppress(RedisCallError):
                found = await self._redis.execute("TYPE", name, read=_type)
                if found not in {kind, "none"}:
                    return f"the key {name} is a {found}, not a {kind}; delete it: the store is rebuilt then"
        return "a key of the store is not of the type that it should have"

    def _stored(self, record: Record, look_at: float) -> tuple[str, bytes, float, str]:
        """What scripts get of a record that is inserted: its key, its row, when it is due, and the score of its job."""
        score = repr(ACCEPTED_FROM + record.created_at) if record.created_at else ""
        return record.key, self._row(record), float(look_at), score

    def _row(self, record: Record) -> bytes:
        """A record as the server keeps it: a checksum, what scripts need of it, and the whole."""
        return _sealed(record.key, _header(record) + b"\n" + packed(record, self._keys))

    def _record(self, key: str, row: bytes) -> Record:
        _, _, stored = row.partition(b"\n")
        try:
            record = unpacked(stored, self._keys)
        except RecordError as error:
            raise _unreadable(key, str(error)) from error
        if record.key != key or row != _sealed(key, _header(record) + b"\n" + stored):
            raise _unreadable(key, "what is stored beside it is not its own")
        return record


def key_names(namespace: str) -> list[str]:
    """The four keys of a store, in one hash slot of a cluster."""
    return [slot_prefix(namespace) + name for name in "cpdm"]


def _type(answer: object) -> str:
    return answer if isinstance(answer, str) else answers.text(answer)


def _unreadable(key: str, why: str) -> UnreadableRecord:
    return UnreadableRecord(f"shared_state: record {key}: {why}", key)


def _word(text: str) -> str:
    """Text without the characters that separate words in headers and names of fields."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def _name(lease: Lease) -> tuple[str, str, str]:
    return _word(lease.replica), _word(lease.caller), _word(lease.day)


def _header(record: Record) -> bytes:
    return "\t".join(_word(str(value)) for value in index_of(record)).encode()


def _sealed(key: str, content: bytes) -> bytes:
    """A stored record with its checksum, by which scripts, which cannot compute its MAC, notice damage."""
    content = b"\t" + content
    return hashlib.sha1(key.encode() + content, usedforsecurity=False).hexdigest().encode() + content


def _limits(budget: PageBudget | None) -> tuple[int, int]:
    """Pages of a day and a month; -1: no limit."""
    per_day, per_month = (None, None) if budget is None else (budget.per_day, budget.per_month)
    return -1 if per_day is None else per_day, -1 if per_month is None else per_month


def _oldest_kept(day: str) -> str:
    try:
        return (date.fromisoformat(day) - KEEP_COUNTERS).isoformat()
    except (ValueError, OverflowError):
        return ""
