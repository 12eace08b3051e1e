"""What lists, watches and waits need from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.trace_context import Trace


class JobsTelemetry(Protocol):
    """Records pollers and watchers."""

    def watching(self, *, pollers: int, watchers: int) -> None:
        """Records how many there are now."""
        ...


class PollTracing(Protocol):
    """Makes spans of polls."""

    def poll(self, job_id: str, watchers: Sequence[Trace]) -> AbstractContextManager[Trace]:
        """A span of one poll of a job, linked to the spans of the calls that wait for it."""
        ...


class JobShares(Protocol):
    """Divides the jobs that are followed in streams of many among callers."""

    def enter(self, caller: str, places: int) -> None:
        """Takes places for the caller of this name. CONCURRENCY_LIMITED beyond its share."""
        ...

    def leave(self, caller: str, places: int) -> None:
        """Frees places of the caller."""
        ...


class CallbackTrust(Protocol):
    """Learns whether the ends of jobs are called back."""

    def works(self, bucket: str) -> bool:
        """Whether callbacks of the bucket's jobs come, so that polls may be rare."""
        ...

    def polled(self, bucket: str, job_id: str) -> None:
        """Notes that a poll has found the end of a job."""
        ...


class LastSeen(Protocol):
    """The caches, without the cloud."""

    async def __call__(self, bucket: Bucket, job_id: str, *, within: float) -> PreviewJob | None:
        """The job as the caches have it, fresh or not, if it was read in the last seconds (`within`); None: not so."""
        ...


class TokenSecrets(Protocol):
    """Secrets of which the keys of page tokens are derived: the same at all replicas."""

    def secret_keys(self, name: str) -> Sequence[str]:
        """The secret key of the credential set of this name, then those that it replaced, newest first."""
        ...
