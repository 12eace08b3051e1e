"""Detection of jobs that end, each reported once.

A job ends for this process when it reads it unfinished first and ended later. A job that had ended at its first read is
not reported: every read of an old job would count it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview.v1.preview_job_pb2 import JobFailure, PreviewJob
from docpreview_gateway.model.errors import echo
from docpreview_gateway.model.job_states import TERMINAL
from docpreview_gateway.upstream.ports import JobPages

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.upstream.ports import FailedJobs, UpstreamTelemetry

MOST = 20_000
"""Unfinished jobs that are tracked (about 5 MB); the oldest are dropped first."""


class JobEnds:
    """Tracks unfinished jobs by bucket and id, and reports to `telemetry` when one has ended.

    One that failed is reported to `failed` too, with its caller: the one whose call was the first to see it here, which
    is the one that created it unless another process did. `ended` gets every job that has ended.
    """

    def __init__(
        self,
        telemetry: UpstreamTelemetry,
        failed: FailedJobs | None = None,
        ended: Callable[[PreviewJob], None] | None = None,
        *,
        most: int = MOST,
    ) -> None:
        self._telemetry = telemetry
        self._failed = failed
        self._ended = ended
        self._most = most
        self._unfinished: dict[tuple[str, str], str] = {}

    def saw(self, job: PreviewJob, caller: str = "") -> None:
        """Record the state of a job that was read from the cloud for the caller of this name."""
        key = (job.bucket, job.job_id)
        if job.state not in TERMINAL:
            if key not in self._unfinished and len(self._unfinished) >= self._most:
                del self._unfinished[next(iter(self._unfinished))]
            self._unfinished.setdefault(key, caller)
        elif key in self._unfinished:
            caller = self._unfinished.pop(key)
            pages = JobPages(job.result.succeeded_page_count, job.result.failed_page_count)
            state = PreviewJob.State.Name(job.state).removeprefix("STATE_")
            self._telemetry.job_ended(state, _seconds(job), pages)
            if self._ended is not None:
                self._ended(job)
            if self._failed is not None and job.state == PreviewJob.STATE_FAILED:
                self._failed.job_failed(job.bucket, job.job_id, caller, _failure(job.failure))


def _failure(failure: JobFailure) -> str:
    """Why a job failed, in the contract's word, or in the cloud's where the contract has none."""
    if failure.reason == JobFailure.REASON_UNSPECIFIED:
        return echo(failure.code) or "UNSPECIFIED"
    return JobFailure.Reason.Name(failure.reason).removeprefix("REASON_")


def _seconds(job: PreviewJob) -> float | None:
    if not (job.HasField("create_time") and job.HasField("end_time")):
        return None
    return max(0.0, (job.end_time.ToNanoseconds() - job.create_time.ToNanoseconds()) / 1e9)
