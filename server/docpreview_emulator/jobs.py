"""The table of jobs: every change of a job's state is one conditional statement here."""

import json
import secrets
import sqlite3
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from docpreview_emulator.clock import Clock
from docpreview_emulator.database import Database
from docpreview_emulator.errors import ControlError, invalid_argument
from docpreview_emulator.model import Bucket, Callback, Job, JobResult, JobSpec, Output, PageInfo, State
from docpreview_emulator.requests import ListQuery

if TYPE_CHECKING:
    from collections.abc import Callable


class JobTable:
    """Jobs on disk. `on_change` is called with a job's id after each change, in the thread that made it."""

    def __init__(self, database: Database, clock: Clock, retention: float, list_delay: float = 0.0) -> None:
        self._database = database
        self._clock = clock
        self._retention = retention
        self._list_delay = list_delay
        self._running_until: dict[str, float] = {}
        self.on_change: list[Callable[[str], None]] = []

    def add(self, bucket: Bucket, queue_id: str, spec: JobSpec, *, paused: bool) -> Job:
        """Accept a job, which the cloud would bill."""
        job_id = "d" + secrets.token_hex(16)
        row = (job_id, bucket.name, bucket.region, queue_id, State.PAUSE if paused else State.SUBMITTED)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO jobs (job_id, bucket, region, queue_id, state, created, code, message, spec)"
                " VALUES (?, ?, ?, ?, ?, ?, 'Success', '', ?)",
                (*row, self._clock.now(), self._stored(spec)),
            )
        self._changed(job_id)
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """The job, even if it has expired.

        Raises:
            ControlError: there is no such job.
        """
        with self._database.transaction() as connection:
            row = connection.execute("SELECT * FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        if row is None:
            raise ControlError(f"there is no job {job_id}")
        return self._job(row)

    def find(self, bucket: Bucket, job_id: str) -> Job | None:
        """The job if it is this bucket's and not expired."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT * FROM jobs WHERE job_id = ? AND bucket = ? AND region = ? AND created > ?",
                (job_id, bucket.name, bucket.region, self._horizon()),
            ).fetchone()
        job = self._job(row) if row else None
        if job is not None and time.monotonic() < self._running_until.get(job_id, 0.0):
            return replace(job, state=State.RUNNING, ended=None, result=None)
        return job

    def show_running(self, job_id: str, seconds: float) -> None:
        """Make `find` show a job as running for so many seconds, though it has ended."""
        self._running_until[job_id] = time.monotonic() + seconds

    def all(self) -> list[Job]:
        """Every job of every bucket, oldest first."""
        with self._database.transaction() as connection:
            return [self._job(row) for row in connection.execute("SELECT * FROM jobs ORDER BY created, sequence")]

    def newest(self, limit: int, skip: int, state: str = "") -> list[tuple[str, str, float | None]]:
        """Id, state and end of jobs of all buckets, newest first; with `state` those of that state only."""
        condition, values = ("WHERE state = ?", (state,)) if state else ("", ())
        statement = f"SELECT job_id, state, ended FROM jobs {condition} ORDER BY sequence DESC LIMIT ? OFFSET ?"  # noqa: S608
        with self._database.transaction() as connection:
            return [tuple(row) for row in connection.execute(statement, (*values, limit, skip))]

    def page(self, bucket: Bucket, query: ListQuery) -> tuple[list[Job], str]:
        """One page of a bucket's jobs and the token of the next, which is empty at the end."""
        clauses = ["bucket = ?", "region = ?", "created > ?"]
        values: list[object] = [bucket.name, bucket.region, self._horizon()]
        if self._list_delay:
            clauses.append("created <= ?")
            values.append(self._clock.now() - self._list_delay)
        for clause, value in _filters(query):
            clauses.append(clause)
            values.extend(value)
        with self._database.transaction() as connection:
            if query.next_token is not None:
                clauses.append("(created, sequence) > (?, ?)" if query.ascending else "(created, sequence) < (?, ?)")
                values.extend(_position(connection, bucket, query.next_token))
            order = "ASC" if query.ascending else "DESC"
            # Only clauses written in this module are joined; every value is bound.
            statement = (
                f"SELECT * FROM jobs WHERE {' AND '.join(clauses)} ORDER BY created {order}, sequence {order} LIMIT ?"  # noqa: S608
            )
            rows = connection.execute(statement, (*values, query.size + 1)).fetchall()
        token = str(rows[query.size - 1]["sequence"]) if len(rows) > query.size > 0 else ""
        return [self._job(row) for row in rows[: query.size]], token

    def unfinished(self) -> list[Job]:
        """Jobs that are waiting or were running when an emulator stopped, oldest first."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT * FROM jobs WHERE state IN (?, ?, ?) AND pinned = 0 ORDER BY sequence",
                (State.SUBMITTED, State.RUNNING, State.PAUSE),
            )
            return [self._job(row) for row in rows]

    def start(self, job_id: str) -> bool:
        """Submitted becomes Running; False when the job is not waiting any more."""
        waiting = f"'{State.SUBMITTED}', '{State.RUNNING}'"
        return self._change(
            job_id,
            f"state = '{State.RUNNING}', started = ? WHERE job_id = ? AND pinned = 0 AND state IN ({waiting})",
            (self._clock.now(),),
        )

    def succeed(self, job_id: str, result: JobResult) -> bool:
        """Running becomes Success, with its warnings as message; False when its state was set by a control request."""
        values = (self._clock.now(), " ".join(result.warnings), json.dumps(asdict(result)))
        return self._change(job_id, f"state = '{State.SUCCESS}', ended = ?, message = ?, result = ? {_RUNNING}", values)

    def fail(self, job_id: str, code: str, message: str) -> bool:
        """Running becomes Failed; False as for `succeed`."""
        values = (self._clock.now(), code, message)
        return self._change(job_id, f"state = '{State.FAILED}', ended = ?, code = ?, message = ? {_RUNNING}", values)

    def set_state(self, job_id: str, state: State, code: str, message: str) -> None:
        """Set a job's state; the scheduler ignores the job from then on."""
        now = self._clock.now()
        started = now if state not in {State.SUBMITTED, State.PAUSE} else None
        values = (state, started, now if state.is_final else None, code, message)
        setting = (
            "state = ?, started = COALESCE(started, ?), ended = ?, code = ?, message = ?, pinned = 1 WHERE job_id = ?"
        )
        if not self._change(job_id, setting, values):
            raise ControlError(f"there is no job {job_id}")

    def set_paused(self, queue_id: str, *, paused: bool) -> None:
        """Waiting jobs of a queue show `Pause` while it is paused and `Submitted` again afterwards."""
        new, old = (State.PAUSE, State.SUBMITTED) if paused else (State.SUBMITTED, State.PAUSE)
        statement = "UPDATE jobs SET state = ? WHERE queue_id = ? AND state = ? AND pinned = 0 RETURNING job_id"
        with self._database.transaction() as connection:
            changed = [row["job_id"] for row in connection.execute(statement, (new, queue_id, old))]
        for job_id in changed:
            self._changed(job_id)

    def accepted(self) -> int:
        """Number of jobs ever accepted in this data directory, expired ones included."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
        return int(row["seq"]) if row else 0

    def counts(self) -> dict[str, int]:
        """Number of jobs in each state."""
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT state, COUNT(*) AS number FROM jobs GROUP BY state")
            return {row["state"]: row["number"] for row in rows}

    def delete_expired(self) -> None:
        """Delete expired jobs."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM jobs WHERE created <= ?", (self._horizon(),))

    def _stored(self, spec: JobSpec) -> str:
        plain = asdict(spec)
        plain["process"]["DocPassword"] = self._database.passwords.seal(spec.process["DocPassword"])
        return json.dumps(plain)

    def _job(self, row: sqlite3.Row) -> Job:
        spec = _spec(json.loads(row["spec"]))
        spec.process["DocPassword"] = self._database.passwords.open(spec.process["DocPassword"])
        return Job(
            job_id=row["job_id"],
            bucket=Bucket(row["bucket"], row["region"]),
            queue_id=row["queue_id"],
            spec=spec,
            state=State(row["state"]),
            created=row["created"],
            started=row["started"],
            ended=row["ended"],
            code=row["code"],
            message=row["message"],
            result=_result(json.loads(row["result"])) if row["result"] else None,
        )

    def _horizon(self) -> float:
        return self._clock.now() - self._retention

    def _change(self, job_id: str, setting: str, values: tuple[object, ...]) -> bool:
        with self._database.transaction() as connection:
            changed = connection.execute(f"UPDATE jobs SET {setting}", (*values, job_id)).rowcount > 0  # noqa: S608
        if changed:
            self._changed(job_id)
        return changed

    def _changed(self, job_id: str) -> None:
        for listener in list(self.on_change):
            listener(job_id)


