"""More ports of those who listen: to creates, to reads that are shared, to jobs that end, and to spans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.model.call import Call


class AuditLog(Protocol):
    """Keeps who made which job."""

    def create_ended(self, request: CreatePreviewJobRequest, call: Call, outcome: str, job_id: str) -> None:
        """A create ended: `outcome` is OK or the reason of its error, `job_id` is empty when there is no job."""
        ...


class DedupeTelemetry(Protocol):
    """Hears of creates that made no job."""

    def deduped(self, caller: str) -> None:
        """A caller's create was answered with a job that was there."""
        ...
