"""The loop over records that are due: outcomes of creates, charges of ended jobs, and what may be forgotten."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.creates import pages
from docpreview_gateway.creates.keys import is_unrecorded
from docpreview_gateway.creates.ports import Change, StoreError
from docpreview_gateway.creates.records import State
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import GATEWAY
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.operations import GetJob
from docpreview_gateway.upstream.wire.user_data import read_marker

if TYPE_CHECKING:
    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.lists import JobHistory
    from docpreview_gateway.creates.outcomes import Outcomes
    from docpreview_gateway.creates.ports import CallbackTrust, CreatesTelemetry, CreateStore
    from docpreview_gateway.creates.records import Record, Timing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.operations import Upstream

log = structlog.get_logger("docpreview_gateway.creates")

DUE_SIZE = 100
"""Records of one round, at most."""

CLAIM_SECONDS = 60.0
"""Seconds for which a process that has taken due records is the only one to look at them."""

FIRST_CHECK_SECONDS, LONGEST_INTERVAL_SECONDS, CHECK_TIMEOUT_SECONDS = 2.0, 300.0, 10.0
"""Least and most seconds between two looks at a job or a create, and for one look."""

OPEN_SECONDS = 600.0
"""How long a create counts as unknown after a look at it: longer than until the next one."""

FORGET_SECONDS = 3600.0
"""Between the two looks after which a record is forgotten."""

FRESH_SECONDS = 60.0
"""Age of the last `Date` by which nothing is forgotten."""

UNHEARD_SECONDS = 5.0
"""After the start of a process that no call has told the cloud's time, until it asks for it."""

MISSING_SECONDS = 86400.0
"""Seconds after which a job that the cloud does not know is charged its reserved pages."""


