"""Clients of the docpreview gateway: DocPreviewClient for asyncio, BlockingClient for everything else.

    with BlockingClient("dns:///docpreview:50051") as client:
        job, files = client.preview("slides.pptx", "pages", bucket="docs-1250000000")
        print(files)

Requests and replies are the messages of `docpreview.v1`; what their fields mean stands in the .proto files.
"""

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview_client.blocking import BlockingClient
from docpreview_client.call import CallFields
from docpreview_client.client import DocPreviewClient, Preview, PreviewFields
from docpreview_client.downloading import DownloadFields
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
    PreviewUnfinished,
    Throttled,
    TransientError,
    Unauthenticated,
    Unavailable,
)
from docpreview_client.options import ClientOptions, Deadlines, Patience, Tls
from docpreview_client.requests import CreateFields, ListFields
from docpreview_client.tokens import Token
from docpreview_client.watching import TERMINAL_STATES, JobError, JobEvent

__all__ = [
    "TERMINAL_STATES",
    "BlockingClient",
    "BudgetExhausted",
    "CallFields",
    "ClientOptions",
    "CreateFields",
    "DeadlineExceeded",
    "Deadlines",
    "DocPreviewClient",
    "DocPreviewError",
    "DownloadFields",
    "ErrorFacts",
    "FailedPrecondition",
    "InternalError",
    "InvalidRequest",
    "JobError",
    "JobEvent",
    "ListFields",
    "NotFound",
    "OutcomeUnknown",
    "Patience",
    "PermissionDenied",
    "Preview",
    "PreviewFields",
    "PreviewJob",
    "PreviewOptions",
    "PreviewUnfinished",
    "Throttled",
    "Tls",
    "Token",
    "TransientError",
    "Unauthenticated",
    "Unavailable",
]
