"""Mapping of errors to gRPC statuses: one table of codes, `google.rpc.Status` with exactly one ErrorInfo (AIP-193)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.model.errors import GatewayError, InvalidRequest, LimitReached, cut, echo

if TYPE_CHECKING:
    from google.protobuf.message import Message

DOMAIN = "docpreview"
DETAILS_KEY = "grpc-status-details-bin"

MAX_VIOLATIONS_BYTES = 2560
"""Bytes of a request's violations in a status; further ones are told after a repetition of the call."""

CODES: dict[r.ErrorReason.ValueType, StatusCode] = {
    r.ERROR_REASON_INVALID_REQUEST: StatusCode.INVALID_ARGUMENT,
    r.ERROR_REASON_MALFORMED_MESSAGE: StatusCode.INVALID_ARGUMENT,
    r.ERROR_REASON_BUCKET_NOT_CONFIGURED: StatusCode.PERMISSION_DENIED,
    r.ERROR_REASON_JOB_NOT_FOUND: StatusCode.NOT_FOUND,
    r.ERROR_REASON_INPUT_OBJECT_NOT_FOUND: StatusCode.NOT_FOUND,
    r.ERROR_REASON_QUEUE_NOT_FOUND: StatusCode.NOT_FOUND,
    r.ERROR_REASON_BUCKET_NOT_FOUND: StatusCode.NOT_FOUND,
    r.ERROR_REASON_OBJECT_NOT_FOUND: StatusCode.NOT_FOUND,
    r.ERROR_REASON_INPUT_OBJECT_UNREADABLE: StatusCode.FAILED_PRECONDITION,
    r.ERROR_REASON_CI_ROLE_MISSING: StatusCode.FAILED_PRECONDITION,
    r.ERROR_REASON_OUTPUT_BUCKET_DENIED: StatusCode.FAILED_PRECONDITION,
    r.ERROR_REASON_DOC_SERVICE_NOT_ENABLED: StatusCode.FAILED_PRECONDITION,
    r.ERROR_REASON_ACCOUNT_BLOCKED: StatusCode.FAILED_PRECONDITION,
    r.ERROR_REASON_UPSTREAM_UNMAPPED: StatusCode.FAILED_PRECONDITION,
    r.ERROR_REASON_UPSTREAM_ACCESS_DENIED: StatusCode.PERMISSION_DENIED,
    r.ERROR_REASON_UPSTREAM_INVALID_ARGUMENT: StatusCode.INVALID_ARGUMENT,
    r.ERROR_REASON_UPSTREAM_QUOTA: StatusCode.RESOURCE_EXHAUSTED,
    r.ERROR_REASON_UPSTREAM_THROTTLED: StatusCode.RESOURCE_EXHAUSTED,
    r.ERROR_REASON_REPLY_TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
    r.ERROR_REASON_CLOCK_SKEW: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_UPSTREAM_INTERNAL: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_UPSTREAM_UNAVAILABLE: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_UPSTREAM_TIMEOUT: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_UPSTREAM_UNREACHABLE: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_SHUTTING_DOWN: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_WATCH_LIMIT_REACHED: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN: StatusCode.UNKNOWN,
    r.ERROR_REASON_DEADLINE_EXCEEDED: StatusCode.DEADLINE_EXCEEDED,
    r.ERROR_REASON_GATEWAY_MALFORMED_REQUEST: StatusCode.INTERNAL,
    r.ERROR_REASON_UPSTREAM_HOST_REJECTED: StatusCode.INTERNAL,
    r.ERROR_REASON_UPSTREAM_CREDENTIALS: StatusCode.INTERNAL,
    r.ERROR_REASON_WRONG_REGION: StatusCode.INTERNAL,
    r.ERROR_REASON_UPSTREAM_BAD_RESPONSE: StatusCode.INTERNAL,
    r.ERROR_REASON_INTERNAL: StatusCode.INTERNAL,
    r.ERROR_REASON_UPSTREAM_NOT_IMPLEMENTED: StatusCode.UNIMPLEMENTED,
    r.ERROR_REASON_REQUEST_ID_REUSED: StatusCode.ALREADY_EXISTS,
    r.ERROR_REASON_CREATE_IN_PROGRESS: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_LEDGER_UNAVAILABLE: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_UPSTREAM_BREAKER_OPEN: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_OVERLOADED: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_RATE_LIMITED: StatusCode.RESOURCE_EXHAUSTED,
    r.ERROR_REASON_CONCURRENCY_LIMITED: StatusCode.RESOURCE_EXHAUSTED,
    r.ERROR_REASON_ACCOUNT_RATE_LIMITED: StatusCode.RESOURCE_EXHAUSTED,
    r.ERROR_REASON_PAGE_BUDGET_EXHAUSTED: StatusCode.RESOURCE_EXHAUSTED,
    r.ERROR_REASON_LIMITER_UNAVAILABLE: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
    r.ERROR_REASON_NOT_PERMITTED: StatusCode.PERMISSION_DENIED,
    r.ERROR_REASON_IDENTITY_UNAVAILABLE: StatusCode.UNAVAILABLE,
    r.ERROR_REASON_CREATE_OUTCOME_AMBIGUOUS: StatusCode.UNKNOWN,
    r.ERROR_REASON_PAGE_BUDGET_TOO_SMALL: StatusCode.RESOURCE_EXHAUSTED,
    r.ERROR_REASON_INPUT_OBJECT_EMPTY: StatusCode.FAILED_PRECONDITION,
    r.ERROR_REASON_INPUT_OBJECT_TOO_LARGE: StatusCode.FAILED_PRECONDITION,
    r.ERROR_REASON_INPUT_FORMAT_UNSUPPORTED: StatusCode.INVALID_ARGUMENT,
    r.ERROR_REASON_INPUT_FORMAT_MISMATCH: StatusCode.FAILED_PRECONDITION,
    r.ERROR_REASON_INPUT_ENCRYPTED: StatusCode.FAILED_PRECONDITION,
    r.ERROR_REASON_UPLOAD_NOT_FOUND: StatusCode.NOT_FOUND,
    r.ERROR_REASON_UPLOAD_INCOMPLETE: StatusCode.FAILED_PRECONDITION,
    r.ERROR_REASON_OBJECT_EXISTS: StatusCode.ALREADY_EXISTS,
}


