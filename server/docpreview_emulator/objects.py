"""Object store: metadata in the database, bytes in files. Objects are written atomically."""

import asyncio
import contextlib
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from typing import IO

from docpreview_emulator.clock import Clock
from docpreview_emulator.crc64 import Crc64
from docpreview_emulator.database import Database
from docpreview_emulator.errors import CloudError, StorageError
from docpreview_emulator.listings import KeyPage, KeyQuery, page_of
from docpreview_emulator.model import Bucket, StoredObject
from docpreview_emulator.private_files import create_private, private_folder


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"the emulator's disk cannot be used: {error.strerror}") from error


ANY_TYPE = "application/octet-stream"
_CHUNK = 1024 * 1024
_INSERT = (
    "INSERT OR REPLACE INTO objects (bucket, region, key, path, size, etag, content_type, modified, crc64, metadata) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Properties:
    """Properties of an object that is put; an empty `etag` is the MD5 of its bytes.

    `metadata` are its headers that come back, such as `x-cos-meta-*`. Unless it `replaces`, there must be no older
    object.
    """

    content_type: str = ANY_TYPE
    metadata: Mapping[str, str] = field(default_factory=dict)
    replaces: bool = True
    etag: str = ""


def already_exists() -> CloudError:
    """The refusal to replace an object."""
    return CloudError(409, "FileAlreadyExists", "The object exists already, and the request forbids to overwrite it.")


class Upload:
    """An upload in progress: `write` its bytes, then `ObjectTable.finish` or `discard` it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._digest = md5(usedforsecurity=False)
        self._crc64 = Crc64()
        with _disk():
            self._file: IO[bytes] = create_private(path)

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            StorageError: the disk cannot be written.
        """
        with _disk():
            self._file.write(data)
        self._digest.update(data)
        self._crc64.update(data)
        self.size += len(data)

    @property
    def digest(self) -> bytes:
        """The MD5 of the written bytes."""
        return self._digest.digest()

    @property
    def crc64(self) -> str:
        """The CRC-64 of the written bytes, in decimal."""
        return self._crc64.decimal

    def close(self) -> None:
        """Close the file; no more bytes follow."""
        with _disk():
            self._file.close()

    def discard(self) -> None:
        """Delete the upload."""
        with contextlib.suppress(OSError):  # its buffer could not be written; the file is deleted anyway
            self._file.close()
        self.path.unlink(missing_ok=True)


class ObjectTable:
    """Every bucket's objects."""

    def __init__(self, database: Database, directory: Path, clock: Clock) -> None:
        self._database = database
        self._directory = directory
        self._clock = clock
        self.on_put: list[Callable[[StoredObject], None]] = []
        with _disk():
            private_folder(directory)

    def begin(self) -> Upload:
        """A new upload, in a file without a key."""
        return Upload(self._directory / secrets.token_hex(16))

    def finish(self, upload: Upload, bucket: Bucket, key: str, properties: Properties) -> StoredObject:
        """Store an upload under a key, replacing an older object.

        Raises:
            CloudError: 409 FileAlreadyExists: there is an older object, and it must not be replaced.
        """
        upload.close()
        etag = properties.etag or upload.digest.hex()
        path, crc64 = upload.path.name, upload.crc64
        now = self._clock.now()
        metadata = dict(properties.metadata)
        stored = StoredObject(bucket, key, path, upload.size, etag, properties.content_type, now, crc64, metadata)
        row = (
            *(bucket.name, bucket.region, key, path, upload.size, etag, properties.content_type, now, crc64),
            json.dumps(metadata),
        )
        with self._database.transaction() as connection:
            older = self.find(bucket, key)
            if older is not None and not properties.replaces:
                raise already_exists()
            connection.execute(_INSERT, row)
        self._drop(older)
        for notice in self.on_put:
            notice(stored)
        return stored

    def put(self, bucket: Bucket, key: str, data: bytes, content_type: str = ANY_TYPE) -> StoredObject:
        """Store an object from bytes."""
        upload = self.begin()
        try:
            upload.write(data)
            return self.finish(upload, bucket, key, Properties(content_type))
        except BaseException:
            upload.discard()
            raise

    def put_file(self, bucket: Bucket, key: str, source: Path, content_type: str) -> StoredObject:
        """Store a file that a worker wrote as an object."""
        return self.put(bucket, key, _read(source), content_type)

    def find(self, bucket: Bucket, key: str) -> StoredObject | None:
        """The object's metadata."""
        statement = "SELECT * FROM objects WHERE bucket = ? AND region = ? AND key = ?"
        with self._database.transaction() as connection:
            row = connection.execute(statement, (bucket.name, bucket.region, key)).fetchone()
        return _object(row) if row else None

    def page(self, bucket: Bucket, query: KeyQuery) -> KeyPage[StoredObject]:
        """A page of the bucket's objects, in order of their keys' bytes."""
        statement = (
            "SELECT * FROM objects WHERE bucket = ? AND region = ? AND key > ? AND key >= ? AND substr(key, 1, ?) = ?"
            " ORDER BY key"
        )
        values = (bucket.name, bucket.region, query.marker, query.prefix, len(query.prefix), query.prefix)
        with self._database.transaction() as connection:
            rows = connection.execute(statement, values)
            return page_of(((row["key"], _object(row)) for row in rows), query)

    def read(self, stored: StoredObject) -> bytes:
        """The object's bytes."""
        return _read(self.path(stored))

    async def read_range(self, stored: StoredObject, first: int, last: int) -> bytes:
        """The object's bytes from `first` to `last`, both included, though it be replaced meanwhile."""
        with _disk(), self.path(stored).open("rb") as file:
            file.seek(first)
            return await asyncio.to_thread(file.read, last - first + 1)

    async def copy(self, stored: StoredObject, upload: Upload, first: int = 0, last: int | None = None) -> None:
        """Write the object's bytes, or those from `first` to `last`, to an upload.

        Raises:
            CloudError: 404 NoSuchKey: the object was replaced or deleted meanwhile.
        """
        left = (stored.size if last is None else last + 1) - first
        try:
            await asyncio.to_thread(_pour, self.path(stored), first, left, upload)
        except FileNotFoundError:
            raise CloudError(404, "NoSuchKey", "The source was replaced or deleted while it was copied.") from None

    def path(self, stored: StoredObject) -> Path:
        """The file that holds the object's bytes."""
        return self._directory / stored.path

    def delete(self, bucket: Bucket, key: str) -> None:
        """Remove an object if it is there."""
        stored = self.find(bucket, key)
        statement = "DELETE FROM objects WHERE bucket = ? AND region = ? AND key = ?"
        with self._database.transaction() as connection:
            connection.execute(statement, (bucket.name, bucket.region, key))
        self._drop(stored)

    def count(self) -> int:
        """Number of objects."""
        with self._database.transaction() as connection:
            return int(connection.execute("SELECT COUNT(*) FROM objects").fetchone()[0])

    def sweep(self) -> None:
        """Remove files of no object and no part: uploads that a crash interrupted."""
        with self._database.transaction() as connection:
            statement = "SELECT path FROM objects UNION SELECT path FROM parts"
            named = {row["path"] for row in connection.execute(statement)}
        with _disk():
            for path in self._directory.iterdir():
                if path.name not in named:
                    path.unlink(missing_ok=True)

    def _drop(self, stored: StoredObject | None) -> None:
        if stored is not None:
            self.path(stored).unlink(missing_ok=True)


def _pour(path: Path, first: int, left: int, upload: Upload) -> None:
    with path.open("rb") as file:
        file.seek(first)
        while left and (data := file.read(min(left, _CHUNK))):
            upload.write(data)
            left -= len(data)


def _read(path: Path) -> bytes:
    with _disk():
        return path.read_bytes()


def _object(row: sqlite3.Row) -> StoredObject:
    bucket = Bucket(row["bucket"], row["region"])
    facts = (row["key"], row["path"], row["size"], row["etag"], row["content_type"], row["modified"], row["crc64"])
    return StoredObject(bucket, *facts, json.loads(row["metadata"]))
