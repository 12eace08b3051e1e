"""Page budgets: a create reserves the pages that it may make, and is charged for the pages that its job made.

The reservation is written to the page quota store before the create. It is charged once, after the job has ended, by
the first process that finds it due; so it survives a crash of the process that made it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import structlog

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.usage_service_pb2 import PageUsage, Usage
from docpreview_gateway.creates import pages, records
from docpreview_gateway.creates.pages import Reservation
from docpreview_gateway.creates.ports import LedgerError, PageQuotaStoreError
from docpreview_gateway.creates.records import Stage
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import GATEWAY, PageBudget
from docpreview_gateway.model.errors import GatewayError, LimitReached
from docpreview_gateway.storage.background import BackgroundTasks
from docpreview_gateway.upstream.operations import GetJob

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewOptions
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview.v1.usage_service_pb2 import GetUsageRequest
    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.creates.idempotent import IdempotentCreates
    from docpreview_gateway.creates.pages import PageCount, Pages, ReservationResult
    from docpreview_gateway.creates.ports import CreatesTelemetry, PageQuotaStore, RequestLedger
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.upstream.operations import Upstream

log = structlog.get_logger("docpreview_gateway.budgets")

UNBOUND_SECONDS = 120.0
"""Seconds until a reservation without a job is checked: its create has an outcome by then, or its process is gone."""

FIRST_CHECK_SECONDS, LONGEST_INTERVAL_SECONDS, CHECK_TIMEOUT_SECONDS = 2.0, 300.0, 10.0
"""Seconds from a create to the first check of its job, between two checks at most, and for one check."""

CLAIM_SECONDS = 60.0
"""Seconds for which a process that claimed reservations is the only one to check them."""

MISSING_SECONDS = 86400.0
"""Seconds after which a job that the cloud does not know is charged its reserved pages."""

RETRY_AFTER_SECONDS = 1.0

_COUNTING_LOCALLY = "page quota store unavailable, counting locally"
_NOT_COUNTING = "page quota store unavailable, not counting"
_MAY_HAVE_JOB = frozenset({reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, reasons.ERROR_REASON_CREATE_IN_PROGRESS})


class PageQuotaStores(NamedTuple):
    """The page quota store, and what happens while it is unavailable.

    Creates are counted in `fallback`, a store of this process; None: they pass uncounted. With `refuse` they fail.
    """

    main: PageQuotaStore
    fallback: PageQuotaStore | None = None
    refuse: bool = False


class PageBudgets:
    """`Creates` within the page budgets of their callers. Callers without a budget are not counted."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        creates: IdempotentCreates,
        stores: PageQuotaStores,
        *,
        buckets: BucketRegistry,
        upstream: Upstream,
        ledger: RequestLedger,
        clock: Clock,
        telemetry: CreatesTelemetry,
    ) -> None:
        self._creates = creates
        self._stores = stores
        self._buckets = buckets
        self._upstream = upstream
        self._ledger = ledger
        self._clock = clock
        self._telemetry = telemetry
        self._seen: dict[str, Caller] = {}
        self._background = BackgroundTasks()

    async def create(self, request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        """Submit a job. PAGE_BUDGET_EXHAUSTED when the caller's budget has too few pages left."""
        budget = call.caller.budget
        if budget is None:
            return await self._creates.create(request, call)
        admitted = self._buckets.admit_create(request, call.caller)
        self._seen[call.caller.name] = call.caller
        wanted = self._reservation(request, admitted.request.options, call.caller)
        try:
            store, is_new = await self._reserve(wanted, call.caller, budget)
        except asyncio.CancelledError:
            self._undo(wanted)
            raise
        try:
            job = await self._creates.create(request, call)
        except GatewayError as error:
            if store is not None and is_new and error.reason not in _MAY_HAVE_JOB:
                await self._release(store, wanted)
            raise
        if store is not None:
            await self._bind(store, wanted, job)
        return job

    async def get_usage(self, _request: GetUsageRequest, call: Call) -> Usage:
        """The caller's used and reserved pages in the current day and month (UTC)."""
        caller = call.caller
        if caller.budget is None:
            return Usage(caller=caller.name)
        now = pages.periods(self._clock.now())
        try:
            count = await self._stores.main.count(caller.name, now)
        except PageQuotaStoreError as error:
            raise _unavailable(error) from None
        self._record_pages(caller, count)
        return Usage(
            caller=caller.name,
            day=_usage(now.day, count.day, caller.budget.per_day),
            month=_usage(now.month, count.month, caller.budget.per_month),
        )

    async def charge(self) -> None:
        """Charge reservations that are due. One loop per process calls it at intervals; failures are retried then."""
        try:
            if self._stores.fallback is not None:
                await self._merge_fallback(self._stores.fallback)
            now = self._clock.now()
            for reservation in await self._stores.main.claim(now, now + CLAIM_SECONDS):
                try:
                    await self._check(reservation)
                except (GatewayError, LedgerError, TimeoutError) as error:
                    log.info("charging of a reservation failed", reservation=reservation.id[:12], error=str(error))
            for caller in list(self._seen.values()):
                self._record_pages(caller, await self._stores.main.count(caller.name, pages.periods(now)))
        except PageQuotaStoreError as error:
            log.warning("charging round failed", error=str(error))

    async def drained(self) -> None:
        """Wait until reservations of abandoned creates are released."""
        await self._background.drain()

    def _reservation(self, request: CreatePreviewJobRequest, options: PreviewOptions, caller: Caller) -> Reservation:
        now = self._clock.now()
        day, month = pages.periods(now)
        key = records.record_key(request, caller.name) if request.request_id else ""
        return Reservation(
            id=key or secrets.token_hex(16),
            caller=caller.name,
            pages=pages.asked(options, caller.budget or PageBudget()),
            day=day,
            month=month,
            bucket=request.bucket,
            made_at=now,
            ledger_key=key,
        )

    async def _reserve(
        self, wanted: Reservation, caller: Caller, budget: PageBudget
    ) -> tuple[PageQuotaStore | None, bool]:
        """The store that holds the reservation (None: not counted), and whether the reservation is new."""
        enforced = None if caller.shadow else budget
        for store in (self._stores.main, self._stores.fallback):
            if store is None:
                continue
            try:
                result = await store.reserve(wanted, enforced, wanted.made_at + UNBOUND_SECONDS)
            except PageQuotaStoreError as error:
                if self._stores.refuse:
                    self._telemetry.limit(caller.name, "page_budget", "refused")
                    raise _unavailable(error) from None
                counts_locally = store is self._stores.main and self._stores.fallback is not None
                log.warning(_COUNTING_LOCALLY if counts_locally else _NOT_COUNTING, error=str(error))
                continue
            self._check_budget(result, wanted, caller, budget, counted_locally=store is not self._stores.main)
            return store, result.outcome == "new"
        self._telemetry.limit(caller.name, "page_budget", "degraded")
        return None, False

    def _check_budget(
        self,
        result: ReservationResult,
        wanted: Reservation,
        caller: Caller,
        budget: PageBudget,
        *,
        counted_locally: bool,
    ) -> None:
        """Record the outcome of a reservation, or raise its refusal."""
        self._record_pages(caller, result.pages)
        if result.outcome in {"day", "month"}:
            self._telemetry.limit(caller.name, "page_budget", "refused")
            _refuse(result, wanted, budget, self._clock.now())
        if counted_locally:
            self._telemetry.limit(caller.name, "page_budget", "degraded")
        elif caller.shadow and pages.refusing(0, result.pages, budget) is not None:
            self._telemetry.limit(caller.name, "page_budget", "shadowed")
        else:
            self._telemetry.limit(caller.name, "page_budget", "allowed")

    async def _bind(self, store: PageQuotaStore, wanted: Reservation, job: PreviewJob) -> None:
        """Store the job's id. If that fails, a later check finds it by the create's record or charges all pages."""
        due_at = self._clock.now() + FIRST_CHECK_SECONDS
        try:
            if not await store.bind(wanted.id, job.job_id, due_at):
                # An equal create that failed has released the reservation in the meantime.
                await store.reserve(wanted, None, due_at)
                await store.bind(wanted.id, job.job_id, due_at)
        except PageQuotaStoreError as error:
            log.warning("binding of a reservation to its job failed", reservation=wanted.id[:12], error=str(error))

    def _undo(self, wanted: Reservation) -> None:
        """Release the reservation of a create abandoned before it began, unless an equal create may share it."""
        if not wanted.ledger_key:
            _ = self._background.start(self._release(self._stores.main, wanted), "release of a page reservation")

    async def _release(self, store: PageQuotaStore, wanted: Reservation) -> None:
        try:
            await store.release(wanted.id)
        except PageQuotaStoreError as error:
            log.warning("release of a reservation failed", reservation=wanted.id[:12], error=str(error))

    async def _merge_fallback(self, fallback: PageQuotaStore) -> None:
        """Move this process's own reservations to the shared store."""
        now = self._clock.now()
        for reservation in await fallback.claim(now, now + CLAIM_SECONDS):
            await self._stores.main.reserve(reservation, None, now)
            await fallback.release(reservation.id)

    async def _check(self, reservation: Reservation) -> None:
        """Charge a reservation if its job has ended, else set the time of its next check."""
        store, now = self._stores.main, self._clock.now()
        if not reservation.job_id:
            await self._check_outcome(reservation)
            return
        bucket = self._buckets.find(reservation.bucket)
        if bucket is None:
            await store.charge(reservation.id, reservation.pages)
            return
        try:
            call = Call("", time.monotonic() + CHECK_TIMEOUT_SECONDS, GATEWAY)
            made = pages.made(await self._upstream(GetJob(bucket, reservation.job_id), call))
        except GatewayError as error:
            if error.reason != reasons.ERROR_REASON_JOB_NOT_FOUND or now - reservation.made_at < MISSING_SECONDS:
                raise
            made = reservation.pages
        if made is not None:
            await store.charge(reservation.id, made)
        else:
            interval = min(LONGEST_INTERVAL_SECONDS, max(FIRST_CHECK_SECONDS, (now - reservation.made_at) / 4))
            await store.bind(reservation.id, reservation.job_id, now + interval)

    async def _check_outcome(self, reservation: Reservation) -> None:
        """Release, bind or charge a reservation without a job, by the record of its create in the ledger."""
        store = self._stores.main
        if not reservation.ledger_key:
            # A create without `request_id` has no record, so its job, if any, cannot be found.
            await store.charge(reservation.id, reservation.pages)
            return
        record = await self._ledger.find(reservation.ledger_key)
        if record is None:
            await store.release(reservation.id)
        elif record.stage is Stage.ACCEPTED:
            await store.bind(reservation.id, PreviewJob.FromString(record.job).job_id, self._clock.now())

    def _record_pages(self, caller: Caller, count: PageCount) -> None:
        if caller.budget is not None:
            self._telemetry.pages(caller.name, "day", count.day, caller.budget.per_day)
            self._telemetry.pages(caller.name, "month", count.month, caller.budget.per_month)


def _usage(period: str, count: Pages, budget: int | None) -> PageUsage:
    usage = PageUsage(used_pages=count.used, reserved_pages=count.reserved)
    start, end = pages.bounds(period)
    usage.start_time.FromDatetime(start)
    usage.end_time.FromDatetime(end)
    if budget is not None:
        usage.budget_pages = budget
        usage.left_pages = max(0, budget - sum(count))
    return usage


def _refuse(result: ReservationResult, wanted: Reservation, budget: PageBudget, now: float) -> NoReturn:
    month = result.outcome == "month"
    limit = (budget.per_month if month else budget.per_day) or 0
    left = max(0, limit - sum(result.pages.month if month else result.pages.day))
    _, end = pages.bounds(wanted.month if month else wanted.day)
    raise LimitReached(
        reasons.ERROR_REASON_PAGE_BUDGET_EXHAUSTED,
        f"the create may make {wanted.pages} pages, and {wanted.caller} has {left} of {limit} left in this "
        f"{result.outcome} (UTC): select fewer pages with page_ranges, or ask for a larger budget",
        subject=f"caller:{wanted.caller}:pages_per_{result.outcome}",
        retry_after=max(1.0, end.timestamp() - now),
        final=True,
    )


def _unavailable(error: PageQuotaStoreError) -> GatewayError:
    log.warning("page quota store unavailable, call rejected", error=str(error))
    return GatewayError(
        reasons.ERROR_REASON_LIMITER_UNAVAILABLE,
        "the caller's pages cannot be counted now; nothing was sent",
        retry_after=RETRY_AFTER_SECONDS,
    )
