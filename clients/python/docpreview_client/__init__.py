"""Async client of the docpreview gateway.

    async with DocPreviewClient("dns:///docpreview:50051") as client:
        job = await client.create("docs-1250000000", "a.pptx", output_object="previews/a/${Number}.jpg")
        job = await client.wait(job.bucket, job.job_id, page_url_ttl=timedelta(minutes=10))
        print([page.url for page in job.result.pages])

Requests and replies are the messages of `docpreview.v1`; what their fields mean stands in the .proto files.
"""

from docpreview_client.client import DocPreviewClient
from docpreview_client.connection import Token
from docpreview_client.errors import (
    BudgetExhausted,
    DeadlineExceeded,
    DocPreviewError,
    ErrorFacts,
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    Throttled,
    TransientError,
    Unauthenticated,
    Unavailable,
)
from docpreview_client.options import ClientOptions, Deadlines, Patience, Tls
from docpreview_client.watching import TERMINAL_STATES

__all__ = [
    "TERMINAL_STATES",
    "BudgetExhausted",
    "ClientOptions",
    "DeadlineExceeded",
    "Deadlines",
    "DocPreviewClient",
    "DocPreviewError",
    "ErrorFacts",
    "FailedPrecondition",
    "InternalError",
    "InvalidRequest",
    "NotFound",
    "OutcomeUnknown",
    "Patience",
    "PermissionDenied",
    "Throttled",
    "Tls",
    "Token",
    "TransientError",
    "Unauthenticated",
    "Unavailable",
]
