"""How long an answer of the cloud may be given again, in seconds."""

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
    """Ages up to which answers count as fresh, and how much longer they may stand in when the cloud fails.

    A job in a terminal state never changes, so it stays fresh until its record's life ends.
    """

    active: float = 1.0
    missing: float = 2.0
    listing: float = 1.0
    stale: float = 300.0

    def of_job(self, job: PreviewJob, now: float) -> float:
        """For a job that was just read at Unix time `now`; 0 when its record may be gone."""
        if job.state not in TERMINAL:
            return self.active
        if not job.HasField("create_time"):
            return self.active
        return max(0.0, job.create_time.seconds + RECORD_LIFE - now)
