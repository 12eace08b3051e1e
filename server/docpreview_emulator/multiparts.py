"""Multipart uploads: parts in files of the object store, and the object that is made of them."""

import asyncio
import json
import secrets
import sqlite3
from collections.abc import Sequence
from hashlib import md5
from pathlib import Path

from docpreview_emulator.clock import Clock
from docpreview_emulator.database import Database
from docpreview_emulator.errors import CloudError
from docpreview_emulator.listings import KeyPage, KeyQuery, page_of
from docpreview_emulator.model import Bucket, Multipart, Part, StoredObject
from docpreview_emulator.objects import ObjectTable, Properties, Upload

MIN_PART_BYTES = 1024 * 1024
"""Bytes that every part but the last must have (vendor document 436/7742)."""

MAX_PARTS = 10_000
_CHUNK = 1024 * 1024


class MultipartTable:
    """Every bucket's multipart uploads."""

    def __init__(self, database: Database, objects: ObjectTable, directory: Path, clock: Clock) -> None:
        self._database = database
        self._objects = objects
        self._directory = directory
        self._clock = clock

    def begin(self, bucket: Bucket, key: str, properties: Properties) -> str:
        """Begin an upload. Returns its id."""
        upload_id = secrets.token_hex(32)
        facts = (properties.content_type, json.dumps(dict(properties.metadata)), self._clock.now())
        with self._database.transaction() as connection:
            row = (upload_id, bucket.name, bucket.region, key, *facts)
            connection.execute("INSERT INTO multiparts VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return upload_id

    def all(self) -> list[tuple[Multipart, list[Part]]]:
        """The uploads that have not ended, with their parts, in order of their begin."""
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT * FROM multiparts ORDER BY begun").fetchall()
        found = [_multipart(row) for row in rows]
        return [(multipart, self.parts(multipart)) for multipart in found]

    def page(self, bucket: Bucket, query: KeyQuery, after_id: str) -> KeyPage[Multipart]:
        """A page of the bucket's uploads, by key and begin: after those of the key `query.marker`.

        With `after_id`, an upload of that key, those of the key that were begun after it are shown too.
        """
        statement = "SELECT * FROM multiparts WHERE bucket = ? AND region = ? ORDER BY key, begun, upload_id"
        with self._database.transaction() as connection:
            found = [_multipart(row) for row in connection.execute(statement, (bucket.name, bucket.region))]
        passed = [n for n, each in enumerate(found) if each.upload_id == after_id and each.key == query.marker]
        first = passed[0] + 1 if passed else sum(each.key <= query.marker for each in found)
        shown = [each for each in found[first:] if each.key.startswith(query.prefix)]
        return page_of(((each.key, each) for each in shown), query)

    def find(self, bucket: Bucket, key: str, upload_id: str) -> Multipart:
        """An upload of this object.

        Raises:
            CloudError: 404 NoSuchUpload: it was never begun, or is completed or aborted.
        """
        statement = "SELECT * FROM multiparts WHERE upload_id = ? AND bucket = ? AND region = ? AND key = ?"
        with self._database.transaction() as connection:
            row = connection.execute(statement, (upload_id, bucket.name, bucket.region, key)).fetchone()
        if row is None:
            raise CloudError(404, "NoSuchUpload", "The specified multipart upload does not exist.")
        return _multipart(row)

    def put(self, multipart: Multipart, number: int, upload: Upload) -> str:
        """Store a part, replacing an older one of its number. Returns its ETag.

        Raises:
            CloudError: 404 NoSuchUpload: the upload ended while the part was received.
        """
        self._require(multipart)
        upload.close()
        etag = upload.digest.hex()
        older = {part.number: part for part in self.parts(multipart)}.get(number)
        with self._database.transaction() as connection:
            row = (multipart.upload_id, number, upload.path.name, upload.size, etag, self._clock.now())
            connection.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?)", row)
        if older is not None:
            self._delete_file(older)
        return etag

    def parts(self, multipart: Multipart) -> list[Part]:
        """The parts that were put, by number."""
        statement = "SELECT number, path, size, etag, modified FROM parts WHERE upload_id = ? ORDER BY number"
        with self._database.transaction() as connection:
            return [Part(*row) for row in connection.execute(statement, (multipart.upload_id,))]

    async def complete(
        self, multipart: Multipart, named: Sequence[tuple[int, str]], *, replaces: bool = True
    ) -> StoredObject:
        """Make the object of the parts that are named by number and ETag.

        Of several completions at a time one makes the object; the others find the upload gone.

        Raises:
            CloudError: 400 InvalidPart, InvalidPartOrder or EntityTooSmall; 404 NoSuchUpload; 409 FileAlreadyExists.
        """
        chosen = _chosen(self.parts(multipart), named)
        upload = self._objects.begin()
        try:
            try:
                await asyncio.to_thread(self._join, chosen, upload)
            except FileNotFoundError:
                self._require(multipart)
                raise CloudError(400, "InvalidPart", "A part was replaced while the object was made.") from None
            self._require(multipart)  # nothing is awaited from here until the upload is gone
            digest = md5(b"".join(bytes.fromhex(part.etag) for part in chosen), usedforsecurity=False).hexdigest()
            etag = f"{digest}-{len(chosen)}"
            properties = Properties(multipart.content_type, multipart.metadata, replaces, etag)
            stored = self._objects.finish(upload, multipart.bucket, multipart.key, properties)
        except BaseException:
            upload.discard()
            raise
        self.abort(multipart)
        return stored

    def abort(self, multipart: Multipart) -> None:
        """Forget an upload and delete its parts."""
        parts = self.parts(multipart)
        with self._database.transaction() as connection:
            for table in ("parts", "multiparts"):
                connection.execute(f"DELETE FROM {table} WHERE upload_id = ?", (multipart.upload_id,))  # noqa: S608 - constants
        for part in parts:
            self._delete_file(part)

    def _require(self, multipart: Multipart) -> None:
        self.find(multipart.bucket, multipart.key, multipart.upload_id)

    def _join(self, parts: Sequence[Part], upload: Upload) -> None:
        for part in parts:
            with (self._directory / part.path).open("rb") as file:
                while data := file.read(_CHUNK):
                    upload.write(data)

    def _delete_file(self, part: Part) -> None:
        (self._directory / part.path).unlink(missing_ok=True)


def _multipart(row: sqlite3.Row) -> Multipart:
    bucket = Bucket(row["bucket"], row["region"])
    facts = (row["content_type"], json.loads(row["metadata"]), row["begun"])
    return Multipart(row["upload_id"], bucket, row["key"], *facts)


def _chosen(stored: Sequence[Part], named: Sequence[tuple[int, str]]) -> list[Part]:
    numbers = [number for number, _ in named]
    if numbers != sorted(set(numbers)):
        raise CloudError(400, "InvalidPartOrder", "The list of parts is not in ascending order of their numbers.")
    if numbers != list(range(1, len(numbers) + 1)):
        raise CloudError(400, "InvalidPart", "The numbers of the parts are not continuous from 1.")
    by_number = {part.number: part for part in stored}
    chosen = [by_number[number] for number in numbers if number in by_number]
    etags = [etag.strip().strip('"') for _, etag in named]
    if not named or [part.etag for part in chosen] != etags:
        raise CloudError(400, "InvalidPart", "A part is missing, or its ETag is not the one that is given.")
    if any(part.size < MIN_PART_BYTES for part in chosen[:-1]):
        raise CloudError(400, "EntityTooSmall", "A part other than the last is smaller than the minimum.")
    return chosen
