"""The ledger of creates in a SQLite file. Every commit is on the disk before it is acknowledged."""

from __future__ import annotations

import secrets
from dataclasses import astuple, fields
from functools import partial
from typing import TYPE_CHECKING

from docpreview_gateway.creates.ports import LedgerError
from docpreview_gateway.creates.records import Record, Stage
from docpreview_gateway.storage.sqlite_file import SqliteFile

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_COLUMNS = [field.name for field in fields(Record)]
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM creates"  # noqa: S608 - our own column names
_INSERT = f"INSERT OR REPLACE INTO creates VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_UPDATE = f"UPDATE creates SET {', '.join(f'{name} = ?' for name in _COLUMNS)}"  # noqa: S608
_STILL_OWNED = " WHERE key = ? AND owner = ? AND attempt = ?"
_DELETE = "DELETE FROM creates" + _STILL_OWNED  # noqa: S608
_OPEN_STAGES = f"stage IN ('{Stage.SENT}', '{Stage.UNKNOWN}')"
_UNFINISHED = f"stage != '{Stage.ACCEPTED}'"
_TABLES = f"""
CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY CHECK (id = 1), value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS creates (
    key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, marker TEXT NOT NULL, target TEXT NOT NULL, request BLOB NOT NULL,
    stage TEXT NOT NULL, owner TEXT NOT NULL, attempt INTEGER NOT NULL, lease_until REAL NOT NULL,
    expires_at REAL NOT NULL, sent_at REAL NOT NULL, fence REAL NOT NULL, job BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS creates_unfinished ON creates (target) WHERE {_UNFINISHED};
CREATE INDEX IF NOT EXISTS creates_by_end ON creates (expires_at);
"""


class SqliteLedger:
    """The port `RequestLedger`."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, tables=_TABLES, synchronous="FULL", error=LedgerError)

    async def __aenter__(self) -> Self:
        """Open or create the file. LedgerError when it is unusable or was made by a newer version."""
        await self._file.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._file.__aexit__(kind, error, trace)

    async def secret(self) -> bytes:
        """The ledger's random key, made when it is first asked for."""
        return await self._file.do(_secret)

    async def begin(self, record: Record, now: float) -> Record:
        """Commit a record unless its key has an unexpired one; the record that stands. Deletes expired records."""
        return await self._file.commit(partial(_begin, record=record, now=now))

    async def replace(self, old: Record, new: Record) -> bool:
        """Commit `new` if owner and attempt of `old` still stand; whether they did."""
        return await self._file.do(partial(_replace, old=old, new=new))

    async def remove(self, record: Record) -> None:
        """Delete a record if its owner and attempt still stand."""
        await self._file.do(partial(_remove, record=record))

    async def open(self, now: float) -> list[Record]:
        """Records that were sent, have no outcome, and whose lease has ended."""
        return await self._file.do(partial(_rows, where=f"{_OPEN_STAGES} AND lease_until <= ?", values=(now,)))

    async def find(self, key: str) -> Record | None:
        """The record of a key, if there is one."""
        found = await self._file.do(partial(_rows, where="key = ?", values=(key,)))
        return found[0] if found else None

    async def others_open(self, record: Record) -> bool:
        """Whether another create of the same target has no outcome."""
        where = f"target = ? AND key != ? AND {_UNFINISHED}"
        return bool(await self._file.do(partial(_rows, where=where, values=(record.target, record.key))))


def _secret(connection: sqlite3.Connection) -> bytes:
    connection.execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", (secrets.token_bytes(32),))
    (value,) = connection.execute("SELECT value FROM secret").fetchone()
    return bytes(value)


def _begin(connection: sqlite3.Connection, *, record: Record, now: float) -> Record:
    connection.execute("DELETE FROM creates WHERE expires_at <= ?", (now,))
    found = _rows(connection, where="key = ?", values=(record.key,))
    if not found:
        connection.execute(_INSERT, astuple(record))
    return found[0] if found else record


def _replace(connection: sqlite3.Connection, *, old: Record, new: Record) -> bool:
    done = connection.execute(_UPDATE + _STILL_OWNED, (*astuple(new), old.key, old.owner, old.attempt))
    return done.rowcount == 1


def _remove(connection: sqlite3.Connection, *, record: Record) -> None:
    connection.execute(_DELETE, (record.key, record.owner, record.attempt))


def _rows(connection: sqlite3.Connection, *, where: str, values: tuple[object, ...]) -> list[Record]:
    rows = connection.execute(f"{_SELECT} WHERE {where}", values).fetchall()
    return [_record(dict(zip(_COLUMNS, row, strict=True))) for row in rows]


def _record(row: dict[str, object]) -> Record:
    return Record(**{**row, "stage": Stage(str(row["stage"]))})  # type: ignore[arg-type]  # the table has the types
