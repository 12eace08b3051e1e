"""Buckets and their queues. The first request for documents that names a bucket binds it and creates its default queue.

In strict mode a bucket has to be created before.
"""

import json
import sqlite3
from collections.abc import Collection
from dataclasses import asdict
from hashlib import md5

from docpreview_emulator.clock import Clock
from docpreview_emulator.database import Database
from docpreview_emulator.errors import CloudError, ControlError, invalid_argument
from docpreview_emulator.hosts import is_bucket_name, is_region
from docpreview_emulator.model import Bucket, NotifyConfig, Queue

DEFAULT_QUEUE_NAME = "queue-doc-process-1"


def default_queue_id(bucket: Bucket) -> str:
    """The id of a bucket's queue, always the same, so that configurations can name it beforehand."""
    digest = md5(f"{bucket.name}.{bucket.region}".encode(), usedforsecurity=False)
    return "p" + digest.hexdigest()


class QueueTable:
    """Buckets and queues on disk. With `strict` only those buckets exist that were created."""

    def __init__(self, database: Database, clock: Clock, *, strict: bool = False) -> None:
        self._database = database
        self._clock = clock
        self._strict = strict

    def check(self, bucket: Bucket) -> None:
        """Check that a request may name this bucket.

        Raises:
            CloudError: 400 InvalidBucketName; in strict mode 404 NoSuchBucket, also for one of another region.
        """
        _check_name(bucket)
        if not self._strict:
            return
        regions = self._regions(bucket.name)
        if bucket.region not in regions:
            where = f"It is in {regions[0]}." if regions else "The emulator is strict: create it, by PUT / on its host."
            message = f"The specified bucket does not exist in {bucket.region}. {where}"
            raise CloudError(404, "NoSuchBucket", message)

    def create(self, bucket: Bucket) -> None:
        """Create a bucket for a request.

        Raises:
            CloudError: 400 InvalidBucketName; in strict mode 409 BucketAlreadyExists, in whatever region.
        """
        _check_name(bucket)
        if self._strict and (regions := self._regions(bucket.name)):
            raise CloudError(409, "BucketAlreadyExists", f"The bucket exists already, in {regions[0]}.")
        self.ensure(bucket)

    def delete(self, bucket: Bucket) -> None:
        """Delete a bucket; its queue is as new if it is created again.

        Raises:
            CloudError: 409 BucketNotEmpty: it has objects, or multipart uploads that have not ended.
        """
        place = (bucket.name, bucket.region)
        with self._database.transaction() as connection:
            for table, name in (("objects", "objects"), ("multiparts", "multipart uploads")):
                statement = f"SELECT 1 FROM {table} WHERE bucket = ? AND region = ? LIMIT 1"  # noqa: S608 - constants
                if connection.execute(statement, place).fetchone():
                    raise CloudError(409, "BucketNotEmpty", f"The bucket has {name}.")
            connection.execute("DELETE FROM buckets WHERE bucket = ? AND region = ?", place)
            statement = "UPDATE queues SET name = ?, active = 1, notify = '{}' WHERE bucket = ? AND region = ?"
            connection.execute(statement, (DEFAULT_QUEUE_NAME, *place))

    def _regions(self, name: str) -> list[str]:
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT region FROM buckets WHERE bucket = ? ORDER BY created", (name,))
            return [row["region"] for row in rows]

    def ensure(self, bucket: Bucket) -> None:
        """Bind a new bucket and create its default queue, as activation does in the cloud."""
        now = self._clock.now()
        queue = (default_queue_id(bucket), bucket.name, bucket.region, DEFAULT_QUEUE_NAME, now, now)
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO buckets VALUES (?, ?, ?, 1)", (bucket.name, bucket.region, now))
            connection.execute(
                "INSERT OR IGNORE INTO queues (queue_id, bucket, region, name, active, created, updated)"
                " VALUES (?, ?, ?, ?, 1, ?, ?)",
                queue,
            )

    def is_bound(self, bucket: Bucket) -> bool:
        """Whether the document service is switched on for the bucket."""
        with self._database.transaction() as connection:
            statement = "SELECT bound FROM buckets WHERE bucket = ? AND region = ?"
            row = connection.execute(statement, (bucket.name, bucket.region)).fetchone()
        return row is None or bool(row["bound"])

    def bind(self, bucket: Bucket, *, bound: bool) -> float:
        """Switch the document service on or off; the time at which the bucket was first bound."""
        self.ensure(bucket)
        statement = "UPDATE buckets SET bound = ? WHERE bucket = ? AND region = ? RETURNING created"
        with self._database.transaction() as connection:
            row = connection.execute(statement, (bound, bucket.name, bucket.region)).fetchone()
        return float(row["created"])

    def existing(self, region: str) -> list[tuple[Bucket, float]]:
        """The buckets of a region (empty: of all) by name, each with the time of its first use.

        Without strict mode these are the buckets that were created, have objects or were asked for documents.
        """
        statement = (
            "SELECT bucket, region, MIN(created) AS created FROM (SELECT bucket, region, created FROM buckets"
            " UNION ALL SELECT bucket, region, modified FROM objects) WHERE ? IN ('', region)"
            " GROUP BY bucket, region ORDER BY bucket, region"
        )
        with self._database.transaction() as connection:
            rows = connection.execute(statement, (region,)).fetchall()
        return [(Bucket(row["bucket"], row["region"]), row["created"]) for row in rows]

    def buckets(self, regions: Collection[str]) -> list[tuple[Bucket, float]]:
        """The bound buckets of these regions, or of all if there are none, by region and name."""
        statement = "SELECT * FROM buckets WHERE bound = 1 ORDER BY region, bucket"
        with self._database.transaction() as connection:
            rows = [row for row in connection.execute(statement) if not regions or row["region"] in regions]
        return [(Bucket(row["bucket"], row["region"]), row["created"]) for row in rows]

    def of_bucket(self, bucket: Bucket) -> list[Queue]:
        """The bucket's queues, oldest first."""
        statement = "SELECT * FROM queues WHERE bucket = ? AND region = ? ORDER BY created"
        with self._database.transaction() as connection:
            return [_queue(row) for row in connection.execute(statement, (bucket.name, bucket.region))]

    def paused(self) -> list[Queue]:
        """The queues that start no jobs, oldest first."""
        with self._database.transaction() as connection:
            return [_queue(row) for row in connection.execute("SELECT * FROM queues WHERE active = 0 ORDER BY created")]

    def get(self, queue_id: str) -> Queue:
        """The queue.

        Raises:
            ControlError: there is no such queue.
        """
        with self._database.transaction() as connection:
            row = connection.execute("SELECT * FROM queues WHERE queue_id = ?", (queue_id,)).fetchone()
        if row is None:
            raise ControlError(f"there is no queue {queue_id}")
        return _queue(row)

    def set_active(self, queue_id: str, *, active: bool) -> None:
        """Set whether a queue schedules jobs."""
        self.get(queue_id)
        statement = "UPDATE queues SET active = ?, updated = ? WHERE queue_id = ?"
        with self._database.transaction() as connection:
            connection.execute(statement, (active, self._clock.now(), queue_id))

    def update(self, queue_id: str, name: str, notify: NotifyConfig) -> None:
        """Set a queue's name, and whom it tells the ends of its jobs."""
        statement = "UPDATE queues SET name = ?, notify = ?, updated = ? WHERE queue_id = ?"
        with self._database.transaction() as connection:
            connection.execute(statement, (name, json.dumps(asdict(notify)), self._clock.now(), queue_id))


def _check_name(bucket: Bucket) -> None:
    if not is_region(bucket.region):
        raise invalid_argument(f"{bucket.region} is no region: it must look like ap-chongqing.")
    if not is_bucket_name(bucket.name):
        message = f"{bucket.name} is no name of a bucket: lower-case letters, digits and hyphens, then - and the APPID."
        raise CloudError(400, "InvalidBucketName", message)


def _queue(row: sqlite3.Row) -> Queue:
    bucket = Bucket(row["bucket"], row["region"])
    notify = NotifyConfig(**json.loads(row["notify"]))
    return Queue(row["queue_id"], bucket, row["name"], bool(row["active"]), row["created"], row["updated"], notify)
