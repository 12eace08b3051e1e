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
    """What stands before the creates of jobs."""

    async def create(self, request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        """Submit a job, or return one that stands for it."""
        ...


class LedgerError(Exception):
    """The ledger cannot be read or written."""


class RequestLedger(Protocol):
    """The durable records of creates with `request_id`. Every change is atomic; every method raises LedgerError."""

    async def secret(self) -> bytes:
        """The ledger's own random key, the same for as long as it lives and for all who share it."""
        ...

    async def begin(self, record: Record, now: float) -> Record:
        """Commit `record` unless its key has one that has not expired; the record that stands now."""
        ...

    async def replace(self, old: Record, new: Record) -> bool:
        """Commit `new` if the owner and attempt of `old` still stand; whether they did."""
        ...

    async def remove(self, record: Record) -> None:
        """Delete the record if its owner and attempt still stand."""
        ...

    async def open(self, now: float) -> list[Record]:
        """Records that were sent, have no outcome, and whose owner has been silent for too long."""
        ...

    async def find(self, key: str) -> Record | None:
        """The record of this key, if there is one."""
        ...

    async def others_open(self, record: Record) -> bool:
        """Whether another create of the same target has no outcome yet."""
        ...


class AuditLog(Protocol):
    """Keeps who made which job."""

    def create_ended(self, request: CreatePreviewJobRequest, call: Call, outcome: str, job_id: str) -> None:
        """A create ended: `outcome` is OK or the reason of its error, `job_id` is empty when there is no job."""
        ...


class PageQuotaStoreError(Exception):
    """The book of pages cannot be read or written."""


class PageQuotaStore(Protocol):
    """The durable count of callers' pages. Every change is atomic; every method raises PageQuotaStoreError."""

    async def reserve(self, wanted: Reservation, budget: PageBudget | None, look_at: float) -> ReservationResult:
        """Set pages aside, unless a reservation of this id stands or was charged, or the budget has no room.

        None: whatever there is room for. At `look_at` (Unix time) somebody should see what became of it.
        """
        ...

    async def bind(self, reservation: str, job_id: str, look_at: float) -> bool:
        """The create has this job, to be looked at again at `look_at`; False when there is no such reservation."""
        ...

    async def charge(self, reservation: str, pages: int) -> None:
        """So many pages were made. Only the first charge counts."""
        ...

    async def release(self, reservation: str) -> None:
        """Nothing was made, and the id is as if it never was. Nothing happens to what was charged."""
        ...

    async def claim(self, now: float, until: float) -> list[Reservation]:
        """Some open reservations that are due; nobody else gets them before `until`."""
        ...

    async def count(self, caller: str, periods: Periods) -> PageCount:
        """A caller's pages."""
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