_RUNNING = f"WHERE job_id = ? AND pinned = 0 AND state = '{State.RUNNING}'"


def _filters(query: ListQuery) -> list[tuple[str, tuple[object, ...]]]:
    """SQL conditions of a list. Times are compared in whole seconds, the resolution that clients see."""
    filters: list[tuple[str, tuple[object, ...]]] = []
    if query.queue_id:
        filters.append(("queue_id = ?", (query.queue_id,)))
    if query.states:
        filters.append((f"state IN ({', '.join('?' * len(query.states))})", query.states))
    if query.created_from is not None:
        filters.append(("CAST(created AS INTEGER) >= ?", (query.created_from,)))
    if query.created_to is not None:
        filters.append(("CAST(created AS INTEGER) <= ?", (query.created_to,)))
    return filters


def _position(connection: sqlite3.Connection, bucket: Bucket, token: int) -> tuple[float, int]:
    row = connection.execute(
        "SELECT created, sequence FROM jobs WHERE sequence = ? AND bucket = ? AND region = ?",
        (token, bucket.name, bucket.region),
    ).fetchone()
    if row is None:
        raise invalid_argument("nextToken is not from a list of this bucket.")
    return row["created"], row["sequence"]


def _spec(stored: dict[str, Any]) -> JobSpec:
    callback = None if stored.get("callback") is None else Callback(**stored["callback"])
    return JobSpec(**{**stored, "output": Output(**stored["output"]), "callback": callback})


def _result(stored: dict[str, Any]) -> JobResult:
    pages = tuple(PageInfo(**page) for page in stored["pages"])
    return JobResult(**{**stored, "pages": pages, "warnings": tuple(stored.get("warnings", ()))})
