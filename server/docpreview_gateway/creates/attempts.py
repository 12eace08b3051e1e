"""Attempts of recorded creates: the record, the request, and what becomes of both."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.creates import refusals
from docpreview_gateway.creates.ports import Change, StoreError
from docpreview_gateway.creates.records import State
from docpreview_gateway.model.call import ResponseInfo
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.storage.background import BackgroundTasks, loop_time
from docpreview_gateway.upstream.operations import CreateJob, Flight
from docpreview_gateway.upstream.wire.signing import Window
from docpreview_gateway.upstream.wire.user_data import marked

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.access.bucket_registry import Admitted
    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.leases import PageLeases
    from docpreview_gateway.creates.outcomes import Outcome, Outcomes
    from docpreview_gateway.creates.ports import CreatesTelemetry, CreateStore
    from docpreview_gateway.creates.records import Record, Timing
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.cloud_clock import CloudTimes, Heard
    from docpreview_gateway.upstream.operations import Upstream

log = structlog.get_logger("docpreview_gateway.creates")

ATTEMPT_SECONDS = 30.0
"""Seconds for which a recorded create may run, also beyond its caller's deadline."""

FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.2, 8.0
"""Pauses between looks at a create that another process has sent."""


@dataclass(eq=False, slots=True)
class Work:
    """A create with a record: the admitted request, the first call for it, and the record."""

    original: CreatePreviewJobRequest
    """The request as the caller sent it."""
    admitted: Admitted
    call: Call
    record: Record
    stored: bool = True
    """False: its pages are paid from a lease, because the store cannot be reached."""
    flight: Flight | None = None
    """The present attempt; None: nothing was signed yet."""
    alone: bool = False
    """It may be begun only while no other create of its output place is open."""
    follows: bool = False
    """Another process has sent the create, or this one has in an earlier call."""
    unseen: Record | None = None
    """The attempt whose job a list did not show: its outcome is unknown. None: it may just be being sent."""

    @property
    def has_begun(self) -> bool:
        """Whether a byte of the create may have left, here or elsewhere."""
        return self.follows or (self.flight is not None and self.flight.began)


