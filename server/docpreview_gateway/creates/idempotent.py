"""Creates that never bill twice.

Without `request_id` a create is one attempt. With it the create is recorded before its first byte leaves, a repeated
request gets the first job, and an unknown outcome is cleared up by looking for the job, never by sending blindly.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates import records as ledger
from docpreview_gateway.creates.ports import LedgerError
from docpreview_gateway.creates.reconciliation import Reconciliation
from docpreview_gateway.creates.records import Record, Stage
from docpreview_gateway.model.call import ResponseInfo
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.storage.background import BackgroundTasks
from docpreview_gateway.upstream.operations import CreateJob
from docpreview_gateway.upstream.wire import user_data

if TYPE_CHECKING:
    from docpreview_gateway.access.bucket_registry import Admitted, BucketRegistry
    from docpreview_gateway.creates.ports import CreatesTelemetry, RequestLedger
    from docpreview_gateway.creates.records import Timing
    from docpreview_gateway.model.call import Call, Clock
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.upstream.operations import Upstream

log = structlog.get_logger("docpreview_gateway.ledger")

ATTEMPT_SECONDS = 30.0
"""How long a recorded create may work on in the background, whatever its caller's deadline."""

BUSY_POLL = 0.2
"""Seconds between looks at a create that another replica works on."""


@dataclass(frozen=True, slots=True)
class _Work:
    """A create with `request_id` as it was admitted, the first call for it, and the record that it would begin with."""

    admitted: Admitted
    call: Call
    record: Record


