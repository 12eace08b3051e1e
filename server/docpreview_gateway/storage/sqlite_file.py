"""A SQLite file in WAL mode. Its one connection has its own thread, so that commits do not block the event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

Result = TypeVar("Result")

BUSY_SECONDS = 2.0
BUSY_PAUSE = 0.02
_NEWER = "made by a newer version of the gateway"
SCHEMA_VERSION = 1
"""Schema version of every file that the gateway makes."""


class SqliteFile:
    """A file with `tables`. `error` makes the exception for a file that is unusable or was made by a newer version.

    `synchronous` FULL: commits survive a crash of the machine. NORMAL: they survive a crash of the process.
    """

    def __init__(
        self, path: Path, *, tables: str, synchronous: Literal["FULL", "NORMAL"], error: Callable[[str], Exception]
    ) -> None:
        self._path = path
        self._tables = tables
        self._synchronous = synchronous
        self._error = error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=path.stem)
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        try:
            self._connection = await self._run(self._open)
        except BaseException:
            self._thread.shutdown()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._run(self._connection.close)
        self._thread.shutdown()

    async def do(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run `work` without a transaction: each statement commits by itself."""
        return await self._run(partial(work, self._opened()))

    async def commit(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run `work` in one transaction, which excludes other writers."""
        return await self._run(partial(_in_transaction, self._opened(), work))

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise self._error(f"{self._path}: not open")
        return self._connection

    async def _run(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError, RuntimeError) as error:
            raise self._error(f"{self._path}: {_words(error)}") from error

    def _open(self) -> sqlite3.Connection:
        make_private(self._path)
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _write_ahead(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            self._refuse_newer(connection)
            connection.executescript(f"{self._tables}PRAGMA user_version = {SCHEMA_VERSION};")
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_newer(self, connection: sqlite3.Connection) -> None:
        if _version(connection) > SCHEMA_VERSION:
            raise self._error(f"{self._path}: {_NEWER}")


def check_usable(path: Path, error: Callable[[str], Exception]) -> None:
    """Raise what opening a file that is there would raise. It is not changed. A full disk is no reason: it may end."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        # Without its log nobody has it open, and SQLite would make a log to read it.
        how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
        with closing(sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)) as connection:
            is_newer = _version(connection) > SCHEMA_VERSION
    except (sqlite3.Error, OSError) as why:
        if is_full(why):
            return
        raise error(f"{path}: {_words(why)}") from why
    if is_newer:
        raise error(f"{path}: {_NEWER}")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _words(error: Exception) -> str:
    """An error without Python's number and the path, which stands before it."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Have the file written ahead. Of several processes that make it at once one does, and the others wait for it.

    SQLite itself does not wait there: two that both want to change the mode would wait for each other.
    """
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > give_up:
                raise
            time.sleep(BUSY_PAUSE)
        else:
            return


def _in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Result]) -> Result:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after some errors, such as a full disk, SQLite has rolled back
            connection.execute("ROLLBACK")
        raise
    return result


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, says that a file cannot grow: no room on the disk, or a limit."""
    if isinstance(error, sqlite3.Error):
        # Without room for its shared memory SQLite says that it could not write.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    return error is not None and is_full(error.__cause__)


def make_private(path: Path) -> None:
    """Make the folder and the file if they are missing. SQLite gives its files beside it the mode of the file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
