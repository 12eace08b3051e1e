"""The store of creates in a SQLite file, for one process or several on one machine.

Each call is one transaction, which is on the disk when it returns; what it does is in `sqlite_transaction.py`.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from docpreview_gateway.creates.ports import SecretUse, StoreError, StoreLost, Survey, UnknownSecret, UnreadableRecord
from docpreview_gateway.creates.secret_use import problem
from docpreview_gateway.creates.sqlite_transaction import TABLES, Transaction
from docpreview_gateway.storage.sqlite_file import SqliteFile, is_full, make_private

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.pages import PageCount, Periods
    from docpreview_gateway.creates.ports import Begun, Change, Lease, StoreState
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.model.callers import PageBudget

Result = TypeVar("Result")


class SqliteCreates:
    """The port `CreateStore`. The file and its folder are made for this user alone (0600 and 0700).

    A file that was deleted or replaced while it is open is a lost store: `state` and `begin_rebuild` open the new one.
    """

    def __init__(self, path: Path, keys: CreateKeys) -> None:
        self._path = path
        self._keys = keys
        self._file = self._new_file()
        self._identity = (0, 0)
        self._opening = asyncio.Lock()
        self._expected: StoreState | None = None

    async def __aenter__(self) -> Self:
        """Open or create the file. StoreError when it is unusable or was made by a newer version.

        On a full disk it is left to the next `state`: what needs no store goes on meanwhile.
        """
        try:
            await self._open()
        except StoreError as error:
            if not is_full(error):
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._file.__aexit__(kind, error, trace)

    async def state(self) -> StoreState:
        """The present state, which is expected from now on."""
        return await self._renew(Transaction.state)

    async def begin(
        self,
        record: Record,
        look_at: float,
        budget: PageBudget | None,
        *,
        dedupe_since: float | None,
        alone: bool = False,
    ) -> Begun:
        """Insert an OPEN record, or say why not."""
        return await self._do(lambda step: step.begin(record, look_at, budget, dedupe_since, alone=alone))

    async def change(self, changes: Sequence[Change]) -> list[bool]:
        """Make those changes whose condition holds; which were made."""
        return await self._do(lambda step: [step.change(each) for each in changes])

    async def find(self, keys: Sequence[str]) -> list[Record | None]:
        """The records of these keys."""
        return await self._do(lambda step: step.find(keys))

    async def due(self, now: float, until: float, count: int) -> list[Record]:
        """Claim records that are due. When some cannot be read they alone are claimed, and StoreError names them."""
        records, unreadable = await self._do(lambda step: step.due(now, until, count))
        if unreadable:
            raise UnreadableRecord("; ".join(unreadable.values()), *unreadable)
        return records

    async def postpone(self, keys: Sequence[str], look_at: float) -> None:
        """Set when these records are due next."""
        await self._do(lambda step: step.postpone(keys, look_at))

    async def open_at(self, place: str) -> list[str]:
        """Keys of the OPEN records of a place."""
        return await self._do(lambda step: step.open_at(place))

    async def bound(self, bucket: str, job_ids: Sequence[str]) -> set[str]:
        """Those of the jobs that belong to a record."""
        return await self._do(lambda step: step.bound(bucket, job_ids))

    async def accepted(self, bucket: str, begin: float, end: float, count: int) -> dict[str, float]:
        """Jobs of records that the cloud created in a time span, and when."""
        return await self._do(lambda step: step.accepted(bucket, begin, end, count))

    async def count(self, caller: str, periods: Periods) -> PageCount:
        """A caller's pages in these periods."""
        return await self._do(lambda step: step.count(caller, periods))

    async def advance(self, old: str, new: str) -> str:
        """Count to the day `new` instead of `old`; the day that the store counts to then."""
        return await self._do(lambda step: step.advance(old, new))

    async def lease(self, lease: Lease, budget: PageBudget) -> Lease:
        """Set a lease, as far as the budget has room."""
        return await self._do(lambda step: step.lease(lease, budget))

    async def leases(self) -> list[Lease]:
        """All leases."""
        return await self._do(lambda step: step.leases())

    async def hand_over(self, lease: Lease, records: Sequence[tuple[Record, float]]) -> None:
        """Insert records that were paid from a lease."""
        await self._do(lambda step: step.hand_over(lease, records))

    async def survey(self) -> Survey:
        """Read all records, some in each transaction: creates go on in between."""
        found = Survey({}, {})
        key: str | None = ""
        while key is not None:
            key = await self._do(partial(Transaction.survey, found=found, after=key))
        return found

    async def mark(self, cloud_mark: float) -> None:
        """The records are complete up to this cloud's time."""
        await self._do(lambda step: step.mark(cloud_mark))

    async def begin_rebuild(self, now: float) -> StoreState:
        """Note a loss, unless one is noted, and expect the store's generation from now on."""
        return await self._renew(lambda step: step.begin_rebuild(now))

    async def end_rebuild(self, lost_since: float, cloud_mark: float, used: Sequence[tuple[str, str, int]]) -> bool:
        """End a rebuild; whether it had not been ended before."""
        return await self._do(lambda step: step.end_rebuild(lost_since, cloud_mark, used))

    async def take_over(
        self, source: str, records: Sequence[tuple[Record, float]], used: Sequence[tuple[str, str, int]]
    ) -> bool:
        """Insert what an earlier version has left; False when that was done before."""
        return await self._do(lambda step: step.take_over(source, records, used))

    async def drop_secrets(self, ids: Sequence[str]) -> None:
        """Forget that these secrets were used, although records may be made with them that nobody finds then."""
        await self._do(lambda step: step.drop_secrets(ids))

    async def _do(self, work: Callable[[Transaction], Result]) -> Result:
        """One transaction in the store that is expected. StoreLost when it is another one."""
        result, state = await self._file.commit(partial(self._step, work=work, expected=self._expected, known=True))
        known = self._expected
        if known is not None and known.generation == state.generation and known.seq < state.seq:
            self._expected = state
        return result

    async def _renew(self, work: Callable[[Transaction], Result]) -> Result:
        """One transaction in the store that is there, which is expected from now on."""
        async with self._opening:
            if _identity(self._path) != self._identity:
                await self._file.__aexit__(None, None, None)
                self._file = self._new_file()
                await self._open()
        result, self._expected = await self._file.commit(partial(self._step, work=work, expected=None, known=False))
        return result

    def _step(
        self,
        connection: sqlite3.Connection,
        *,
        work: Callable[[Transaction], Result],
        expected: StoreState | None,
        known: bool,
    ) -> tuple[Result, StoreState]:
        step = Transaction(connection, self._keys)
        if known:
            if _identity(self._path) != self._identity:
                raise StoreLost(f"{self._path}: the file was deleted or replaced")
            _check(step.state(), expected, self._path, self._keys.ids)
        result = work(step)
        if step.changed:
            step.raise_seq()
        return result, step.state()

    def _new_file(self) -> SqliteFile:
        return SqliteFile(self._path, tables=TABLES, synchronous="FULL", error=StoreError)

    async def _open(self) -> None:
        try:
            make_private(self._path)
        except OSError as error:
            raise StoreError(f"{self._path}: {error}") from error
        await self._file.__aenter__()
        self._identity = _identity(self._path)


def _check(state: StoreState, expected: StoreState | None, path: Path, ids: Collection[str]) -> None:
    if not state.generation:
        raise StoreLost(f"{path}: the store was emptied")
    if expected is None:
        return
    if state.generation != expected.generation:
        raise StoreLost(f"{path}: the store was replaced by another one")
    if state.seq < expected.seq:
        raise StoreLost(f"{path}: the store has lost changes: it is at {state.seq} and was at {expected.seq}")
    known = {*ids, *(use.id for use in expected.secrets)}
    if missing := [SecretUse(use.id, 0.0) for use in state.secrets if use.id not in known]:
        raise UnknownSecret(f"{path}: {problem(missing)}")


def _identity(path: Path) -> tuple[int, int]:
    """Which file it is; (0, 0) when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - what SQLite opens, by the same call
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
