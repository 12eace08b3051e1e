"""The queue of deliveries in a SQLite file, for the processes of one machine."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.storage.sqlite_file import SqliteFile
from docpreview_gateway.webhooks.deliveries import Depth, packed, read

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.webhooks.deliveries import Delivery, Unreadable

_TABLES = """
CREATE TABLE IF NOT EXISTS deliveries (
  id TEXT PRIMARY KEY, due REAL NOT NULL, lease INTEGER NOT NULL, promised_at REAL NOT NULL, ended_at REAL NOT NULL,
  stored BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (due);
"""


class SqliteDeliveries:
    """The port `DeliveryQueue`. The file is made by the first `put`: without webhooks there is none."""

    def __init__(self, path: Path, keys: CreateKeys, clock: Clock) -> None:
        self._path = path
        self._keys = keys
        self._clock = clock
        self._file: SqliteFile | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close the file, if it is open."""
        if self._file is not None:
            await self._file.__aexit__(None, None, None)
            self._file = None

    async def _opened(self) -> SqliteFile:
        async with self._opening:
            if self._file is None:
                file = SqliteFile(self._path, tables=_TABLES, synchronous="FULL", error=StoreError)
                self._file = await file.__aenter__()
            return self._file

    async def _existing(self) -> SqliteFile | None:
        """The file, if there is one."""
        return await self._opened() if self._file is not None or self._path.exists() else None

    async def put(self, delivery: Delivery, delay: float) -> None:
        """Keep a delivery, unless there is one of its id."""
        due, stored = self._clock.now() + delay, packed(delivery, self._keys)
        values = (delivery.id, due, delivery.promised_at, delivery.ended_at, stored)
        await (await self._opened()).commit(partial(_changed, _PUT, values))

    async def take(self, count: int, lease_seconds: float) -> list[Delivery | Unreadable]:
        """Take deliveries that are due."""
        file, now = await self._existing(), self._clock.now()
        if file is None or not await file.do(partial(_is_due, now)):
            return []
        rows = await file.commit(partial(_taken, now, now + lease_seconds, count))
        return [read(*row, self._keys) for row in rows]

    async def replace(self, delivery: Delivery, delay: float) -> bool:
        """Keep this in place of the delivery that was taken."""
        values = (
            self._clock.now() + delay,
            delivery.ended_at,
            packed(delivery, self._keys),
            delivery.id,
            delivery.lease,
        )
        statement = "UPDATE deliveries SET due = ?, ended_at = ?, stored = ? WHERE id = ? AND lease = ?"
        return await (await self._opened()).commit(partial(_changed, statement, values)) == 1

    async def put_off(self, delivery: Delivery | Unreadable, delay: float) -> bool:
        """Have a delivery that was taken due later."""
        values = (self._clock.now() + delay, delivery.id, delivery.lease)
        statement = "UPDATE deliveries SET due = ? WHERE id = ? AND lease = ?"
        return await (await self._opened()).commit(partial(_changed, statement, values)) == 1

    async def remove(self, delivery: Delivery | Unreadable) -> bool:
        """Forget a delivery that was taken."""
        statement = "DELETE FROM deliveries WHERE id = ? AND lease = ?"
        return await (await self._opened()).commit(partial(_changed, statement, (delivery.id, delivery.lease))) == 1

    async def hasten(self, ids: Sequence[str]) -> None:
        """Make deliveries due at once that wait for the ends of their jobs."""
        file = await self._existing()
        if file is None:
            return
        marks = ", ".join("?" * len(ids))
        statement = f"UPDATE deliveries SET due = ? WHERE ended_at = 0 AND id IN ({marks})"  # noqa: S608 - marks only
        await file.commit(partial(_changed, statement, (self._clock.now(), *ids)))

    async def depth(self) -> Depth:
        """What the queue holds."""
        file = await self._existing()
        return Depth(0, 0, None) if file is None else await file.do(_depth)


_PUT = "INSERT OR IGNORE INTO deliveries (id, due, lease, promised_at, ended_at, stored) VALUES (?, ?, 0, ?, ?, ?)"


def _changed(statement: str, values: tuple[object, ...], connection: sqlite3.Connection) -> int:
    return connection.execute(statement, values).rowcount


def _is_due(now: float, connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM deliveries WHERE due <= ? LIMIT 1", (now,)).fetchone() is not None


def _taken(now: float, until: float, count: int, connection: sqlite3.Connection) -> list[tuple[str, int, float, bytes]]:
    statement = "SELECT id, lease + 1, promised_at, stored FROM deliveries WHERE due <= ? ORDER BY due LIMIT ?"
    rows = connection.execute(statement, (now, count)).fetchall()
    update = "UPDATE deliveries SET due = ?, lease = ? WHERE id = ?"
    connection.executemany(update, [(until, lease, name) for name, lease, *_ in rows])
    return rows


def _depth(connection: sqlite3.Connection) -> Depth:
    statement = (
        "SELECT COUNT(*) FILTER (WHERE ended_at = 0), COUNT(*) FILTER (WHERE ended_at > 0),"
        " MIN(ended_at) FILTER (WHERE ended_at > 0) FROM deliveries"
    )
    return Depth(*connection.execute(statement).fetchone())
