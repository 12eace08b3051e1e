"""What the calls of the SQLite store of creates do, each within one transaction.

What tells rows apart without reading them whole stands in columns beside the packed record; a record that is read has
to agree with them. The tables hold neither secrets nor passwords.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.creates.pages import PageCount, Pages, Periods, refusing
from docpreview_gateway.creates.ports import MAKING, Begun, Lease, SecretUse, StoreError, StoreState, UnreadableRecord
from docpreview_gateway.creates.records import Held, Index, Record, RecordError, State, index_of, packed, unpacked

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.ports import Change, Outcome, Survey
    from docpreview_gateway.model.callers import PageBudget

OPEN_AT_MOST = 100
"""Keys that `open_at` returns, at most."""

VARIABLES = 500
"""Variables of one statement, at most; every version of SQLite takes 999."""

_COLUMNS = ", ".join(Index._fields)
_SELECT = f"SELECT key, {_COLUMNS}, packed FROM creates"  # noqa: S608 - our own column names
_PUT = f"INSERT OR REPLACE INTO creates (key, {_COLUMNS}, look_at, packed) VALUES ({', '.join('?' * 14)})"  # noqa: S608
_NEW_META = "INSERT OR IGNORE INTO meta VALUES (1, lower(hex(randomblob(16))), 0, 0.0, 0.0, '');"
TABLES = f"""
CREATE TABLE IF NOT EXISTS creates (
    key TEXT PRIMARY KEY, state TEXT NOT NULL, nonce TEXT NOT NULL, caller TEXT NOT NULL, day TEXT NOT NULL,
    held INTEGER NOT NULL, used INTEGER NOT NULL, place TEXT NOT NULL, render TEXT NOT NULL, bucket TEXT NOT NULL,
    job_id TEXT NOT NULL, first_start REAL NOT NULL, look_at REAL NOT NULL, packed BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS creates_due ON creates (look_at);
CREATE INDEX IF NOT EXISTS creates_open ON creates (place) WHERE state = 'open';
CREATE INDEX IF NOT EXISTS creates_bound ON creates (bucket, job_id) WHERE job_id != '';
CREATE TABLE IF NOT EXISTS accepted (
    key TEXT PRIMARY KEY, bucket TEXT NOT NULL, created REAL NOT NULL, job_id TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS accepted_created ON accepted (bucket, created, job_id);
CREATE TABLE IF NOT EXISTS places (place TEXT PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pages (
    caller TEXT NOT NULL, period TEXT NOT NULL, used INTEGER NOT NULL, held INTEGER NOT NULL,
    PRIMARY KEY (caller, period)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    replica TEXT NOT NULL, caller TEXT NOT NULL, day TEXT NOT NULL, pages INTEGER NOT NULL, renewed_at REAL NOT NULL,
    PRIMARY KEY (replica, caller, day)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (
    id INTEGER PRIMARY KEY CHECK (id = 1), generation TEXT NOT NULL, seq INTEGER NOT NULL, cloud_mark REAL NOT NULL,
    lost_since REAL NOT NULL, day TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS secrets (id TEXT PRIMARY KEY, used_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS imports (source TEXT PRIMARY KEY) WITHOUT ROWID;
{_NEW_META}
"""


class Transaction:
    """The steps of one transaction. `changed`: something was written."""

    def __init__(self, connection: sqlite3.Connection, keys: CreateKeys) -> None:
        self._execute = connection.execute
        self._keys = keys
        self.changed = False

    def _write(self, statement: str, values: tuple[object, ...] | dict[str, object] = ()) -> int:
        """Execute a statement; the number of rows that it has changed."""
        rows = self._execute(statement, values).rowcount
        self.changed = self.changed or rows > 0
        return rows

    def raise_seq(self) -> None:
        """Raise the counter of changes, and note the secret with which they are written."""
        self._execute("UPDATE meta SET seq = seq + 1")
        self._execute("INSERT OR IGNORE INTO secrets SELECT ?, cloud_mark FROM meta", (self._keys.id,))

    def state(self) -> StoreState:
        """The store's state; one without generation when it was emptied."""
        row = self._execute("SELECT generation, seq, cloud_mark, lost_since, day FROM meta").fetchone()
        uses = tuple(SecretUse(*use) for use in self._execute("SELECT id, used_at FROM secrets ORDER BY id"))
        return StoreState(*row)._replace(secrets=uses) if row else StoreState("", 0, 0.0, 0.0, "", uses)

    def _records(self, keys: Sequence[str]) -> Iterator[Record]:
        """The records that there are of these keys. StoreError when one of them cannot be read."""
        for some, marks in _slices(keys):
            yield from map(self._read, self._execute(f"{_SELECT} WHERE key IN ({marks})", some).fetchall())

    def find(self, keys: Sequence[str]) -> list[Record | None]:
        """The records of these keys."""
        found = {record.key: record for record in self._records(keys)}
        return [found.get(key) for key in keys]

    def survey(self, found: Survey, after: str) -> str | None:
        """Add the next records after a key; the last one's key, None at the end."""
        rows = self._execute(f"{_SELECT} WHERE key > ? ORDER BY key LIMIT ?", (after, VARIABLES)).fetchall()
        for row in rows:
            try:
                found.add(self._read(row))
            except UnreadableRecord as error:
                found.unreadable[str(row[0])] = str(error)
        return rows[-1][0] if rows else None

    def _record(self, key: str) -> Record | None:
        return next(self._records([key]), None)

    def _read(self, row: tuple[object, ...]) -> Record:
        """The record of a row, if it is whole and belongs there."""
        key, *columns, stored = row
        if not isinstance(stored, bytes):
            raise UnreadableRecord(f"record {key}: it is not binary", str(key))
        try:
            record = unpacked(stored, self._keys)
        except RecordError as error:
            raise UnreadableRecord(f"record {key}: {error}", str(key)) from error
        if record.key != key or index_of(record) != tuple(columns):
            raise UnreadableRecord(f"record {key}: it is not the record of its row", str(key))
        return record

    def _put(self, record: Record, look_at: float, *, old: Record | None) -> None:
        """Insert a record, or replace `old` by it, and count its pages instead of the old one's."""
        self._write(_PUT, (record.key, *index_of(record), look_at, packed(record, self._keys)))
        if record.job_id != (old.job_id if old else "") and record.created_at:
            note = (record.key, record.bucket, record.created_at, record.job_id)
            self._write("INSERT OR REPLACE INTO accepted VALUES (?, ?, ?, ?)", note)
        if old is not None:
            self._add(old.caller, old.day, Held(-old.counts.held, -old.counts.used))
        self._add(record.caller, record.day, record.counts)

    def _delete(self, record: Record) -> None:
        """Delete a record. What it held is free again; what it used stays counted."""
        self._write("DELETE FROM creates WHERE key = ?", (record.key,))
        self._write("DELETE FROM accepted WHERE key = ?", (record.key,))
        self._write("DELETE FROM places WHERE place = ? AND key = ?", (record.place, record.key))
        self._add(record.caller, record.day, Held(held=-record.counts.held))

    def begin(
        self, record: Record, look_at: float, budget: PageBudget | None, dedupe_since: float | None, *, alone: bool
    ) -> Begun:
        """Insert an OPEN record, or find out why not."""
        outcome, found = self._refusal(record, budget, dedupe_since, alone=alone) or ("new", record)
        if outcome == "new":
            self._put(record, look_at, old=None)
            self._take_place(record)
            self._write("UPDATE meta SET day = ? WHERE day = ''", (record.day,))
        return Begun(outcome, found, self.count(record.caller, Periods(record.day, record.month)), self.state().day)

    def change(self, change: Change) -> bool:
        """Make a change if its condition holds; whether it was made."""
        old, new = change.old, change.new
        either = old or new
        stored = self._record(either.key) if either else None
        if (stored and (stored.state, stored.nonce)) != (old and (old.state, old.nonce)):
            return False
        if new is not None:
            self._put(new, change.look_at, old=stored)
            if new.state is State.OPEN:
                self._take_place(new)
        elif stored is not None:
            self._delete(stored)
        return True

    def _take_place(self, record: Record) -> None:
        if record.place:
            self._write("INSERT OR REPLACE INTO places VALUES (?, ?)", (record.place, record.key))

    def _refusal(
        self, record: Record, budget: PageBudget | None, dedupe_since: float | None, *, alone: bool
    ) -> tuple[Outcome, Record | None] | None:
        """Why the record is not inserted."""
        known = self._record(record.key)
        if known is not None:
            return "known", known
        same = None if dedupe_since is None else self._same(record, dedupe_since)
        if same is not None:
            return "duplicate", same
        occupant = self._occupant(record) if alone else None
        if occupant is not None:
            return "occupied", occupant
        if not record.day:
            return None
        if self.state().day not in {"", record.day}:
            return "period", None
        count = self.count(record.caller, Periods(record.day, record.month))
        refused = refusing(record.asked, count, budget) if budget else None
        return refused and (refused, None)

    def _same(self, record: Record, since: float) -> Record | None:
        """The record of this one's place, if it is accepted and equal in content and caller."""
        row = self._execute(
            f"{_SELECT} WHERE key = (SELECT key FROM places WHERE place = ?) AND render = ? AND render != ''"  # noqa: S608
            " AND caller = ? AND state != 'open' AND first_start >= ?",
            (record.place, record.render, record.caller, since),
        ).fetchone()
        return row and self._read(row)

    def _occupant(self, record: Record) -> Record | None:
        """The record of this one's place, if it is OPEN."""
        select = f"{_SELECT} WHERE key = (SELECT key FROM places WHERE place = ?) AND state = 'open'"  # noqa: S608
        row = self._execute(select, (record.place,)).fetchone()
        return row and self._read(row)

    def due(self, now: float, until: float, count: int) -> tuple[list[Record], dict[str, str]]:
        """The records that are due, and what is wrong with those that cannot be read: the latter alone are claimed."""
        records, unreadable = [], {}
        for row in self._execute(f"{_SELECT} WHERE look_at <= ? ORDER BY look_at LIMIT ?", (now, count)).fetchall():
            try:
                records.append(self._read(row))
            except StoreError as error:
                unreadable[row[0]] = str(error)
        self.postpone(list(unreadable) or [each.key for each in records], until)
        return records, unreadable

    def postpone(self, keys: Sequence[str], look_at: float) -> None:
        """Set when the records of these keys are due, as far as there are any."""
        for some, marks in _slices(keys):
            self._write(f"UPDATE creates SET look_at = ? WHERE key IN ({marks})", (look_at, *some))  # noqa: S608

    def open_at(self, place: str) -> list[str]:
        """Keys of the OPEN records of a place, the first hundred."""
        select = "SELECT key FROM creates WHERE state = 'open' AND place = ? LIMIT ?"
        return [key for (key,) in self._execute(select, (place, OPEN_AT_MOST))]

    def bound(self, bucket: str, job_ids: Sequence[str]) -> set[str]:
        """Those of the jobs that belong to a record."""
        found: set[str] = set()
        for some, marks in _slices(job_ids):
            select = f"SELECT job_id FROM creates WHERE bucket = ? AND job_id != '' AND job_id IN ({marks})"  # noqa: S608
            found.update(job_id for (job_id,) in self._execute(select, (bucket, *some)))
        return found

    def accepted(self, bucket: str, begin: float, end: float, count: int) -> dict[str, float]:
        """The oldest jobs of records that the cloud created in a time span, and when."""
        select = (
            "SELECT DISTINCT job_id, created FROM accepted WHERE bucket = ? AND created BETWEEN ? AND ?"
            " ORDER BY created LIMIT ?"
        )
        return dict(self._execute(select, (bucket, begin, end, count)).fetchall())

    def count(self, caller: str, periods: Periods) -> PageCount:
        """A caller's pages in these periods."""
        select = "SELECT period, used, held FROM pages WHERE caller = ? AND period IN (?, ?)"
        found = {period: Pages(used, held) for period, used, held in self._execute(select, (caller, *periods))}
        return PageCount(*(found.get(period, Pages()) for period in periods))

    def _add(self, caller: str, day: str, pages: Held) -> None:
        """Change the counters of a day and its month."""
        for period in (day, day[:7]) if day and any(pages) else ():
            self._write(
                "INSERT INTO pages VALUES (?, ?, ?, ?) ON CONFLICT (caller, period)"
                " DO UPDATE SET used = used + excluded.used, held = held + excluded.held",
                (caller, period, pages.used, pages.held),
            )

    def lease(self, lease: Lease, budget: PageBudget) -> Lease:
        """Set a lease, as far as the budget has room."""
        granted = lease._replace(pages=self._room(lease, budget))
        self._set_lease(granted)
        return granted

    def leases(self) -> list[Lease]:
        """All leases."""
        return [Lease(*row) for row in self._execute("SELECT replica, caller, day, pages, renewed_at FROM leases")]

    def _room(self, lease: Lease, budget: PageBudget) -> int:
        """The pages of a lease that the budget has room for, its present ones counted as free."""
        day, month = self.count(lease.caller, Periods(lease.day, lease.day[:7]))
        limits = ((budget.per_day, day), (budget.per_month, month))
        rooms = [limit - sum(pages) + self._leased(lease) for limit, pages in limits if limit is not None]
        return max(0, min([lease.pages, *rooms]))

    def _leased(self, lease: Lease) -> int:
        row = self._execute("SELECT pages FROM leases WHERE (replica, caller, day) = (?, ?, ?)", lease[:3]).fetchone()
        return row[0] if row else 0

    def _set_lease(self, lease: Lease) -> None:
        """Replace a lease. Its pages count as held."""
        self._add(lease.caller, lease.day, Held(held=lease.pages - self._leased(lease)))
        if lease.pages:
            self._write("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", lease)
        else:
            self._write("DELETE FROM leases WHERE (replica, caller, day) = (?, ?, ?)", lease[:3])

    def hand_over(self, lease: Lease, records: Sequence[tuple[Record, float]]) -> None:
        """Insert those records whose key is not there, and take their pages out of the lease."""
        spent = 0
        for record, look_at in records:
            if self._record(record.key) is None:
                self._put(record, look_at, old=None)
                spent += sum(record.counts)
        left = self._leased(lease)
        taken = min(left, spent)
        if taken:
            self._add(lease.caller, lease.day, Held(held=-taken))
            update = "UPDATE leases SET pages = pages - ? WHERE (replica, caller, day) = (?, ?, ?)"
            self._write(update, (taken, *lease[:3]))
            self._write("DELETE FROM leases WHERE pages = 0")

    def take_over(
        self, source: str, records: Sequence[tuple[Record, float]], used: Sequence[tuple[str, str, int]]
    ) -> bool:
        """Insert those records whose key is not there, and count the used pages, unless the source was taken over."""
        if not self._write("INSERT OR IGNORE INTO imports VALUES (?)", (source,)):
            return False
        for record, look_at in records:
            if self._record(record.key) is None:
                self._put(record, look_at, old=None)
        for each in used:
            self._write(
                "INSERT INTO pages VALUES (?, ?, ?, 0) ON CONFLICT (caller, period)"
                " DO UPDATE SET used = used + excluded.used",
                each,
            )
        return True

    def advance(self, old: str, new: str) -> str:
        """Count to `new` if the store counts to `old` and `new` is later; the day to which it counts then."""
        self._write("UPDATE meta SET day = :new WHERE day = :old AND :new > :old", {"old": old, "new": new})
        return self.state().day

    def mark(self, cloud_mark: float) -> None:
        """The records are complete up to this cloud's time."""
        self._write("UPDATE meta SET cloud_mark = max(cloud_mark, ?)", (cloud_mark,))
        self._execute("INSERT OR REPLACE INTO secrets SELECT ?, cloud_mark FROM meta", (self._keys.id,))

    def drop_secrets(self, ids: Sequence[str]) -> None:
        """Forget that these secrets were used."""
        for name in ids:
            self._execute("DELETE FROM secrets WHERE id = ?", (name,))

    def begin_rebuild(self, now: float) -> StoreState:
        """Note a loss, unless one is noted; an emptied store gets a generation."""
        if self._write(_NEW_META) or now != MAKING:
            self._write("UPDATE meta SET lost_since = ? WHERE lost_since = 0", (now,))
        return self.state()

    def end_rebuild(self, lost_since: float, cloud_mark: float, used: Sequence[tuple[str, str, int]]) -> bool:
        """Raise the counts and end the rebuild, unless it was ended before."""
        update = "UPDATE meta SET lost_since = 0, cloud_mark = max(cloud_mark, ?) WHERE lost_since = ?"
        if not lost_since or not self._write(update, (cloud_mark, lost_since)):
            return False
        for each in used:
            self._write(
                "INSERT INTO pages VALUES (?, ?, ?, 0) ON CONFLICT (caller, period)"
                " DO UPDATE SET used = max(used, excluded.used)",
                each,
            )
        return True


def _slices(values: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The values in slices, with a `?` for each."""
    for start in range(0, len(values), VARIABLES):
        some = tuple(values[start : start + VARIABLES])
        yield some, ", ".join("?" * len(some))
