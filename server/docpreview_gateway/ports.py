"""What the layers above core need from the world, as small as each need is.

Implementations live in `upstream` (the cloud) and `adapters` (everything else); `wiring` alone knows which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from docpreview_gateway.model.call import Call, Method

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.core.ledger import Record


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


class LedgerTelemetry(Protocol):
    """Hears what happens to recorded creates."""

    def unsettled(self, count: int, oldest_sent_at: float | None, now: float) -> None:
        """A round of settling begins at `now` with so many creates, the oldest of them sent at that Unix time."""
        ...

    def ledger(self, event: Literal["accepted", "replayed", "rejected", "unknown", "found", "absent"]) -> None:
        """A record came to a stage, or was looked for."""
        ...


class WatchTelemetry(Protocol):
    """Hears how many pollers and watchers there are."""

    def watching(self, *, pollers: int, watchers: int) -> None:
        """The numbers now."""
        ...


class EndTelemetry(Protocol):
    """Hears of every call that has ended."""

    def call_ended(self, method: Method, call: Call, code: str, seconds: float) -> None:
        """A call ended with the status of this name, such as `NOT_FOUND`; `call.reason` says why."""
        ...


class CallTelemetry(EndTelemetry, Protocol):
    """Hears of every call."""

    def call_started(self, method: Method, call: Call) -> None:
        """A call came in. Its caller may not be known yet."""
        ...


class RpcTelemetry(CallTelemetry, Protocol):
    """Hears of every call and its messages."""

    def message_sent(self, method: Method) -> None:
        """A message of a stream left; each other call that ends well has sent one."""
        ...
