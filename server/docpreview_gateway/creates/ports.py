"""Ports of creates: the ledger, the page quota store, telemetry and the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from docpreview_gateway.limits.ports import LimitsTelemetry

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.creates.pages import PageCount, Pages, Periods, Reservation, ReservationResult
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.callers import PageBudget


class Creates(Protocol):
    """The create of a job, as one layer of idempotency, deduplication and budgets."""

    async def create(self, request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        """Submit a job, or return an existing one in its place."""
        ...


class LedgerError(Exception):
    """The ledger cannot be read or written."""


class RequestLedger(Protocol):
    """The ledger: durable records of creates. Every change is atomic; every method raises LedgerError."""

    async def secret(self) -> bytes:
        """The ledger's random key, which never changes and is the same for all processes that share the ledger."""
        ...

    async def begin(self, record: Record, now: float) -> Record:
        """Commit `record` unless an unexpired one has its key. Returns the record that is stored now."""
        ...

    async def replace(self, old: Record, new: Record) -> bool:
        """Commit `new` if the stored owner and attempt are those of `old`. Returns whether they were."""
        ...

    async def remove(self, record: Record) -> None:
        """Delete the record if the stored owner and attempt are its own."""
        ...

    async def open(self, now: float) -> list[Record]:
        """Records that were sent, have no outcome, and whose lease has expired at Unix time `now`."""
        ...

    async def find(self, key: str) -> Record | None:
        """The record of this key; None when there is none."""
        ...

    async def others_open(self, record: Record) -> bool:
        """Whether another create with the same target has no outcome yet."""
        ...


class AuditLog(Protocol):
    """The audit log of creates."""

    def create_ended(self, request: CreatePreviewJobRequest, call: Call, outcome: str, job_id: str) -> None:
        """A create ended. `outcome` is OK or the name of its error's reason; `job_id` is empty when there is no job."""
        ...


class PageQuotaStoreError(Exception):
    """The page quota store cannot be read or written."""


class PageQuotaStore(Protocol):
    """Durable reservations and counts of callers' pages.

    Every change is atomic; every method raises PageQuotaStoreError. Instants are Unix times in seconds.
    """

    async def reserve(self, wanted: Reservation, budget: PageBudget | None, due_at: float) -> ReservationResult:
        """Reserve pages, unless the id is reserved or charged already, or the budget has too few pages left.

        A budget of None is unlimited. The reservation is due for `claim` at `due_at`.
        """
        ...

    async def bind(self, reservation: str, job_id: str, due_at: float) -> bool:
        """Store the job of a reservation and when it is due next. Returns False when there is no such reservation."""
        ...

    async def charge(self, reservation: str, pages: int) -> None:
        """Replace the reserved pages by `pages` used ones. Only the first charge of a reservation counts."""
        ...

    async def release(self, reservation: str) -> None:
        """Delete a reservation, whose id may be reserved again. Charged reservations are left as they are."""
        ...

    async def claim(self, now: float, until: float) -> list[Reservation]:
        """Some open reservations that are due at `now`. They are not returned again before `until`."""
        ...

    async def count(self, caller: str, periods: Periods) -> PageCount:
        """A caller's pages in these periods."""
        ...


class CreatesTelemetry(LimitsTelemetry, Protocol):
    """Records what becomes of creates, and callers' pages."""

    def ledger(self, event: Literal["accepted", "replayed", "rejected", "unknown", "found", "absent"]) -> None:
        """Records a stage of a create with `request_id`, or the outcome of a look for its job."""
        ...

    def unreconciled(self, count: int, oldest_sent_at: float | None, now: float) -> None:
        """Records the unknown creates at the beginning of a reconciliation round; times are Unix times."""
        ...

    def deduped(self, caller: str) -> None:
        """Records a create of a caller that was answered with an existing job."""
        ...

    def pages(self, caller: str, period: Literal["day", "month"], pages: Pages, budget: int | None) -> None:
        """Records a caller's pages of the present period, and its budget."""
        ...
