"""Audit: one record of the outcome of every create whose request was read.

One that is refused before, such as by the caller's `methods`, has only the log line of its call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.model import outcomes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.creates.ports import AuditLog
    from docpreview_gateway.model.call import Call


def audited(
    create: Callable[[CreatePreviewJobRequest, Call], Awaitable[PreviewJob]], log: AuditLog
) -> Callable[[CreatePreviewJobRequest, Call], Awaitable[PreviewJob]]:
    """`create`, with the outcome of every call written to `log` once."""

    async def audited_create(request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        job_id = ""
        with outcomes.audited(call, lambda outcome: log.create_ended(request, call, outcome, job_id)):
            job = await create(request, call)
            job_id = job.job_id
            return job

    return audited_create
