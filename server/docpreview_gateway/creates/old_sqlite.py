"""The files `ledger.db` and `pages.db` of versions before 2.0: read, closed to those versions, and put away.

Everything here blocks.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from docpreview_gateway.creates.imported import OldPages, OldStore, OldStoreError, old_create, old_reservation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LEDGER, PAGES = "ledger.db", "pages.db"
DONE_SUFFIX = ".imported"
CLOSED_VERSION = 2
"""Schema version that versions before 2.0 refuse."""

BUSY_SECONDS = 5.0
_COMPANIONS = ("-wal", "-shm")


def locked(folder: Path) -> int:
    """Wait until no other process takes this folder over. The lock ends when the returned descriptor is closed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class OldFiles:
    """Those files of a folder that are there. OldStoreError from every method, when a file cannot be used.

    `names` are those to take over. The methods are called in the order in which they stand here, each again after a
    crash.
    """

    def __init__(self, folder: Path, names: Sequence[str] = (LEDGER, PAGES)) -> None:
        self._folder = folder
        self.paths = [folder / name for name in names if (folder / name).exists()]

    def check_unused(self) -> None:
        """An old process that still has a file open would go on writing to it."""
        for path in self.paths:
            with self._opened(path) as connection:
                (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
                if mode != "delete":
                    raise OldStoreError(f"{path}: {_IN_USE}")

    def read(self) -> OldStore:
        """All that is in the files."""
        found = OldStore([], [], [])
        for path in self.paths:
            with self._opened(path) as connection:
                for row in _rows(connection, "creates"):
                    found.creates.append(old_create(row, *_named(path, "creates", "key", row)))
                for row in _rows(connection, "reservations"):
                    found.reservations.append(old_reservation(row, *_named(path, "reservations", "id", row)))
                try:
                    for row in _rows(connection, "pages"):
                        found.pages.append(OldPages(str(row["caller"]), str(row["period"]), int(row["used"])))
                except ValueError as error:
                    raise OldStoreError(f"{path}: the table `pages` cannot be taken over: {error}") from None
        return found

    def secret(self) -> bytes:
        """The secret by which requests were digested; empty: there is none (any more)."""
        for path in self.paths:
            with self._opened(path) as connection:
                for row in _rows(connection, "secret"):
                    return bytes(row["value"])
        return b""

    def source(self) -> str:
        """The name that `close` gave to these files; empty: none yet."""
        for path in self.paths:
            with self._opened(path) as connection:
                for row in _rows(connection, "import"):
                    return str(row["source"])
        return ""

    def close(self, source: str) -> None:
        """Have earlier versions refuse the files, which are named `source` from now on."""
        for path in self.paths:
            with self._opened(path) as connection:
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("CREATE TABLE IF NOT EXISTS import (source TEXT NOT NULL)")
                connection.execute("DELETE FROM import")
                connection.execute("INSERT INTO import VALUES (?)", (source,))
                connection.execute(f"PRAGMA user_version = {CLOSED_VERSION}")
                connection.execute("COMMIT")

    def put_away(self) -> None:
        """Delete the secret, and rename the files to `*.imported`."""
        for path in self.paths:
            with self._opened(path) as connection:
                if _has(connection, "secret"):
                    connection.execute("PRAGMA secure_delete = ON")
                    connection.execute("DELETE FROM secret")
            for companion in _COMPANIONS:
                if (beside := path.with_name(path.name + companion)).exists():
                    beside.replace(path.with_name(path.name + DONE_SUFFIX + companion))
            path.replace(path.with_name(path.name + DONE_SUFFIX))
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _opened(self, path: Path) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
                connection.row_factory = sqlite3.Row
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version > CLOSED_VERSION:
                    raise OldStoreError(f"{path}: made by a newer version of the gateway")
                yield connection
        except sqlite3.OperationalError as error:
            why = _IN_USE if "locked" in str(error) else str(error)
            raise OldStoreError(f"{path}: {why}") from error
        except sqlite3.Error as error:
            raise OldStoreError(f"{path}: {error}. {_MOVE_AWAY}") from error


_IN_USE = "another process has it open. Stop the gateway of the earlier version, and start again"
_MOVE_AWAY = (
    "Restore it from a backup; or move it away, and ids that it knows are forgotten, and its pages are not counted"
)


def new_source() -> str:
    """A name for old files."""
    return secrets.token_hex(8)


def _has(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
    return found.fetchone() is not None


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    if _has(connection, table):
        yield from map(dict, connection.execute(f'SELECT * FROM "{table}"'))  # noqa: S608 - our own names


def _named(path: Path, table: str, column: str, row: dict[str, Any]) -> tuple[str, str]:
    """What a row is called, and what to do about it when it cannot be read."""
    shown = str(row.get(column))
    statement = f"DELETE FROM {table} WHERE {column} = '{shown}'"  # noqa: S608 - text for the operator
    remedy = f'Delete it, and it is forgotten: sqlite3 {path} "{statement}"'
    return f"{path}: {table} {shown}", remedy
