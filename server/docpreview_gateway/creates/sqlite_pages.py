"""The page quota store in a SQLite file, for one process or several on one machine.

Commits survive a crash of the process. A crash of the machine may lose the latest ones, which costs only counted pages.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import partial
from typing import TYPE_CHECKING

from docpreview_gateway.creates.pages import (
    CLAIM_SIZE,
    RETENTION_SECONDS,
    PageCount,
    Pages,
    Periods,
    Reservation,
    ReservationResult,
    refusing,
)
from docpreview_gateway.creates.ports import PageQuotaStoreError
from docpreview_gateway.storage.sqlite_file import SqliteFile

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from docpreview_gateway.model.callers import PageBudget

_NAMES = [field.name for field in fields(Reservation)]
_SELECT = f"SELECT {', '.join(_NAMES)} FROM reservations"  # noqa: S608 - our own column names
_TABLES = """
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
"""


class SqlitePages:
    """The port `PageQuotaStore`."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, tables=_TABLES, synchronous="NORMAL", error=PageQuotaStoreError)

    async def __aenter__(self) -> Self:
        """Open or create the file. PageQuotaStoreError when it is unusable or was made by a newer version."""
        await self._file.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._file.__aexit__(kind, error, trace)

    async def reserve(self, wanted: Reservation, budget: PageBudget | None, due_at: float) -> ReservationResult:
        """Reserve pages, unless the reservation is known or the budget has no room. Deletes old reservations."""
        return await self._file.commit(partial(_reserve, wanted=wanted, budget=budget, due_at=due_at))

    async def bind(self, reservation: str, job_id: str, due_at: float) -> bool:
        """Record the job of a reservation and the time of its next check; whether the reservation exists."""
        return await self._file.commit(partial(_bind, reservation=reservation, job_id=job_id, due_at=due_at))

    async def charge(self, reservation: str, pages: int) -> None:
        """Charge the pages that were made, once."""
        await self._file.commit(partial(_close, reservation=reservation, pages=pages))

    async def release(self, reservation: str) -> None:
        """Delete a reservation that is not charged."""
        await self._file.commit(partial(_close, reservation=reservation, pages=None))

    async def claim(self, now: float, until: float) -> list[Reservation]:
        """Some open reservations that are due, for this process alone until `until`."""
        return await self._file.commit(partial(_claim, now=now, until=until))

    async def count(self, caller: str, periods: Periods) -> PageCount:
        """A caller's pages of these periods."""
        return await self._file.commit(partial(_count, caller=caller, periods=periods))


def _reserve(
    connection: sqlite3.Connection, *, wanted: Reservation, budget: PageBudget | None, due_at: float
) -> ReservationResult:
    connection.execute("DELETE FROM reservations WHERE NOT open AND made_at < ?", (wanted.made_at - RETENTION_SECONDS,))
    count = _count(connection, caller=wanted.caller, periods=Periods(wanted.day, wanted.month))
    if connection.execute("SELECT 1 FROM reservations WHERE id = ?", (wanted.id,)).fetchone():
        return ReservationResult("known", count)
    refused = None if budget is None else refusing(wanted.pages, count, budget)
    if refused is not None:
        return ReservationResult(refused, count)
    row = {**asdict(wanted), "look_at": due_at, "open": 1}
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    connection.execute(f"INSERT INTO reservations ({columns}) VALUES ({values})", row)  # noqa: S608 - our own names
    _add(connection, wanted, used=0, reserved=wanted.pages)
    return ReservationResult("new", _count(connection, caller=wanted.caller, periods=Periods(wanted.day, wanted.month)))


def _bind(connection: sqlite3.Connection, *, reservation: str, job_id: str, due_at: float) -> bool:
    update = "UPDATE reservations SET job_id = ?, look_at = ? WHERE id = ?"
    return connection.execute(update, (job_id, due_at, reservation)).rowcount == 1


def _close(connection: sqlite3.Connection, *, reservation: str, pages: int | None) -> None:
    """Charge the pages, or delete the reservation when `pages` is None."""
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
    found = [Reservation(*row) for row in connection.execute(due, (now, CLAIM_SIZE)).fetchall()]
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
