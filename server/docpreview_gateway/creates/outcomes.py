"""Outcomes of creates that were sent: the job, proof that there is none, or neither.

Nobody owns a record: whoever looks may find the job. Absence is concluded only from a complete list that was asked for
after the attempt's signature has ended by the cloud's clock, by a process that has itself watched the attempt for as
long. One of the two alone falls to a single wrong `Date`, or to a signature that was made ahead of its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

from docpreview_gateway.creates import evidence
from docpreview_gateway.creates.ports import Change, StoreError
from docpreview_gateway.creates.records import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.lists import JobHistory, Listing
    from docpreview_gateway.creates.ports import CreatesTelemetry, CreateStore, Webhooks
    from docpreview_gateway.creates.records import Record, Timing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.upstream.cloud_clock import CloudTimes

log = structlog.get_logger("docpreview_gateway.creates")

FIRST_LOOK_SECONDS = 2.0
"""From the acceptance of a job to the first look whether it has ended."""

SPREAD_SECONDS = 97
"""By how much the beginnings of the lists of one create's looks may differ."""

MOST_WATCHED = 100_000

MOST_NAMED = 10
"""Candidates of a log line."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a look found. `job` of `found`; `candidates` of `ambiguous`, which the outcome may be."""

    kind: Literal["found", "reused", "absent", "ambiguous", "unknown"]
    job: PreviewJob | None = None
    candidates: tuple[PreviewJob, ...] = ()


@dataclass(slots=True)
class _Attempt:
    """What this process knows of an attempt: since when, and the outcome that it has logged."""

    since: float
    told: str = ""


