"""The count of callers' pages in a SQLite file, for one process or several on one machine.

Its commits survive the process; of those that a failing machine loses nobody was told more than "admitted".
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from docpreview_gateway.core.pages import Booking, PageCount, Pages, Periods, Reservation, refusing
from docpreview_gateway.limit_ports import PageBookError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from docpreview_gateway.core.callers import PageBudget

Result = TypeVar("Result")

BUSY_SECONDS = 2.0
SCHEMA_VERSION = 1
CLAIMED_AT_ONCE = 100
KEEP_SECONDS = 32 * 86400
"""How long a settled reservation is known: longer than any `request_id` is."""

_NAMES = [field.name for field in fields(Reservation)]
_SELECT = f"SELECT {', '.join(_NAMES)} FROM reservations"  # noqa: S608 - our own column names
_TABLES = f"""
CREATE TABLE IF NOT EXISTS reservations (
    id TEXT PRIMARY KEY, caller TEXT NOT NULL, pages INTEGER NOT NULL, day TEXT NOT NULL, month TEXT NOT NULL,
    bucket TEXT NOT NULL, made_at REAL NOT NULL, ledger_key TEXT NOT NULL, job_id TEXT NOT NULL,
    look_at REAL NOT NULL, open INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pages (
    caller TEXT NOT NULL, period TEXT NOT NULL, used INTEGER NOT NULL, reserved INTEGER NOT NULL,
    PRIMARY KEY (caller, period)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reservations_due ON reservations (look_at) WHERE open;
CREATE INDEX IF NOT EXISTS reservations_by_age ON reservations (made_at) WHERE NOT open;
PRAGMA user_version = {SCHEMA_VERSION};
"""


class SqlitePages:
    """The port `PageBook`. One connection in a thread of its own, so that the loop does not wait for the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pages")
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        """Open or make the file. PageBookError when it cannot be used, or was made by a newer version."""
        try:
            await self._do(self._open)
        except PageBookError:
            self._thread.shutdown()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._do(lambda _none: connection.close())
        self._thread.shutdown()

    async def reserve(self, wanted: Reservation, budget: PageBudget | None, look_at: float) -> Booking:
        """As the port says. Reservations that were settled long ago are forgotten on the way."""
        return await self._do(partial(_reserve, wanted=wanted, budget=budget, look_at=look_at))

    async def bind(self, reservation: str, job_id: str, look_at: float) -> bool:
        """As the port says."""
        return await self._do(partial(_bind, reservation=reservation, job_id=job_id, look_at=look_at))

    async def settle(self, reservation: str, pages: int) -> None:
        """As the port says."""
        await self._do(partial(_close, reservation=reservation, pages=pages))

    async def release(self, reservation: str) -> None:
        """As the port says."""
        await self._do(partial(_close, reservation=reservation, pages=None))

    async def claim(self, now: float, until: float) -> list[Reservation]:
        """As the port says."""
        return await self._do(partial(_claim, now=now, until=until))

    async def count(self, caller: str, periods: Periods) -> PageCount:
        """As the port says."""
        return await self._do(partial(_count, caller=caller, periods=periods))

    def _open(self, _nothing: object) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._refuse_newer(connection)
            connection.executescript(_TABLES)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _refuse_newer(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise PageBookError(f"{self._path}: made by a newer version of the gateway")

    async def _do(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._committed, work)
        except (sqlite3.Error, OSError, RuntimeError) as error:
            raise PageBookError(f"{self._path}: {error}") from error

    def _committed(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do `work` in one transaction; opening and closing are none."""
        connection = self._connection
        if connection is None:
            return work(None)  # type: ignore[arg-type]  # _open ignores it
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        if connection.in_transaction:
            connection.execute("COMMIT")
        return result


def _reserve(
    connection: sqlite3.Connection, *, wanted: Reservation, budget: PageBudget | None, look_at: float
) -> Booking:
    connection.execute("DELETE FROM reservations WHERE NOT open AND made_at < ?", (wanted.made_at - KEEP_SECONDS,))
    count = _count(connection, caller=wanted.caller, periods=Periods(wanted.day, wanted.month))
    if connection.execute("SELECT 1 FROM reservations WHERE id = ?", (wanted.id,)).fetchone():
        return Booking("known", count)
    refused = None if budget is None else refusing(wanted.pages, count, budget)
    if refused is not None:
        return Booking(refused, count)
    row = {**asdict(wanted), "look_at": look_at, "open": 1}
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    connection.execute(f"INSERT INTO reservations ({columns}) VALUES ({values})", row)  # noqa: S608 - our own names
    _add(connection, wanted, used=0, reserved=wanted.pages)
    return Booking("new", _count(connection, caller=wanted.caller, periods=Periods(wanted.day, wanted.month)))


def _bind(connection: sqlite3.Connection, *, reservation: str, job_id: str, look_at: float) -> bool:
    update = "UPDATE reservations SET job_id = ?, look_at = ? WHERE id = ?"
    return connection.execute(update, (job_id, look_at, reservation)).rowcount == 1


def _close(connection: sqlite3.Connection, *, reservation: str, pages: int | None) -> None:
    """Settle, or forget when `pages` is None."""
    row = connection.execute(f"{_SELECT} WHERE id = ? AND open", (reservation,)).fetchone()
    if row is None:
        return
    found = Reservation(*row)
    if pages is None:
        connection.execute("DELETE FROM reservations WHERE id = ?", (reservation,))
    else:
        connection.execute("UPDATE reservations SET open = 0 WHERE id = ?", (reservation,))
    _add(connection, found, used=pages or 0, reserved=-found.pages)


def _claim(connection: sqlite3.Connection, *, now: float, until: float) -> list[Reservation]:
    due = f"{_SELECT} WHERE open AND look_at <= ? ORDER BY look_at LIMIT ?"
    found = [Reservation(*row) for row in connection.execute(due, (now, CLAIMED_AT_ONCE)).fetchall()]
    connection.executemany("UPDATE reservations SET look_at = ? WHERE id = ?", [(until, each.id) for each in found])
    return found


def _count(connection: sqlite3.Connection, *, caller: str, periods: Periods) -> PageCount:
    rows = connection.execute(
        "SELECT period, used, reserved FROM pages WHERE caller = ? AND period IN (?, ?)", (caller, *periods)
    )
    found = {period: Pages(used, reserved) for period, used, reserved in rows}
    return PageCount(*(found.get(period, Pages()) for period in periods))


def _add(connection: sqlite3.Connection, to: Reservation, *, used: int, reserved: int) -> None:
    connection.executemany(
        "INSERT INTO pages VALUES (?, ?, ?, ?) ON CONFLICT (caller, period)"
        " DO UPDATE SET used = used + excluded.used, reserved = reserved + excluded.reserved",
        [(to.caller, period, used, reserved) for period in (to.day, to.month)],
    )
