# ruff: noqa: N818 - named by the situation, as gRPC's status codes are
"""What can go wrong with a call, as one tree of exceptions, divided by what a caller can do about it.

    DocPreviewError
    ├── InvalidRequest          change the request: `field_violations` names every bad field
    ├── NotFound                there is no such job, document or queue (any more)
    ├── Unauthenticated         bring a valid token or client certificate
    ├── PermissionDenied        ask those who run the gateway for the right
    ├── FailedPrecondition      put the bucket or the cloud account in order, then call again
    ├── TransientError          call again later, after `retry_delay` when it is known
    │   ├── Throttled               too many calls, or a quota is used up: `quota_violations` names the limit
    │   │   └── BudgetExhausted         the pages of the day or month are used up
    │   ├── Unavailable             gateway or cloud cannot be reached, or the gateway is stopping
    │   └── DeadlineExceeded        the deadline of the call has passed
    ├── OutcomeUnknown          a create may or may not have made a job: list the jobs before creating again
    └── InternalError           report it with `request_id` to those who run the gateway

Everything that the methods of DocPreviewClient raise because of a call is a DocPreviewError. Cancellation is not an
error: `asyncio.CancelledError` always passes through unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFacts:
    """What an error says beside code and message; whatever is not known is empty."""

    reason: str = ""
    retry_delay: timedelta | None = None
    field_violations: tuple[tuple[str, str], ...] = ()
    quota_violations: tuple[tuple[str, str], ...] = ()
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
        quota_violations: The limits that were reached, as pairs of subject (such as `caller:reports`) and description.
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
        self.quota_violations = facts.quota_violations
        self.metadata = dict(facts.metadata)
        self.request_id = facts.request_id

    def __str__(self) -> str:
        """Everything that helps to act, on one line."""
        parts = [f"{self.reason or self.code.name}: {self.message}"]
        parts += [f"{name}: {description}" for name, description in self.field_violations]
        if self.request_id:
            parts.append(f"request id {self.request_id}")
        return "; ".join(parts)


class InvalidRequest(DocPreviewError):
    """The request cannot be served as it is; repeating it is useless."""


class NotFound(DocPreviewError):
    """The job, document, bucket or queue does not exist (any more)."""


class Unauthenticated(DocPreviewError):
    """The gateway does not know who calls: the token or client certificate is missing, wrong or expired."""


class PermissionDenied(DocPreviewError):
    """The gateway knows the caller and refuses, or it is not configured for the bucket."""


class FailedPrecondition(DocPreviewError):
    """The request is fine, but bucket or cloud account are not in the state that it needs."""


class TransientError(DocPreviewError):
    """The same call can succeed later."""


class Throttled(TransientError):
    """Too many calls, or a quota or budget is used up. Nothing was accepted."""


class BudgetExhausted(Throttled):
    """The pages that the caller may make in this day or month (UTC) are used up, or too few are left for the job."""


class Unavailable(TransientError):
    """Gateway or cloud cannot be reached, or the gateway is stopping. A create was not accepted."""


class DeadlineExceeded(TransientError):
    """The deadline of the call has passed."""


class OutcomeUnknown(DocPreviewError):
    """A create was sent and its answer is lost: the job may or may not exist; repeating it may bill a second one."""


class InternalError(DocPreviewError):
    """Something unexpected happened in the gateway, or it answered in a way that this client does not know."""
