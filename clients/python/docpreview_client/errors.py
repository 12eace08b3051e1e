# ruff: noqa: N818 - named by the situation, as gRPC's status codes are
"""The client's exceptions, a tree organized by what a caller can do about an error.

    DocPreviewError
    ├── InvalidRequest          change the request: `field_violations` names every bad field
    ├── NotFound                there is no such job, document or queue (any more)
    ├── Unauthenticated         use a valid token or client certificate
    ├── PermissionDenied        ask the operators of the gateway for the permission
    ├── FailedPrecondition      put the bucket or the cloud account in order, then call again
    ├── TransientError          call again later, after `retry_delay` when it is known
    │   ├── Throttled               too many calls, or a quota is used up: `quota` names the limit
    │   ├── Unavailable             gateway or cloud cannot be reached, or the gateway is stopping
    │   └── DeadlineExceeded        the deadline of the call has passed
    ├── BudgetExhausted         the pages of the day or month are used up: wait for the next, or ask for more
    ├── OutcomeUnknown          a create may or may not have made a job: list the jobs before creating again
    ├── PreviewUnfinished       `preview` made a job but did not bring its pages home: go on with `job`, make no other
    └── InternalError           report it with `request_id` to the operators of the gateway

Everything that the methods of DocPreviewClient raise because of a call is a DocPreviewError. Cancellation is not an
error: `asyncio.CancelledError` always passes through unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import grpc

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client.retries import Retry, retry_of

# What gRPC says of addresses whose health service reports NOT_SERVING. The call was not sent.
_UNHEALTHY: Final = "backend unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFacts:
    """Fields of an error besides code and message; unknown ones are empty."""

    reason: str = ""
    retry_delay: timedelta | None = None
    field_violations: tuple[tuple[str, str], ...] = ()
    quota: tuple[tuple[str, str], ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""


class DocPreviewError(Exception):
    """A call that failed.

    Attributes:
        code: The gRPC status code.
        message: The gateway's sentence, or gRPC's own when no gateway answered.
        reason: Name of an `ErrorReason` without `ERROR_REASON_`, for example `JOB_NOT_FOUND`. Empty when the error
            does not come from the gateway itself (no connection, a local deadline, a proxy).
        retry_delay: How long to wait before the call is repeated; None when the gateway does not say.
        field_violations: Every bad field of the request, as pairs of field path and description.
        quota: The limits that were reached, as pairs of subject (such as `caller:reports`) and description.
        retry: Whether the same call may succeed: `now` (after `retry_delay`, else after a pause; creates only with the
            same `request_id`), `later` (when a person or a period has made room), `never` (until something else has
            changed). The contract says it of each reason.
        metadata: The metadata of the error's `google.rpc.ErrorInfo`, for example `upstream_request_id`.
        request_id: The gateway's id of the call. Empty when no gateway answered.
    """

    def __init__(self, message: str, *, code: grpc.StatusCode, facts: ErrorFacts | None = None) -> None:
        super().__init__(message)
        facts = facts or ErrorFacts()
        self.message = message
        self.code = code
        self.reason = facts.reason
        self.retry_delay = facts.retry_delay
        self.field_violations = facts.field_violations
        self.quota = facts.quota
        self.retry: Retry = retry_of(code, facts.reason)
        self.metadata = dict(facts.metadata)
        self.request_id = facts.request_id

    def __str__(self) -> str:
        """Reason, message, violations and request id on one line."""
        parts = [f"{self.reason or self.code.name}: {self.message}"]
        parts += [f"{name}: {description}" for name, description in self.field_violations]
        if self.request_id:
            parts.append(f"request id {self.request_id}")
        return "; ".join(parts)


class InvalidRequest(DocPreviewError):
    """The request is invalid; it must be changed before it is sent again."""


class NotFound(DocPreviewError):
    """The job, document, bucket or queue does not exist (any more)."""


class Unauthenticated(DocPreviewError):
    """The caller is not authenticated: its token or client certificate is missing, wrong or expired."""


class PermissionDenied(DocPreviewError):
    """The caller is not allowed to make this call, or the bucket is not configured in the gateway."""


class FailedPrecondition(DocPreviewError):
    """The request is valid, but bucket or cloud account are not in the required state."""


class TransientError(DocPreviewError):
    """The same call can succeed later."""


class Throttled(TransientError):
    """Too many calls, or a quota or budget is used up. Nothing was accepted."""


class BudgetExhausted(DocPreviewError):
    """The caller's page budget of this day or month (UTC) is used up, or too small for the job. Nothing was accepted.

    With the reason `PAGE_BUDGET_TOO_SMALL` the job never fits: select fewer pages, or ask for a larger budget.
    """


class Unavailable(TransientError):
    """Gateway or cloud cannot be reached, or the gateway is stopping. A create was not accepted."""


class DeadlineExceeded(TransientError):
    """The deadline of the call has passed."""


class OutcomeUnknown(DocPreviewError):
    """A create was sent and its answer is lost: the job may or may not exist; repeating it may bill a second one.

    With the reason `CREATE_OUTCOME_AMBIGUOUS` no later call can tell either: look at the jobs in the list that it may
    be. Only a new `request_id` makes a new job.

    Attributes:
        create_request_id: The `request_id` of the create: with it creating again is safe. Empty when there was none.
    """

    create_request_id = ""


class PreviewUnfinished(DocPreviewError):
    """`preview` has made a job, which is billed, and failed afterwards.

    Repeating `preview` makes a second job, unless it has the same `request_id`.

    Attributes:
        job: The job as it was last seen.
        cause: What failed: a DocPreviewError, an OSError of the directory, or what a callback raised.
    """

    def __init__(self, job: PreviewJob, cause: Exception) -> None:
        text = (
            f"job {job.job_id} was made and its pages are not all here: {cause}; go on with download: "
            f"wait({job.bucket!r}, {job.job_id!r}), then download"
        )
        request_id = cause.request_id if isinstance(cause, DocPreviewError) else ""
        super().__init__(text, code=grpc.StatusCode.UNKNOWN, facts=ErrorFacts(request_id=request_id))
        self.retry = "never"
        self.job = job
        self.cause = cause

    def __str__(self) -> str:
        """The message: its status and reason are those of the cause, which is in it."""
        return self.message


class InternalError(DocPreviewError):
    """An unexpected error in the gateway, or an answer that this client does not know."""


def is_drain(error: DocPreviewError) -> bool:
    """Whether the call was not sent because the gateway at every address is stopping, or not ready yet."""
    return not error.reason and _UNHEALTHY in error.message
