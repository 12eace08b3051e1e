"""Cache lifetimes, in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from docpreview_gateway.model.job_states import TERMINAL

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob

RECORD_LIFE = 30 * 24 * 3600
"""The cloud keeps a job's record for one month (vendor document 460/46943)."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """Cache lifetimes by kind, in seconds. A job in a terminal state is fresh as long as the cloud keeps its record."""

    active: float = 1.0
    """Of jobs that have not ended."""
    missing: float = 2.0
    """Of the answer that there is no such job."""
    listing: float = 1.0
    """Of pages of lists."""
    stale: float = 300.0
    """Additional time in which a job may be answered while the cloud fails."""

    def of(self, job: PreviewJob | None, now: float) -> float:
        """Lifetime of what was read at Unix time `now`; 0 when the cloud may have dropped the job's record."""
        if job is None:
            return self.missing
        if job.state not in TERMINAL or not job.HasField("create_time"):
            return self.active
        return max(0.0, job.create_time.seconds + RECORD_LIFE - now)

    def kept(self, job: PreviewJob | None, now: float) -> float:
        """Seconds for which other replicas keep it, stale copies included; 0: they need not have it."""
        fresh = self.of(job, now)
        return fresh + self.stale if fresh > 0 and job is not None else fresh
