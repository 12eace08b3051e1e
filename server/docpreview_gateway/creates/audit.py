"""Audit: one record of the outcome of every create whose request was read.

One that is refused before, such as by the caller's `methods`, has only the log line of its call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model.errors import GatewayError, NotPermitted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.creates.ports import AuditLog
    from docpreview_gateway.model.call import Call


def audited(
    create: Callable[[CreatePreviewJobRequest, Call], Awaitable[PreviewJob]], log: AuditLog
) -> Callable[[CreatePreviewJobRequest, Call], Awaitable[PreviewJob]]:
    """`create`, with the outcome of every call written to `log` once.

    The outcome is OK, the name of the error's reason, INTERNAL for any other exception, or CANCELLED.
    """

    async def audited_create(request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        outcome, job_id = "CANCELLED", ""
        try:
            job = await create(request, call)
            outcome, job_id = "OK", job.job_id
        except GatewayError as error:
            if isinstance(error, NotPermitted):
                call.response.rule = error.rule
            outcome = ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
            raise
        except Exception:
            outcome = "INTERNAL"
            raise
        finally:
            log.create_ended(request, call, outcome, job_id)
        return job

    return audited_create
