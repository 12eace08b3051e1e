"""Notices jobs that end, each once: whoever saw a job unfinished and then sees it ended has seen it end.

A job that this process first meets when it has ended is not told: it ended before somebody else's eyes, or nobody's;
telling it at every read of an old job would count it many times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.model.job_states import TERMINAL
from docpreview_gateway.upstream.ports import JobPages

if TYPE_CHECKING:
    from docpreview_gateway.upstream.ports import UpstreamTelemetry

MOST = 20_000
"""Unfinished jobs that are remembered; the oldest make room. Some 5 MB."""


class JobEnds:
    """Remembers unfinished jobs by bucket and id, and tells `telemetry` when one has ended."""

    def __init__(self, telemetry: UpstreamTelemetry, *, most: int = MOST) -> None:
        self._telemetry = telemetry
        self._most = most
        self._unfinished: dict[tuple[str, str], None] = {}

    def saw(self, job: PreviewJob) -> None:
        """The cloud told how a job is."""
        key = (job.bucket, job.job_id)
        if job.state not in TERMINAL:
            if key not in self._unfinished and len(self._unfinished) >= self._most:
                del self._unfinished[next(iter(self._unfinished))]
            self._unfinished[key] = None
        elif key in self._unfinished:
            del self._unfinished[key]
            pages = JobPages(job.result.succeeded_page_count, job.result.failed_page_count)
            state = PreviewJob.State.Name(job.state).removeprefix("STATE_")
            self._telemetry.job_ended(state, _seconds(job), pages)


def _seconds(job: PreviewJob) -> float | None:
    if not (job.HasField("create_time") and job.HasField("end_time")):
        return None
    return max(0.0, (job.end_time.ToNanoseconds() - job.create_time.ToNanoseconds()) / 1e9)
