"""States of jobs."""

from __future__ import annotations

from docpreview.v1.preview_job_pb2 import PreviewJob

TERMINAL = frozenset({PreviewJob.STATE_SUCCESS, PreviewJob.STATE_FAILED, PreviewJob.STATE_CANCELLED})