class Outcomes:
    """Finds the outcomes of OPEN records."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        store: CreateStore,
        history: JobHistory,
        keys: CreateKeys,
        times: CloudTimes,
        *,
        telemetry: CreatesTelemetry,
        timing: Timing,
        is_exclusive: Callable[[Bucket], bool],
        webhooks: Webhooks | None = None,
    ) -> None:
        self._store = store
        self._history = history
        self._keys = keys
        self._times = times
        self._telemetry = telemetry
        self._timing = timing
        self._is_exclusive = is_exclusive
        self._webhooks = webhooks
        self._watched: dict[bytes, _Attempt] = {}

    def watch(self, record: Record) -> None:
        """Note since when this process knows of the attempt."""
        if record.nonce not in self._watched:
            if len(self._watched) >= MOST_WATCHED:
                del self._watched[next(iter(self._watched))]
            self._watched[record.nonce] = _Attempt(self._times.elapsed())

    def provable_in(self, record: Record, bucket: Bucket) -> float:
        """Seconds until a list can prove that the attempt made no job; at least 1."""
        timing, now = self._timing, self._times.now(bucket.ci_host)
        by_date = record.sign_end + timing.fence_slack + timing.visibility - now
        known = self._watched.get(record.nonce)
        watched = self._times.elapsed() - known.since if known is not None else 0.0
        return max(1.0, by_date + 2.0, timing.watch - watched)

    async def look(self, record: Record, bucket: Bucket) -> Outcome:
        """The outcome of an OPEN record, by a list. GatewayError of the list, StoreError: it stays unknown.

        An outcome that becomes known is logged, once for each attempt: an ambiguous one is found again by every look.
        """
        self.watch(record)
        attempt = self._watched[record.nonce]
        outcome = await self._look(record, bucket, self._times.elapsed() - attempt.since)
        if outcome.kind in {"found", "absent", "ambiguous"} and outcome.kind != attempt.told:
            attempt.told = outcome.kind
            self._tell(record, outcome)
        return outcome

    async def _look(self, record: Record, bucket: Bucket, watched: float) -> Outcome:
        """The outcome of an attempt that this process has watched for so many seconds."""
        slack = self._timing.fence_slack
        # Each look asks for a little more, so that no cache on the way has its answer already.
        begin = record.first_start - slack - int(self._times.elapsed()) % SPREAD_SECONDS
        end = record.sign_end + slack
        listing = await self._history.read(bucket, begin, end)
        lag = await self._lag(bucket, listing, begin, end) if listing.complete else None
        is_over = watched >= self._timing.watch and self._is_over(listing, record)
        if is_over and not self._history.echoes(bucket):
            # The list shows no job of ours, and so nothing about the echo. A longer one may.
            await self._history.read(bucket, begin - 3600, begin)
        echo = self._history.echoes(bucket)
        found = evidence.weigh(record, listing.jobs, self._keys, slack=slack, echo=echo)
        if isinstance(found, evidence.Found):
            self._report(record, found)
            return Outcome("found", found.job)
        if isinstance(found, evidence.Reused):
            return Outcome("reused")
        if lag is None or not is_over:
            return Outcome("unknown")
        if lag:
            log.warning("a list of the cloud lacks jobs that it has accepted", bucket=bucket.name, seconds=round(lag))
            return Outcome("unknown")
        return await self._conclude(found, record, bucket)

    async def _conclude(self, found: evidence.Maybe | evidence.Nothing, record: Record, bucket: Bucket) -> Outcome:
        """The outcome by a list that shows all that was made in the create's window."""
        if isinstance(found, evidence.Maybe):
            # In this order: a create that is recorded between the two has its job in the second.
            is_alone = await self._is_alone(record, bucket)
            if unbound := await self._unbound(found, record):
                return self._judge(found, unbound, is_alone=is_alone)
            if not await self._is_open(record):
                # Another look has found its job meanwhile: that is one of those that are bound.
                return Outcome("unknown")
        self._telemetry.ledger("absent")
        return Outcome("absent")

    async def finish(self, record: Record, job: PreviewJob, bucket: Bucket) -> Record:
        """Record the job of an OPEN record, unless it is recorded. Returns the record with it. StoreError."""
        accepted = record.accepted(job, self._times.now(bucket.ci_host))
        self._history.accepted(job)
        # It was accepted before its signature ended, whatever the last `Date` says: a wrong one puts nothing off.
        latest = record.sign_end + self._timing.fence_slack
        look_at = min(self._times.now(bucket.ci_host), latest) + FIRST_LOOK_SECONDS
        if accepted.state is State.CHARGED:
            look_at = accepted.expires_at
        if webhook := record.read_request().webhook:
            # First: a record that says so is not looked at again for this.
            await self.promise(record.caller, webhook, job)
        await self._store.change([Change(record, accepted, look_at)])
        self._watched.pop(record.nonce, None)
        return accepted

    async def promise(self, caller: str, webhook: str, job: PreviewJob) -> None:
        """Keep that the webhook of a create is to be told of the job's end; nothing without one. StoreError."""
        if webhook and self._webhooks is not None:
            await self._webhooks.promise(caller, webhook, job)

    async def _lag(self, bucket: Bucket, listing: Listing, begin: float, end: float) -> float | None:
        """Seconds since the oldest recorded job was created that the list should show and does not; 0: it shows all.

        None when the store cannot tell: what the list shows counts all the same.
        """
        shown = {each.job.job_id for each in listing.jobs}
        try:
            # Of so many jobs at least one is missing, if there are as many.
            recorded = await self._store.accepted(bucket.name, begin, end, len(shown) + 1)
        except StoreError:
            return None
        missing = [created for job_id, created in recorded.items() if job_id not in shown]
        lag = self._times.now(bucket.ci_host) - min(missing) if missing else 0.0
        self._telemetry.list_lag(bucket.name, lag)
        return lag

    def _is_over(self, listing: Listing, record: Record) -> bool:
        timing = self._timing
        return listing.as_of is not None and listing.as_of > record.sign_end + timing.fence_slack + timing.visibility

    async def _unbound(self, found: evidence.Maybe, record: Record) -> list[PreviewJob]:
        bound = await self._store.bound(record.bucket, [job.job_id for job in found.jobs])
        return [job for job in found.jobs if job.job_id not in bound]

    async def _is_open(self, record: Record) -> bool:
        (standing,) = await self._store.find([record.key])
        return standing is not None and (standing.state, standing.nonce) == (record.state, record.nonce)

    async def _is_alone(self, record: Record, bucket: Bucket) -> bool:
        """Whether no other program makes jobs in the bucket, and no other create of the place is open."""
        return self._is_exclusive(bucket) and not {*await self._store.open_at(record.place)} - {record.key}

    def _judge(self, found: evidence.Maybe, unbound: list[PreviewJob], *, is_alone: bool) -> Outcome:
        """Jobs that may be the create's: one is taken only where nobody else can have made it."""
        if is_alone and len(unbound) == 1 and unbound[0] in found.surely:
            return Outcome("found", unbound[0])
        self._telemetry.ledger("ambiguous")
        return Outcome("ambiguous", candidates=tuple(unbound))

    @staticmethod
    def _tell(record: Record, outcome: Outcome) -> None:
        told: dict[str, object] = {} if outcome.job is None else {"job_id": outcome.job.job_id}
        if outcome.candidates:
            told["candidates"] = [job.job_id for job in outcome.candidates[:MOST_NAMED]]
        # Not a warning: repeated ones are suppressed, and each of these is of another create.
        log.info(
            "the outcome of a create is known",
            outcome=outcome.kind,
            caller=record.caller,
            bucket=record.bucket,
            key=record.key,
            **told,
        )

    def _report(self, record: Record, found: evidence.Found) -> None:
        self._telemetry.ledger("found")
        for job in found.duplicates:
            self._telemetry.ledger("duplicate")
            log.error("a create has a second job", key=record.key, job_id=found.job.job_id, second_job_id=job.job_id)