class IdempotentCreates:
    """Creates with and without `request_id`. `owner` names this process among all that share the ledger."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        upstream: Upstream,
        buckets: BucketRegistry,
        records: RequestLedger,
        *,
        clock: Clock,
        telemetry: CreatesTelemetry,
        timing: Timing,
        owner: str,
    ) -> None:
        self._upstream = upstream
        self._buckets = buckets
        self._records = records
        self._telemetry = telemetry
        self._clock = clock
        self._timing = timing
        self._owner = owner
        self._reconciliation = Reconciliation(upstream, records, clock=clock, telemetry=telemetry, timing=timing)
        self._background = BackgroundTasks()
        self._running: dict[str, tuple[asyncio.Task[PreviewJob], bytes]] = {}

    async def create(self, request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        """Submit a job, or return the one that an equal request submitted before."""
        admitted = self._buckets.admit_create(request, call.caller)
        if not request.request_id:
            return await self._upstream(CreateJob(*admitted), call)
        # The record is of the caller's own words: a policy that changes in between makes no second job.
        work = _Work(admitted, call, await self._new_record(request, call.caller))
        task, fingerprint = self._running.get(work.record.key) or self._start(work)
        if fingerprint != work.record.fingerprint:
            raise _reused()
        # The work goes on when this caller leaves: between SENT and its outcome nobody may pull the plug.
        await asyncio.wait((task,), timeout=call.answer_by - time.monotonic())
        if not task.done():
            raise _in_progress()
        error = task.exception()
        if error is not None:
            raise error.with_traceback(None)
        return task.result()

    async def reconcile(self) -> None:
        """Clear up what others left open: find the job of an unknown create, or forget it when there is none for sure.

        Nothing is sent. Called at intervals by one loop per process; the next round tries again what failed in this.
        """
        try:
            await self._reconcile_abandoned()
        except LedgerError as error:
            log.warning("reconciliation round failed", error=str(error))

    async def _reconcile_abandoned(self) -> None:
        records = await self._records.open(self._clock.now())
        oldest = min((record.sent_at for record in records), default=None)
        self._telemetry.unreconciled(len(records), oldest, self._clock.now())
        for record in records:
            bucket = self._buckets.find(CreatePreviewJobRequest.FromString(record.request).bucket)
            mine = record.taken_over(self._owner, self._clock.now(), self._timing)
            if bucket is None or not await self._records.replace(record, mine):
                continue
            try:
                outcome = await self._reconciliation.find_outcome(mine, bucket)
            except GatewayError as error:
                log.warning("reconciliation of a create failed", key=record.key[:12], error=error.message)
                continue
            if isinstance(outcome, Record):
                await self._records.remove(outcome)

    async def drained(self) -> None:
        """Wait until no recorded create is between its stages."""
        await self._background.drain()

    async def _new_record(self, request: CreatePreviewJobRequest, caller: Caller) -> Record:
        try:
            secret = await self._records.secret()
        except LedgerError as error:
            raise _ledger_unavailable(error) from None
        now = self._clock.now()
        return ledger.new_record(
            request, caller=caller.name, secret=secret, owner=self._owner, now=now, timing=self._timing
        )

    def _start(self, work: _Work) -> tuple[asyncio.Task[PreviewJob], bytes]:
        key = work.record.key
        task = self._background.start(self._run(work), "recorded create")
        self._running[key] = task, work.record.fingerprint
        task.add_done_callback(lambda _task: self._running.pop(key))
        return self._running[key]

    async def _run(self, work: _Work) -> PreviewJob:
        """Bring a create to its end, from whatever stage its record is in."""
        until = time.monotonic() + ATTEMPT_SECONDS
        while True:
            record = await self._owned(work)
            if record is not None:
                return await self._advance(record, work)
            if time.monotonic() > until:
                raise _in_progress()
            await asyncio.sleep(BUSY_POLL)

    async def _owned(self, work: _Work) -> Record | None:
        """The record, once it is ours to go on with or has come to its end; None while another process works on it."""
        now = self._clock.now()
        try:
            record = await self._records.begin(work.record, now)
            if record.fingerprint != work.record.fingerprint:
                raise _reused()
            if record == work.record or record.stage is Stage.ACCEPTED:
                return record
            mine = record.taken_over(self._owner, now, self._timing)
            # One of this process's own was left by a begin whose answer was lost: it works on each key only once.
            is_free = record.is_abandoned(now) or record.owner == self._owner
            return mine if is_free and await self._records.replace(record, mine) else None
        except LedgerError as error:
            raise _ledger_unavailable(error) from None

    async def _advance(self, record: Record, work: _Work) -> PreviewJob:
        if record.stage is Stage.ACCEPTED:
            self._telemetry.ledger("replayed")
            return PreviewJob.FromString(record.job)
        if record.stage is Stage.INTENT:
            return await self._send(record, work)
        try:
            outcome = await self._reconciliation.find_outcome(record, work.admitted.bucket)
        except (GatewayError, LedgerError) as error:
            # A refused list says nothing about the job: telling it as it is would say that there is none.
            log.warning("reconciliation of a create failed", key=record.key[:12], error=str(error))
            raise self._unknown(record) from None
        if isinstance(outcome, PreviewJob):
            return outcome
        if outcome is None:
            raise self._unknown(record)
        return await self._send(outcome, work)

    async def _send(self, record: Record, work: _Work) -> PreviewJob:
        sent = record.sent(self._clock.now(), self._timing)
        try:
            if not await self._records.replace(record, sent):
                raise _in_progress()
        except LedgerError as error:
            raise _ledger_unavailable(error) from None
        deadline = time.monotonic() + ATTEMPT_SECONDS
        request, bucket, output = work.admitted
        sign_until = sent.sent_at + self._timing.signature
        call = work.call._replace(deadline=deadline, no_cache=False, response=ResponseInfo())
        operation = CreateJob(user_data.marked(request, sent.marker), bucket, output, sign_until)
        try:
            job = await self._upstream(operation, call)
        except GatewayError as error:
            if error.reason == reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN:
                return await self._reconcile_now(sent, work)
            await self._forget(sent)
            raise
        finally:
            work.call.response.upstream_request_id = call.response.upstream_request_id
        await self._reconciliation.accept(sent, job)
        return job

    async def _reconcile_now(self, sent: Record, work: _Work) -> PreviewJob:
        """Most lost replies are of jobs that a list shows by now."""
        self._telemetry.ledger("unknown")
        try:
            unknown = sent.unknown(self._clock.now(), self._timing)
            if await self._records.replace(sent, unknown):
                outcome = await self._reconciliation.find_outcome(unknown, work.admitted.bucket)
                if isinstance(outcome, PreviewJob):
                    return outcome
        except (GatewayError, LedgerError) as error:
            log.warning("lost create not found yet", key=sent.key[:12], error=str(error))
        raise self._unknown(sent)

    async def _forget(self, sent: Record) -> None:
        """The cloud refused: the same request may be tried again. A record that stays is settled later."""
        self._telemetry.ledger("rejected")
        with suppress(LedgerError):
            await self._records.remove(sent)

    def _unknown(self, record: Record) -> UpstreamError:
        wait = max(1.0, record.absence_provable_at(self._timing) - self._clock.now())
        return UpstreamError(
            reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN,
            "the create was sent and its outcome is unknown; repeating it with the same request_id is safe",
            retry_after=wait,
        )


def _reused() -> GatewayError:
    return GatewayError(
        reasons.ERROR_REASON_REQUEST_ID_REUSED,
        "request_id was used before with another request; take a new one for a new job",
    )


def _in_progress() -> GatewayError:
    return GatewayError(
        reasons.ERROR_REASON_CREATE_IN_PROGRESS,
        "a create with this request_id is under way; repeating it is safe and gets its job",
        retry_after=1.0,
    )


def _ledger_unavailable(error: LedgerError) -> GatewayError:
    log.warning("ledger unavailable", error=str(error))
    return GatewayError(
        reasons.ERROR_REASON_LEDGER_UNAVAILABLE,
        "creates with request_id are not possible now, because they cannot be recorded; nothing was sent",
        retry_after=1.0,
    )
