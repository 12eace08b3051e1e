"""The emulator's SQLite database, with clear errors when it cannot be used."""

import fcntl
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from docpreview_emulator.errors import StorageError
from docpreview_emulator.passwords import Passwords
from docpreview_emulator.private_files import create_private

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

_SEALED = 1
"""The version of a database whose passwords of documents are sealed."""


class Database:
    """One connection behind a lock, so that a test's thread may control the emulator while the server's thread works.

    Opening it also takes the directory's lock file: two emulators on one directory would run every job twice.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = threading.RLock()
        self._guard = _take(directory)
        path = directory / "emulator.sqlite3"
        self.passwords = Passwords(directory / "passwords.key")
        """What seals passwords of documents before they are stored here."""
        try:
            self.passwords.check()
            self._connection = _open(path)
            _seal_older(self._connection, self.passwords)
        except StorageError:
            self._guard.close()
            raise
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


def _take(directory: Path) -> IO[bytes]:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        guard = create_private(directory / "lock")
    except OSError as error:
        raise StorageError(f"the data directory {directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        guard.close()
        raise StorageError(f"the data directory {directory} is in use by another emulator") from error
    return guard


def _open(path: Path) -> sqlite3.Connection:
    path.touch(0o600)
    path.chmod(0o600)  # files that SQLite puts beside it have its mode
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


def _seal_older(connection: sqlite3.Connection, passwords: Passwords) -> None:
    """Seal the passwords that an earlier version stored in clear, and leave no trace of them in the files."""
    if connection.execute("PRAGMA user_version").fetchone()[0] >= _SEALED:
        return
    found = False
    with connection:
        for row in connection.execute("SELECT job_id, spec FROM jobs").fetchall():
            spec = json.loads(row["spec"])
            password = spec["process"].get("DocPassword")
            if password:
                found = True
                spec["process"]["DocPassword"] = passwords.seal(password)
                connection.execute("UPDATE jobs SET spec = ? WHERE job_id = ?", (json.dumps(spec), row["job_id"]))
        connection.execute(f"PRAGMA user_version = {_SEALED}")
    if found:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
