"""More ports of those who listen: to creates, to reads that are shared, to jobs that end, and to spans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.trace_context import Trace
    from docpreview_gateway.ports import Attempt


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


class CoalescingTelemetry(Protocol):
    """Hears of reads that share one request."""

    def coalesced(self, operation: Literal["get", "list_jobs", "list_queues"]) -> None:
        """A read joined an equal one that was under way."""
        ...


class JobPages(NamedTuple):
    """Pages of a job that became images, and that did not."""

    succeeded: int
    failed: int


class JobTelemetry(Protocol):
    """Hears of jobs that ended, of each once."""

    def job_ended(self, state: str, seconds: float | None, pages: JobPages) -> None:
        """A job ended in this state, such as `SUCCESS`, so long after its creation; None: the cloud does not tell."""
        ...


class PollTracing(Protocol):
    """Makes spans of polls."""

    def poll(self, job_id: str, watchers: Sequence[Trace]) -> AbstractContextManager[Trace]:
        """A span of one look at a job, which gives its place, linked to those of the calls that wait for it."""
        ...


class Tracing(PollTracing, Protocol):
    """Makes spans."""

    def attempt(self, attempt: Attempt, call: Call) -> AbstractContextManager[None]:
        """A span of one attempt at the cloud."""
        ...