class Settlement:
    """Settles records. One loop per process calls `round` at intervals; failures are retried then."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        store: CreateStore,
        upstream: Upstream,
        buckets: BucketRegistry,
        *,
        outcomes: Outcomes,
        history: JobHistory,
        times: CloudTimes,
        telemetry: CreatesTelemetry,
        timing: Timing,
        keys: CreateKeys,
        callbacks: CallbackTrust | None = None,
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._buckets = buckets
        self._outcomes = outcomes
        self._history = history
        self._times = times
        self._telemetry = telemetry
        self._timing = timing
        self._keys = keys
        self._callbacks = callbacks
        self._begun_at: float | None = None
        """When the first round began (of `CloudTimes.elapsed`)."""
        self._is_failing = False
        self._open: dict[str, tuple[float, float]] = {}
        """Creates whose outcome is unknown: when they were signed, and when this process has last looked at them."""
        self._looked: dict[tuple[str, bytes, float], float] = {}
        """Expired records that were looked at once, and when (of `CloudTimes.elapsed`).

        An id that is used again has another record: a look at the first one is none at the second.
        """

    async def ended(self, marker: str) -> None:
        """Have the create of this marker looked at by the next round: its job has ended. StoreError is left to it."""
        found, now = read_marker(marker), self._times.latest()
        if found is None or now is None or not self._keys.is_ours(found) or is_unrecorded(found):
            return
        with suppress(StoreError):
            await self._store.postpone([found.key], now)

    async def round(self) -> None:
        """Settle some records that are due."""
        try:
            now = await self._now()
            if now is None:
                return
            due = await self._store.due(now, now + CLAIM_SECONDS, DUE_SIZE)
            self._note_open(due)
            oldest = min((sign_start for sign_start, _ in self._open.values()), default=None)
            self._telemetry.unreconciled(len(self._open), oldest, now)
            settled = [await self._settled(record) for record in due]
            changes = [change for change in settled if change is not None]
            if changes:
                await self._store.change(changes)
            self._is_failing = False
        except (GatewayError, StoreError) as error:
            # Once, not every two seconds of an outage.
            if not self._is_failing:
                log.warning("settlement round failed", error=str(error))
            self._is_failing = True

    def _note_open(self, due: list[Record]) -> None:
        """Note the creates whose outcome is unknown; those that nobody has looked at for long, others look at."""
        now = self._times.elapsed()
        for record in due:
            self._open.pop(record.key, None)
            if record.state is State.OPEN:
                self._open[record.key] = record.sign_end - self._timing.signature, now
        self._open = {key: noted for key, noted in self._open.items() if now - noted[1] < OPEN_SECONDS}

    async def _now(self) -> float | None:
        """The time of the cloud; None as long as it may be heard by calls. GatewayError when it cannot be asked.

        A process that gets no calls settles what earlier ones have left behind, and so asks for it.
        """
        now = self._times.latest()
        if self._begun_at is None:
            self._begun_at = self._times.elapsed()
        if now is None and self._times.elapsed() - self._begun_at > UNHEARD_SECONDS:
            for bucket in self._buckets.all()[:1]:
                await self._history.hear(bucket)
            now = self._times.latest()
        return now

    async def _settled(self, record: Record) -> Change | None:
        """The change that a due record leads to; None: it is looked at again."""
        bucket = self._buckets.find(record.bucket)
        try:
            if bucket is None:
                return await self._without_bucket(record)
            await self._hear(record, bucket)
            if record.state is State.OPEN:
                return await self._find(record, bucket)
            if record.state is State.ACCEPTED:
                return await self._charge(record, bucket)
        except (GatewayError, TimeoutError) as error:
            log.info("a create is not settled yet", key=record.key, error=str(error))
            return None
        return await self._forget(record, self._times.now(bucket.ci_host))

    async def _hear(self, record: Record, bucket: Bucket) -> None:
        """Have a `Date` of the bucket's host: a fresh one if the record may be forgotten, as the last may be wrong."""
        heard = self._times.heard(bucket.ci_host)
        stale = heard is not None and self._times.elapsed() - heard.at > FRESH_SECONDS
        if heard is None or (stale and record.state is State.CHARGED):
            await self._history.hear(bucket)

    async def _without_bucket(self, record: Record) -> Change | None:
        """A bucket that is not configured any more cannot be asked: what was reserved is charged."""
        if record.state is State.CHARGED:
            return await self._forget(record, self._times.latest() or 0.0)
        end = record.expires_at or record.sign_end + self._timing.keep
        return Change(record, replace(record.charged(record.asked), expires_at=end), end)

    async def _find(self, record: Record, bucket: Bucket) -> Change | None:
        outcome = await self._outcomes.look(record, bucket)
        if outcome.job is not None:
            await self._outcomes.finish(record, outcome.job, bucket)
            self._open.pop(record.key, None)
            return None
        if outcome.kind == "absent":
            self._open.pop(record.key, None)
            return Change(record, None)
        now = self._times.now(bucket.ci_host)
        if outcome.kind in {"ambiguous", "reused"} and now > record.sign_end + record.keep:
            # Its pages stay reserved until here: they may have been made.
            self._open.pop(record.key, None)
            return Change(record, replace(record.charged(record.asked), expires_at=now), now)
        late = now - record.sign_end - self._timing.fence_slack - self._timing.visibility
        wait = max(self._outcomes.provable_in(record, bucket), _interval(late))
        await self._store.postpone([record.key], now + wait)
        return None

    async def _charge(self, record: Record, bucket: Bucket) -> Change | None:
        # Times are by the `Date` of the job's own reply: the one before may have been wrong.
        try:
            call = Call("", loop_time() + CHECK_TIMEOUT_SECONDS, GATEWAY)
            job = await self._upstream(GetJob(bucket, record.job_id), call)
            made, queue_id = pages.made(job), job.queue_id
        except GatewayError as error:
            now = self._times.now(bucket.ci_host)
            if error.reason != reasons.ERROR_REASON_JOB_NOT_FOUND or now - record.sign_start < MISSING_SECONDS:
                raise
            made, queue_id = record.asked, ""
        if made is not None:
            return Change(record, record.charged(made), record.expires_at)
        now = self._times.now(bucket.ci_host)
        called_back = self._callbacks is not None and self._callbacks.works(bucket.name, queue_id)
        wait = LONGEST_INTERVAL_SECONDS if called_back else _interval(now - record.sign_start - 60)
        await self._store.postpone([record.key], now + wait)
        return None

    async def _forget(self, record: Record, now: float) -> Change | None:
        """Delete an expired record at the second look, an hour after the first, both by a fresh time of the cloud."""
        this = record.key, record.nonce, record.expires_at
        if record.expires_at > now:
            self._looked.pop(this, None)
            await self._store.postpone([record.key], record.expires_at)
            return None
        first = self._looked.setdefault(this, self._times.elapsed())
        if self._times.elapsed() - first < FORGET_SECONDS:
            await self._store.postpone([record.key], now + FORGET_SECONDS)
            return None
        del self._looked[this]
        return Change(record, None)


def _interval(age: float) -> float:
    """Seconds until the next look at what has been waited for so many seconds."""
    return min(LONGEST_INTERVAL_SECONDS, max(FIRST_CHECK_SECONDS, age / 4))
