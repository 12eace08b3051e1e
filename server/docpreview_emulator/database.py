"""The emulator's SQLite database, with clear errors when it cannot be used."""

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from docpreview_emulator.errors import StorageError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  job_id TEXT NOT NULL UNIQUE,
  bucket TEXT NOT NULL,
  region TEXT NOT NULL,
  queue_id TEXT NOT NULL,
  state TEXT NOT NULL,
  created REAL NOT NULL,
  started REAL,
  ended REAL,
  code TEXT NOT NULL,
  message TEXT NOT NULL,
  spec TEXT NOT NULL,
  result TEXT,
  pinned INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_by_bucket ON jobs (bucket, region, created, sequence);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state);
CREATE TABLE IF NOT EXISTS buckets (
  bucket TEXT NOT NULL, region TEXT NOT NULL, created REAL NOT NULL, bound INTEGER NOT NULL,
  PRIMARY KEY (bucket, region)
);
CREATE TABLE IF NOT EXISTS queues (
  queue_id TEXT PRIMARY KEY, bucket TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
  active INTEGER NOT NULL, created REAL NOT NULL, updated REAL NOT NULL, notify TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE IF NOT EXISTS objects (
  bucket TEXT NOT NULL, region TEXT NOT NULL, key TEXT NOT NULL, path TEXT NOT NULL, size INTEGER NOT NULL,
  etag TEXT NOT NULL, content_type TEXT NOT NULL, modified REAL NOT NULL,
  crc64 TEXT NOT NULL DEFAULT '', metadata TEXT NOT NULL DEFAULT '{}',
  PRIMARY KEY (bucket, region, key)
);
CREATE TABLE IF NOT EXISTS multiparts (
  upload_id TEXT PRIMARY KEY, bucket TEXT NOT NULL, region TEXT NOT NULL, key TEXT NOT NULL,
  content_type TEXT NOT NULL, metadata TEXT NOT NULL, begun REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS parts (
  upload_id TEXT NOT NULL, number INTEGER NOT NULL, path TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
  modified REAL NOT NULL DEFAULT 0,
  PRIMARY KEY (upload_id, number)
);
"""

_NEWER_COLUMNS = (
    ("objects", "crc64", "TEXT NOT NULL DEFAULT ''"),
    ("objects", "metadata", "TEXT NOT NULL DEFAULT '{}'"),
    ("queues", "notify", "TEXT NOT NULL DEFAULT '{}'"),
    ("parts", "modified", "REAL NOT NULL DEFAULT 0"),
)
"""Columns that a database of an earlier version does not have, with their tables."""


class Database:
    """One connection behind a lock, so that a test's thread may control the emulator while the server's thread works.

    Opening it also takes the directory's lock file: two emulators on one directory would run every job twice.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = threading.RLock()
        self._guard = _take(directory)
        path = directory / "emulator.sqlite3"
        try:
            self._connection = _open(path)
        except sqlite3.Error as error:
            self._guard.close()
            advice = "move it away, or choose another data directory"
            raise StorageError(f"{path} is not a usable database ({error}): {advice}") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction; reads use it too.

        Raises:
            StorageError: SQLite refuses, e.g. because the disk is full.
        """
        try:
            with self._lock, self._connection:
                yield self._connection
        except sqlite3.Error as error:
            raise StorageError(f"the emulator's database cannot be used: {error}") from error

    def close(self) -> None:
        """Close the file and release the directory's lock."""
        with self._lock:
            self._connection.close()
            self._guard.close()


def _take(directory: Path) -> IO[str]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        guard = (directory / "lock").open("w", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the data directory {directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        guard.close()
        raise StorageError(f"the data directory {directory} is in use by another emulator") from error
    return guard


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        connection.executescript(_SCHEMA)
        for table, name, kind in _NEWER_COLUMNS:
            if name not in {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")}:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
