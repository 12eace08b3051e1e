"""Buckets and their queues. The first request that names a bucket binds it and creates its default queue."""

import json
import sqlite3
from dataclasses import asdict
from hashlib import md5

from docpreview_emulator.clock import Clock
from docpreview_emulator.database import Database
from docpreview_emulator.errors import ControlError
from docpreview_emulator.model import Bucket, NotifyConfig, Queue

DEFAULT_QUEUE_NAME = "queue-doc-process-1"


def default_queue_id(bucket: Bucket) -> str:
    """The id of a bucket's queue, always the same, so that configurations can name it beforehand."""
    digest = md5(f"{bucket.name}.{bucket.region}".encode(), usedforsecurity=False)
    return "p" + digest.hexdigest()


class QueueTable:
    """Buckets and queues on disk."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

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

    def buckets(self, region: str) -> list[tuple[Bucket, float]]:
        """The bound buckets of a region, by name."""
        statement = "SELECT * FROM buckets WHERE region = ? AND bound = 1 ORDER BY bucket"
        with self._database.transaction() as connection:
            rows = connection.execute(statement, (region,)).fetchall()
        return [(Bucket(row["bucket"], row["region"]), row["created"]) for row in rows]

    def of_bucket(self, bucket: Bucket) -> list[Queue]:
        """The bucket's queues, oldest first."""
        statement = "SELECT * FROM queues WHERE bucket = ? AND region = ? ORDER BY created"
        with self._database.transaction() as connection:
            return [_queue(row) for row in connection.execute(statement, (bucket.name, bucket.region))]

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


def _queue(row: sqlite3.Row) -> Queue:
    bucket = Bucket(row["bucket"], row["region"])
    notify = NotifyConfig(**json.loads(row["notify"]))
    return Queue(row["queue_id"], bucket, row["name"], bool(row["active"]), row["created"], row["updated"], notify)
