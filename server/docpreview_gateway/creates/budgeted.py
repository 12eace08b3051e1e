"""Page budgets: a create is admitted for the pages that it may make, and charged for those that it made.

Pages are set aside in a durable book before the create, and settled once when its job has ended, by whichever process
looks first. Whatever happens in between, a process that dies included, a later look finds the reservation.
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
from docpreview_gateway.creates import pages
from docpreview_gateway.creates import records as ledger
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
"""After so long a create has an outcome, or its process is gone."""

FIRST_LOOK, LONGEST_PAUSE, LOOK_SECONDS = 2.0, 300.0, 10.0
"""Seconds after a create until its job is looked at; between looks, at most; and of one look."""

CLAIM_SECONDS = 60.0
MISSING_SECONDS = 86400.0
"""A job that the cloud does not know is believed to have made its pages after so long."""

STORE_SECONDS = 1.0

_MAY_GO_ON = frozenset({reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, reasons.ERROR_REASON_CREATE_IN_PROGRESS})


class PageQuotaStores(NamedTuple):
    """The book, and the one of this process alone for when replicas cannot reach the one they share.

    Without a fallback creates pass uncounted while there is no book; with `refuse` they fail.
    """

    main: PageQuotaStore
    fallback: PageQuotaStore | None = None
    refuse: bool = False


class PageBudgets:
    """Creates within the budgets of their callers. Callers without one pass uncounted."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        creating: IdempotentCreates,
        books: PageQuotaStores,
        *,
        buckets: BucketRegistry,
        upstream: Upstream,
        records: RequestLedger,
        clock: Clock,
        telemetry: CreatesTelemetry,
    ) -> None:
        self._creating = creating
        self._books = books
        self._buckets = buckets
        self._upstream = upstream
        self._records = records
        self._clock = clock
        self._telemetry = telemetry
        self._seen: dict[str, Caller] = {}
        self._background = BackgroundTasks()

    async def create(self, request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        """Submit a job, unless the caller's budget has no room for it: PAGE_BUDGET_EXHAUSTED."""
        budget = call.caller.budget
        if budget is None:
            return await self._creating.create(request, call)
        admitted = self._buckets.admit_create(request, call.caller)
        self._seen[call.caller.name] = call.caller
        wanted = self._reservation(request, admitted.request.options, call.caller)
        try:
            book, is_new = await self._reserve(wanted, call.caller, budget)
        except asyncio.CancelledError:
            self._undo(wanted)
            raise
        try:
            job = await self._creating.create(request, call)
        except GatewayError as error:
            if book is not None and is_new and error.reason not in _MAY_GO_ON:
                await self._release(book, wanted)
            raise
        if book is not None:
            await self._bind(book, wanted, job)
        return job

    async def get_usage(self, _request: GetUsageRequest, call: Call) -> Usage:
        """What the caller has used up in the present day and month."""
        caller = call.caller
        if caller.budget is None:
            return Usage(caller=caller.name)
        now = pages.periods(self._clock.now())
        try:
            count = await self._books.main.count(caller.name, now)
        except PageQuotaStoreError as error:
            raise _unavailable(error) from None
        self._tell(caller, count)
        return Usage(
            caller=caller.name,
            day=_usage(now.day, count.day, caller.budget.per_day),
            month=_usage(now.month, count.month, caller.budget.per_month),
        )

    async def charge(self) -> None:
        """Charge reservations that are due. Called at intervals by one loop per process, which retries failures."""
        try:
            if self._books.fallback is not None:
                await self._hand_over(self._books.fallback)
            now = self._clock.now()
            for found in await self._books.main.claim(now, now + CLAIM_SECONDS):
                try:
                    await self._look(found)
                except (GatewayError, LedgerError, TimeoutError) as error:
                    log.info("charging of pages failed", reservation=found.id[:12], error=str(error))
            for caller in list(self._seen.values()):
                self._tell(caller, await self._books.main.count(caller.name, pages.periods(now)))
        except PageQuotaStoreError as error:
            log.warning("round of charging pages failed", error=str(error))

    async def drained(self) -> None:
        """Wait until reservations of abandoned creates are released."""
        await self._background.drain()

    def _reservation(self, request: CreatePreviewJobRequest, options: PreviewOptions, caller: Caller) -> Reservation:
        now = self._clock.now()
        day, month = pages.periods(now)
        key = ledger.record_key(request, caller.name) if request.request_id else ""
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
        """The book in which the pages are set aside (None: in none), and whether they were not before."""
        bounds = None if caller.shadow else budget
        for book in (self._books.main, self._books.fallback):
            if book is None:
                continue
            try:
                booking = await book.reserve(wanted, bounds, wanted.made_at + UNBOUND_SECONDS)
            except PageQuotaStoreError as error:
                if self._books.refuse:
                    self._telemetry.limit(caller.name, "page_budget", "refused")
                    raise _unavailable(error) from None
                log.warning("page quota store unavailable, counting locally", error=str(error))
                continue
            self._judge(booking, wanted, caller, budget, alone=book is not self._books.main)
            return book, booking.outcome == "new"
        self._telemetry.limit(caller.name, "page_budget", "degraded")
        return None, False

    def _judge(
        self, booking: ReservationResult, wanted: Reservation, caller: Caller, budget: PageBudget, *, alone: bool
    ) -> None:
        self._tell(caller, booking.pages)
        if booking.outcome in {"day", "month"}:
            self._telemetry.limit(caller.name, "page_budget", "refused")
            _refuse(booking, wanted, budget, self._clock.now())
        if alone:
            self._telemetry.limit(caller.name, "page_budget", "degraded")
        elif caller.shadow and pages.refusing(0, booking.pages, budget) is not None:
            self._telemetry.limit(caller.name, "page_budget", "shadowed")
        else:
            self._telemetry.limit(caller.name, "page_budget", "allowed")

    async def _bind(self, book: PageQuotaStore, wanted: Reservation, job: PreviewJob) -> None:
        """Remember the job. When that fails, a later look finds it by the create's record, or charges as asked."""
        look_at = self._clock.now() + FIRST_LOOK
        try:
            if not await book.bind(wanted.id, job.job_id, look_at):
                # An equal create that failed gave the pages back meanwhile.
                await book.reserve(wanted, None, look_at)
                await book.bind(wanted.id, job.job_id, look_at)
        except PageQuotaStoreError as error:
            log.warning("job of a reservation not recorded", reservation=wanted.id[:12], error=str(error))

    def _undo(self, wanted: Reservation) -> None:
        """The caller left before its create began. One with `request_id` may be another's too: a later look decides."""
        if not wanted.ledger_key:
            _ = self._background.start(self._release(self._books.main, wanted), "release of a page reservation")

    async def _release(self, book: PageQuotaStore, wanted: Reservation) -> None:
        try:
            await book.release(wanted.id)
        except PageQuotaStoreError as error:
            log.warning("pages not given back yet", reservation=wanted.id[:12], error=str(error))

    async def _hand_over(self, fallback: PageQuotaStore) -> None:
        """What this process counted alone is counted by all, as soon as they can be reached."""
        now = self._clock.now()
        for found in await fallback.claim(now, now + CLAIM_SECONDS):
            await self._books.main.reserve(found, None, now)
            await fallback.release(found.id)

    async def _look(self, found: Reservation) -> None:
        book, now = self._books.main, self._clock.now()
        if not found.job_id:
            await self._look_for_outcome(found)
            return
        bucket = self._buckets.find(found.bucket)
        if bucket is None:
            await book.charge(found.id, found.pages)
            return
        try:
            call = Call("", time.monotonic() + LOOK_SECONDS, GATEWAY)
            made = pages.made(await self._upstream(GetJob(bucket, found.job_id), call))
        except GatewayError as error:
            if error.reason != reasons.ERROR_REASON_JOB_NOT_FOUND or now - found.made_at < MISSING_SECONDS:
                raise
            made = found.pages
        if made is not None:
            await book.charge(found.id, made)
        else:
            pause = min(LONGEST_PAUSE, max(FIRST_LOOK, (now - found.made_at) / 4))
            await book.bind(found.id, found.job_id, now + pause)

    async def _look_for_outcome(self, found: Reservation) -> None:
        """The create is over, or its process is: its record knows what came of it."""
        book = self._books.main
        if not found.ledger_key:
            # Nobody knows whether there is a job: the pages count as made.
            await book.charge(found.id, found.pages)
            return
        record = await self._records.find(found.ledger_key)
        if record is None:
            await book.release(found.id)
        elif record.stage is Stage.ACCEPTED:
            await book.bind(found.id, PreviewJob.FromString(record.job).job_id, self._clock.now())

    def _tell(self, caller: Caller, count: PageCount) -> None:
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


def _refuse(booking: ReservationResult, wanted: Reservation, budget: PageBudget, now: float) -> NoReturn:
    month = booking.outcome == "month"
    bound = (budget.per_month if month else budget.per_day) or 0
    left = max(0, bound - sum(booking.pages.month if month else booking.pages.day))
    _, end = pages.bounds(wanted.month if month else wanted.day)
    raise LimitReached(
        reasons.ERROR_REASON_PAGE_BUDGET_EXHAUSTED,
        f"the create may make {wanted.pages} pages, and {wanted.caller} has {left} of {bound} left in this "
        f"{booking.outcome} (UTC): select fewer pages with page_ranges, or ask for a larger budget",
        subject=f"caller:{wanted.caller}:pages_per_{booking.outcome}",
        retry_after=max(1.0, end.timestamp() - now),
        final=True,
    )


def _unavailable(error: PageQuotaStoreError) -> GatewayError:
    log.warning("pages cannot be counted", error=str(error))
    return GatewayError(
        reasons.ERROR_REASON_LIMITER_UNAVAILABLE,
        "the caller's pages cannot be counted now; nothing was sent",
        retry_after=STORE_SECONDS,
    )
