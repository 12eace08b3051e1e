"""Idempotent creates: at most one job per `request_id`.

A create without `request_id` is one attempt. A create with it is recorded in the ledger before its first byte is sent,
a repeated request gets the first job, and an unknown outcome is reconciled by listing jobs before anything is resent.
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
from docpreview_gateway.creates import records
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
"""Seconds for which a recorded create may run, also beyond its caller's deadline."""

BUSY_POLL = 0.2
"""Seconds between checks of a create that another replica owns."""


@dataclass(frozen=True, slots=True)
class _Work:
    """A create with `request_id`: the admitted request, the first call for it, and the record to begin with."""

    admitted: Admitted
    call: Call
    record: Record


class IdempotentCreates:
    """`Creates`, idempotent by `request_id`. `owner` identifies this process in the ledger."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        upstream: Upstream,
        buckets: BucketRegistry,
        ledger: RequestLedger,
        *,
        clock: Clock,
        telemetry: CreatesTelemetry,
        timing: Timing,
        owner: str,
    ) -> None:
        self._upstream = upstream
        self._buckets = buckets
        self._ledger = ledger
        self._telemetry = telemetry
        self._clock = clock
        self._timing = timing
        self._owner = owner
        self._reconciliation = Reconciliation(upstream, ledger, clock=clock, telemetry=telemetry, timing=timing)
        self._background = BackgroundTasks()
        self._running: dict[str, tuple[asyncio.Task[PreviewJob], bytes]] = {}

    async def create(self, request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        """Submit a job, or return the one that an earlier equal request with the same `request_id` submitted."""
        admitted = self._buckets.admit_create(request, call.caller)
        if not request.request_id:
            return await self._upstream(CreateJob(*admitted), call)
        # The record is of the request as the caller sent it: a change of policy between repeats makes no second job.
        work = _Work(admitted, call, await self._new_record(request, call.caller))
        task, fingerprint = self._running.get(work.record.key) or self._start(work)
        if fingerprint != work.record.fingerprint:
            raise _reused()
        # The task outlives this call: cancelling it between SENT and the outcome would leave the outcome unknown.
        await asyncio.wait((task,), timeout=call.answer_by - time.monotonic())
        if not task.done():
            raise _in_progress()
        error = task.exception()
        if error is not None:
            raise error.with_traceback(None)
        return task.result()

    async def reconcile(self) -> None:
        """Reconcile abandoned creates: record the job of each, or delete the record when there is provably no job.

        Nothing is sent. One loop per process calls it at intervals; failures are retried in the next round.
        """
        try:
            await self._reconcile_abandoned()
        except LedgerError as error:
            log.warning("reconciliation round failed", error=str(error))

    async def _reconcile_abandoned(self) -> None:
        records = await self._ledger.open(self._clock.now())
        oldest = min((record.sent_at for record in records), default=None)
        self._telemetry.unreconciled(len(records), oldest, self._clock.now())
        for record in records:
            bucket = self._buckets.find(CreatePreviewJobRequest.FromString(record.request).bucket)
            mine = record.taken_over(self._owner, self._clock.now(), self._timing)
            if bucket is None or not await self._ledger.replace(record, mine):
                continue
            try:
                outcome = await self._reconciliation.find_outcome(mine, bucket)
            except GatewayError as error:
                log.warning("reconciliation of a create failed", key=record.key[:12], error=error.message)
                continue
            if isinstance(outcome, Record):
                await self._ledger.remove(outcome)

    async def drained(self) -> None:
        """Wait until no recorded create is in flight in this process."""
        await self._background.drain()

    async def _new_record(self, request: CreatePreviewJobRequest, caller: Caller) -> Record:
        try:
            secret = await self._ledger.secret()
        except LedgerError as error:
            raise _ledger_unavailable(error) from None
        now = self._clock.now()
        return records.new_record(
            request, caller=caller.name, secret=secret, owner=self._owner, now=now, timing=self._timing
        )

    def _start(self, work: _Work) -> tuple[asyncio.Task[PreviewJob], bytes]:
        key = work.record.key
        task = self._background.start(self._run(work), "recorded create")
        self._running[key] = task, work.record.fingerprint
        task.add_done_callback(lambda _task: self._running.pop(key))
        return self._running[key]

    async def _run(self, work: _Work) -> PreviewJob:
        """Complete a create from the stage that its record is in."""
        until = time.monotonic() + ATTEMPT_SECONDS
        while True:
            record = await self._owned(work)
            if record is not None:
                return await self._advance(record, work)
            if time.monotonic() > until:
                raise _in_progress()
            await asyncio.sleep(BUSY_POLL)

    async def _owned(self, work: _Work) -> Record | None:
        """The record, if this process owns it or it is ACCEPTED; None while another process owns it."""
        now = self._clock.now()
        try:
            record = await self._ledger.begin(work.record, now)
            if record.fingerprint != work.record.fingerprint:
                raise _reused()
            if record == work.record or record.stage is Stage.ACCEPTED:
                return record
            mine = record.taken_over(self._owner, now, self._timing)
            # This process has one task per key, so a record of its own is left over from a `begin` with a lost reply.
            may_take_over = record.is_abandoned(now) or record.owner == self._owner
            return mine if may_take_over and await self._ledger.replace(record, mine) else None
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
            # A failed list says nothing about the job, so its error must not become the error of the create.
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
            if not await self._ledger.replace(record, sent):
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
        """Look for the job immediately: most jobs whose reply was lost are listed by now."""
        self._telemetry.ledger("unknown")
        try:
            unknown = sent.unknown(self._clock.now(), self._timing)
            if await self._ledger.replace(sent, unknown):
                outcome = await self._reconciliation.find_outcome(unknown, work.admitted.bucket)
                if isinstance(outcome, PreviewJob):
                    return outcome
        except (GatewayError, LedgerError) as error:
            log.warning("job of a create with a lost reply not found", key=sent.key[:12], error=str(error))
        raise self._unknown(sent)

    async def _forget(self, sent: Record) -> None:
        """Delete the record of a refused create, which may be repeated. A record left behind is reconciled later."""
        self._telemetry.ledger("rejected")
        with suppress(LedgerError):
            await self._ledger.remove(sent)

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
        "request_id was used before with another request; use a new one for a new job",
    )


def _in_progress() -> GatewayError:
    return GatewayError(
        reasons.ERROR_REASON_CREATE_IN_PROGRESS,
        "a create with this request_id is in flight; repeating it is safe and gets its job",
        retry_after=1.0,
    )


def _ledger_unavailable(error: LedgerError) -> GatewayError:
    log.warning("ledger unavailable", error=str(error))
    return GatewayError(
        reasons.ERROR_REASON_LEDGER_UNAVAILABLE,
        "creates with request_id are not possible now, because they cannot be recorded; nothing was sent",
        retry_after=1.0,
    )
