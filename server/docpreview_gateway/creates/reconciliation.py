"""Reconciliation: finds the job of a create whose reply was lost, or proves that there is none."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsRequest
from docpreview_gateway.creates import records
from docpreview_gateway.creates.ports import LedgerError
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import GATEWAY
from docpreview_gateway.model.errors import GatewayError, ReplyTooLarge
from docpreview_gateway.upstream.operations import ListJobs

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.creates.ports import CreatesTelemetry, RequestLedger
    from docpreview_gateway.creates.records import Record, Timing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.upstream.operations import JobPage, Upstream

log = structlog.get_logger("docpreview_gateway.ledger")

LIST_SECONDS = 10.0
LIST_SIZE = 100
LIST_PAGES = 50
"""Longest list that is read; when there are more pages, the outcome stays unknown."""


class Reconciliation:
    """Finds the outcomes of creates that were sent, by listing jobs."""

    def __init__(
        self,
        upstream: Upstream,
        ledger: RequestLedger,
        *,
        clock: Clock,
        telemetry: CreatesTelemetry,
        timing: Timing,
    ) -> None:
        self._upstream = upstream
        self._ledger = ledger
        self._clock = clock
        self._telemetry = telemetry
        self._timing = timing

    async def find_outcome(self, record: Record, bucket: Bucket) -> PreviewJob | Record | None:
        """The job; the record, reset to INTENT, when there is provably no job; or None while the outcome is unknown.

        This process must own `record`, and its create must have been sent. GatewayError of the list and LedgerError
        leave the record to the next reconciliation.
        """
        begun = self._clock.now()
        try:
            job, complete = await self._find(record, bucket)
        except GatewayError:
            await self._ledger.replace(record, record.released(self._clock.now()))
            raise
        if job is not None:
            self._telemetry.ledger("found")
            await self.accept(record, job)
            return job
        if complete and begun >= record.absence_provable_at(self._timing):
            restarted = record.restarted(self._clock.now(), self._timing)
            self._telemetry.ledger("absent")
            return restarted if await self._ledger.replace(record, restarted) else None
        await self._ledger.replace(record, record.released(self._clock.now()))
        return None

    async def accept(self, record: Record, job: PreviewJob) -> None:
        """Record the job. When that fails the caller still gets it, and a repeated request finds it by a list."""
        self._telemetry.ledger("accepted")
        try:
            await self._ledger.replace(record, record.accepted(job, self._clock.now(), self._timing))
        except LedgerError as error:
            log.warning("recording of an accepted create failed", key=record.key[:12], error=str(error))

    async def _find(self, record: Record, bucket: Bucket) -> tuple[PreviewJob | None, bool]:
        """The job of a record, and whether the list was read to its end."""
        # The cloud's clock may differ from ours, so the list spans more than the time of the create.
        margin = int(2 * self._timing.fence_slack) + 1
        is_only_one = not await self._ledger.others_open(record)
        request = ListPreviewJobsRequest(
            bucket=bucket.name,
            order=ListPreviewJobsRequest.ORDER_OLDEST_FIRST,
            created_after=Timestamp(seconds=int(record.sent_at) - margin),
            created_before=Timestamp(seconds=int(record.fence) + margin),
        )
        cursor, begun = "", self._clock.now()
        for _ in range(LIST_PAGES):
            page = await self._page(ListJobs(request, bucket, LIST_SIZE, cursor))
            for job, marker in zip(page.jobs, page.markers, strict=True):
                if records.owns(record, job, marker, only_one_of_its_target=is_only_one):
                    return job, True
            if page.as_of is not None and not self._is_within_slack(page.as_of, begun):
                log.warning("cloud clock differs by more than ledger.fence_slack_seconds", key=record.key[:12])
                return None, False
            if not page.cursor:
                return None, True
            cursor = page.cursor
        return None, False

    def _is_within_slack(self, cloud: float, begun: float) -> bool:
        """Whether the cloud's clock, in whole seconds, is within the slack, so that its list can prove absence.

        Otherwise the create may be accepted after its fence, or its job may be outside the time span of the list.
        """
        slack = self._timing.fence_slack
        return begun - slack - 1 < cloud <= self._clock.now() + slack

    async def _page(self, operation: ListJobs) -> JobPage:
        call = Call("", time.monotonic() + LIST_SECONDS, GATEWAY, no_cache=True)
        try:
            return await self._upstream(operation, call)
        except ReplyTooLarge:
            if operation.size == 1:
                raise
            return await self._page(replace(operation, size=operation.size // 4 or 1))