class Attempts:
    """Sends creates whose record is OPEN, and follows those that others have sent."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        upstream: Upstream,
        store: CreateStore,
        outcomes: Outcomes,
        keys: CreateKeys,
        times: CloudTimes,
        *,
        leases: PageLeases,
        telemetry: CreatesTelemetry,
        timing: Timing,
    ) -> None:
        self._upstream = upstream
        self._leases = leases
        self._store = store
        self._outcomes = outcomes
        self._keys = keys
        self._times = times
        self._telemetry = telemetry
        self._timing = timing
        self._background = BackgroundTasks()

    async def drained(self) -> None:
        """Wait until the records of abandoned creates are released."""
        await self._background.drain()

    async def send(self, work: Work, begun_at: float) -> PreviewJob:
        """Send a create whose record was begun at `begun_at` (of `CloudTimes.elapsed`). Its outcome is recorded."""
        self._outcomes.watch(work.record)
        host = work.admitted.bucket.ci_host
        before = self._times.heard(host)
        for may_correct in (True, False):
            try:
                job = await self._post(work, begun_at)
            except asyncio.CancelledError:
                if not work.has_begun:
                    self.release_later(work)
                raise
            except GatewayError as error:
                if error.reason == reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN:
                    return await self._look_at_once(work)
                if error.reason == reasons.ERROR_REASON_CLOCK_SKEW and may_correct and work.stored:
                    # Refused for the clock: nothing was made, and the cloud's time is known now.
                    begun_at = await self._reopen(work, work.record)
                    continue
                if error.reason == reasons.ERROR_REASON_CLOCK_SKEW:
                    self._disbelieve(host, before)
                self._telemetry.ledger("rejected" if work.has_begun else "released")
                await self._release(work)
                raise
            await self._accept(work, job)
            return job
        raise AssertionError  # the second attempt returns or raises

    async def follow(self, work: Work, standing: Record) -> PreviewJob:
        """The job of a create that another process has sent, or that was left behind; if it has none, a new attempt.

        It goes on until the call for it or ATTEMPT_SECONDS end, and then CREATE_IN_PROGRESS, or after a look at the
        list CREATE_OUTCOME_UNKNOWN.
        """
        bucket = work.admitted.bucket
        until = min(loop_time() + ATTEMPT_SECONDS, work.call.answer_by)
        pause, work.follows, work.unseen = FIRST_POLL_SECONDS, True, None
        signature = self._timing.signature
        self._outcomes.watch(standing)
        begun_at, quarter = self._times.elapsed(), signature / 4
        while True:
            # Until a quarter of its signature's time is over, it is most likely just being sent. Not by the cloud's
            # time alone: it may have been wrong, and only a list tells it anew.
            waited = work.unseen is not None or self._times.elapsed() - begun_at > quarter
            if waited or self._times.now(bucket.ci_host) > standing.sign_end - signature + quarter:
                outcome = await self._look(standing, work)
                if outcome is not None:
                    work.unseen = standing
                if outcome is not None and (job := await self._settle(outcome, standing, work)) is not None:
                    return job
            if loop_time() + pause > until:
                raise self.unknown(standing, work) if work.unseen is not None else refusals.in_progress()
            await asyncio.sleep(pause)
            pause = min(LAST_POLL_SECONDS, 2 * pause)
            try:
                (found,) = await self._store.find([standing.key])
            except StoreError as error:
                log.warning("a create in flight elsewhere cannot be read", key=standing.key, error=str(error))
                continue
            if found is None or found.state is not State.OPEN or found.body != standing.body:
                # Released, decided, or begun anew by another request: `begin` tells which.
                raise Decided
            standing = found

    def unknown(self, record: Record, work: Work) -> GatewayError:
        """The error of a create that was sent and whose outcome is open."""
        wait = self._outcomes.provable_in(record, work.admitted.bucket)
        return refusals.unknown(wait, has_id=bool(work.original.request_id))

    async def _post(self, work: Work, begun_at: float) -> PreviewJob:
        record, (request, bucket, output) = work.record, work.admitted
        window = Window(int(record.sign_start), int(record.sign_end))
        work.flight = Flight(window, begun_at + self._timing.signature)
        marker = self._keys.marker(record.key, record.body, record.caller, record.nonce)
        sent = marked(request, marker, self._keys.path_token(record.key, record.kid))
        deadline = loop_time() + ATTEMPT_SECONDS
        call = work.call._replace(deadline=deadline, no_cache=False, response=ResponseInfo())
        try:
            return await self._upstream(CreateJob(sent, bucket, output, work.flight), call)
        finally:
            work.call.response.upstream_request_id = call.response.upstream_request_id

    async def _accept(self, work: Work, job: PreviewJob) -> None:
        self._telemetry.ledger("accepted")
        if not work.stored:
            await self._leases.accept(work.record, job)
            return
        try:
            await self._outcomes.finish(work.record, job, work.admitted.bucket)
        except StoreError as error:
            # The caller gets its job all the same; a repeated request finds it by its marker.
            log.warning("recording of an accepted create failed", key=work.record.key, error=str(error))

    async def _look_at_once(self, work: Work) -> PreviewJob:
        """Look for the job immediately: most jobs whose reply was lost are listed by now."""
        self._telemetry.ledger("unknown")
        outcome = await self._look(work.record, work)
        if outcome is not None and outcome.job is not None:
            await self._accept(work, outcome.job)
            return outcome.job
        raise self.unknown(work.record, work)

    async def _look(self, record: Record, work: Work) -> Outcome | None:
        """The outcome; None when the list failed: that says nothing, so its error is not the create's."""
        try:
            return await self._outcomes.look(record, work.admitted.bucket)
        except (GatewayError, StoreError) as error:
            log.warning("look for a create's job failed", key=record.key, error=str(error))
            return None

    async def _settle(self, outcome: Outcome, standing: Record, work: Work) -> PreviewJob | None:
        """The job that an outcome leads to; None: it is open still."""
        if outcome.kind == "reused":
            raise refusals.reused()
        if outcome.job is not None:
            await self._accept(replace_record(work, standing), outcome.job)
            return outcome.job
        if outcome.kind == "ambiguous":
            raise refusals.ambiguous(outcome.candidates, work.call.caller)
        if outcome.kind == "absent" and standing.is_imported:
            # No marker can be made of an old key: the next attempt has a record of its own.
            await self._release(replace_record(work, standing))
            raise Decided
        if outcome.kind == "absent":
            begun_at = await self._reopen(work, standing)
            return await self.send(work, begun_at)
        return None

    def _disbelieve(self, host: str, before: Heard | None) -> None:
        """The cloud has refused a signature that was made by its own `Date`: one that is far off was wrong."""
        heard = self._times.heard(host)
        if before is None or heard is None:
            return
        shown = before.date + (heard.at - before.at)
        if abs(heard.date - shown) > self._timing.fence_slack:
            self._times.restore(host, before)

    async def _reopen(self, work: Work, standing: Record) -> float:
        """Begin a new attempt of a create that has no job. The instant at which it was begun."""
        begun_at, host = self._times.elapsed(), work.admitted.bucket.ci_host
        opened = standing.opened(self._times.now(host), self._timing)
        try:
            (made,) = await self._store.change([Change(standing, opened, self.due_at(opened))])
        except StoreError as error:
            raise refusals.not_recordable(error) from None
        if not made:
            raise Decided
        work.record, work.unseen = opened, None
        self._outcomes.watch(opened)
        return begun_at

    def due_at(self, record: Record) -> float:
        """When an OPEN record is looked at by the loop."""
        return record.sign_end + self._timing.fence_slack + self._timing.visibility + 1

    async def _release(self, work: Work) -> bool:
        """Delete the record of a create that made no job. False: there is none, or it is left behind for later."""
        if not work.stored:
            await self._leases.give_back(work.record)
            return True
        try:
            (made,) = await self._store.change([Change(work.record, None)])
        except StoreError as error:
            # The store tells the log why, once.
            log.debug("release of a create failed", key=work.record.key, error=str(error))
            return False
        return made

    def release_later(self, work: Work) -> None:
        """Release the record of a create that was given up before a byte was sent."""
        _ = self._background.start(self._give_up(work), "release of a create")

    async def _give_up(self, work: Work) -> None:
        if await self._release(work):
            self._telemetry.ledger("released")


class Decided(Exception):  # noqa: N818 - not an error
    """The record was changed by somebody else: begin again."""


def replace_record(work: Work, record: Record) -> Work:
    """The work with another record."""
    return replace(work, record=record)
