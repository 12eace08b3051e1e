"""The journal of page leases in a SQLite file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.creates.records import RecordError, packed, unpacked
from docpreview_gateway.storage.sqlite_file import SqliteFile

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
        self._file = SqliteFile(path, tables=_TABLES, synchronous="FULL", error=StoreError)

    async def __aenter__(self) -> Self:
        """Open or create the file. StoreError when it is unusable."""
        await self._file.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._file.__aexit__(kind, error, trace)

    async def replica(self, proposed: str) -> str:
        """The name of this replica in the store: `proposed`, unless it has one."""
        return await self._file.commit(partial(_replica, proposed=proposed))

    async def add(self, record: Record) -> None:
        """Keep a record, in place of one with its key."""
        stored = packed(record, self._keys)
        await self._file.commit(partial(_run, "INSERT OR REPLACE INTO paid VALUES (?, ?)", [(record.key, stored)]))

    async def remove(self, keys: Sequence[str]) -> None:
        """Forget records."""
        await self._file.commit(partial(_run, "DELETE FROM paid WHERE key = ?", [(key,) for key in keys]))

    async def all(self) -> list[Record]:
        """The records that were not forgotten, of this process and of earlier ones."""
        rows = await self._file.do(_all)
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