RETRIES: dict[r.ErrorReason.ValueType, r.Retry.ValueType] = {
    r.ErrorReason.Value(value.name): value.GetOptions().Extensions[r.retry] for value in r.ErrorReason.DESCRIPTOR.values
}
"""What a program does with errors of a reason, as the contract says."""


class RichStatus(NamedTuple):
    """An error as the client gets it: code, message, and the serialised `google.rpc.Status` in `details`.

    `retry_after` is the error's, in seconds; `reason` is the one in its ErrorInfo; `final`: the call is not repeated
    within the time that its caller waits, whether or not there is a `retry_after`.
    """

    code: StatusCode
    message: str
    details: bytes
    retry_after: float | None
    reason: str
    final: bool = False


def rich_status(error: GatewayError, request_id: str, *, disclosed: bool = False) -> RichStatus:
    """The status of an error; `request_id` is added to the metadata of its ErrorInfo.

    Unless `disclosed`, the cloud's request id is left out: calls of several callers may share a request.
    """
    code = CODES[error.reason]
    message = cut(error.message)
    status = status_pb2.Status(code=code.value[0], message=message)
    reason = r.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
    for detail in _details(error, reason, request_id, disclosed=disclosed):
        status.details.add().Pack(detail)
    final = RETRIES[error.reason] != r.RETRY_NOW
    return RichStatus(code, message, status.SerializeToString(), _retry_after(error), reason, final)


def _retry_after(error: GatewayError) -> float | None:
    """The error's, unless no time helps: then another's, such as the cloud's, would only mislead."""
    return None if RETRIES[error.reason] == r.RETRY_NEVER else error.retry_after


def _details(error: GatewayError, reason: str, request_id: str, *, disclosed: bool) -> list[Message]:
    metadata = {name: echo(value) for name, value in error.metadata.items()} | {"request_id": request_id}
    if not disclosed:
        metadata.pop("upstream_request_id", None)
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)]
    if isinstance(error, InvalidRequest):
        details.append(_bad_request(error))
    if isinstance(error, LimitReached):
        violation = error_details_pb2.QuotaFailure.Violation(subject=error.subject, description=cut(error.message))
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    if (wait := _retry_after(error)) is not None:
        delay = Duration()
        delay.FromMilliseconds(int(wait * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _bad_request(error: InvalidRequest) -> error_details_pb2.BadRequest:
    found = error_details_pb2.BadRequest()
    for wrong in error.violations:
        found.field_violations.add(field=echo(wrong.field), description=cut(wrong.description))
        if found.ByteSize() > MAX_VIOLATIONS_BYTES:
            del found.field_violations[-1]
            break
    return found
