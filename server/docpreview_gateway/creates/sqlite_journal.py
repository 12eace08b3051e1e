"""The journal of page leases in a SQLite file."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.creates.records import RecordError, packed, unpacked
from docpreview_gateway.storage.sqlite_file import SqliteFile, is_full

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.records import Record

_TABLES = """
CREATE TABLE IF NOT EXISTS paid (key TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replica (id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL);
"""


class SqliteJournal:
    """The port `Journal`."""

    def __init__(self, path: Path, keys: CreateKeys) -> None:
        self._keys = keys
        self._path = path
        self._file: SqliteFile | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Open or create the file. StoreError when it is unusable. On a full disk each call tries again."""
        try:
            await self._opened()
        except StoreError as error:
            if not is_full(error):
                raise
        return self

    async def _opened(self) -> SqliteFile:
        async with self._opening:
            if self._file is None:
                file = SqliteFile(self._path, tables=_TABLES, synchronous="FULL", error=StoreError)
                self._file = await file.__aenter__()
            return self._file

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            await self._file.__aexit__(kind, error, trace)

    async def replica(self, proposed: str) -> str:
        """The name of this replica in the store: `proposed`, unless it has one.

        On a full disk, too, where it cannot be kept: leases of the name before end as those of a replica that is gone.
        """
        try:
            return await (await self._opened()).commit(partial(_replica, proposed=proposed))
        except StoreError as error:
            if not is_full(error):
                raise
            return proposed

    async def add(self, record: Record) -> None:
        """Keep a record, in place of one with its key."""
        stored = packed(record, self._keys)
        file = await self._opened()
        await file.commit(partial(_run, "INSERT OR REPLACE INTO paid VALUES (?, ?)", [(record.key, stored)]))

    async def remove(self, keys: Sequence[str]) -> None:
        """Forget records."""
        file = await self._opened()
        await file.commit(partial(_run, "DELETE FROM paid WHERE key = ?", [(key,) for key in keys]))

    async def all(self) -> list[Record]:
        """The records that were not forgotten, of this process and of earlier ones."""
        file = await self._opened()
        rows = await file.do(_all)
        try:
            return [unpacked(stored, self._keys) for _, stored in rows]
        except RecordError as error:
            raise StoreError(f"journal of page leases: {error}") from error


def _run(statement: str, values: list[tuple[object, ...]], connection: sqlite3.Connection) -> None:
    connection.executemany(statement, values)


def _all(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
    return connection.execute("SELECT key, record FROM paid").fetchall()


def _replica(connection: sqlite3.Connection, *, proposed: str) -> str:
    connection.execute("INSERT OR IGNORE INTO replica VALUES (1, ?)", (proposed,))
    (name,) = connection.execute("SELECT name FROM replica").fetchone()
    return str(name)
