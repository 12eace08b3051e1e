"""Decoder of gRPC errors into the exceptions in `errors`.

The details of an error travel as `google.rpc.Status` in the trailing metadata. Details that cannot be read are left
out: an error that can be half understood is better than an error about an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from docpreview_client import errors

ERROR_DOMAIN: Final = "docpreview"
_DETAILS_KEY: Final = "grpc-status-details-bin"
_REQUEST_ID_KEY: Final = "x-request-id"

_BY_REASON: Final[dict[str, type[errors.DocPreviewError]]] = {
    "CREATE_OUTCOME_UNKNOWN": errors.OutcomeUnknown,
    "CREATE_OUTCOME_AMBIGUOUS": errors.OutcomeUnknown,
    # Its job may come to be: a caller that creates again with another id makes a second.
    "CREATE_IN_PROGRESS": errors.OutcomeUnknown,
    "REPLY_TOO_LARGE": errors.InvalidRequest,
    "PAGE_BUDGET_EXHAUSTED": errors.BudgetExhausted,
    "PAGE_BUDGET_TOO_SMALL": errors.BudgetExhausted,
}
_BY_CODE: Final[dict[grpc.StatusCode, type[errors.DocPreviewError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidRequest,
    grpc.StatusCode.ALREADY_EXISTS: errors.InvalidRequest,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Throttled,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    # A stopping gRPC server cancels calls that it has not yet begun: https://github.com/grpc/grpc/issues/41785
    grpc.StatusCode.CANCELLED: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}
# gRPC's own messages for calls that were never sent. Any other failure counts as "may have been sent".
_NEVER_SENT: Final = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "errors resolving",
    "DNS resolution failed",
)


@contextmanager
def errors_of_reads() -> Iterator[None]:
    """Raises gRPC's errors as DocPreviewErrors."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise decoded(error) from error


@contextmanager
def errors_of_creates() -> Iterator[None]:
    """Raises gRPC's errors as DocPreviewErrors, as OutcomeUnknown when a job may have been created."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise decoded(error, kind=errors.OutcomeUnknown if _leaves_outcome_open(error) else None) from error


def decoded(error: grpc.aio.AioRpcError, *, kind: type[errors.DocPreviewError] | None = None) -> errors.DocPreviewError:
    """The error as a DocPreviewError; `kind` overrides the class given by code and reason."""
    facts = _facts(error)
    kind = kind or _BY_REASON.get(facts.reason) or _BY_CODE.get(error.code(), errors.InternalError)
    return kind(error.details() or error.code().name, code=error.code(), facts=facts)


def _leaves_outcome_open(error: grpc.aio.AioRpcError) -> bool:
    """Whether a create that failed with this error may have been accepted.

    The gateway knows the outcome of a create and gives it in its reason. An error without a reason comes from in
    between: a deadline that passed here, or a connection that broke.
    """
    open_codes = (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    )
    never_sent = (error.details() or "").startswith(_NEVER_SENT)
    return error.code() in open_codes and not never_sent and not _facts(error).reason


def _facts(error: grpc.aio.AioRpcError) -> errors.ErrorFacts:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    bad, quota = error_details_pb2.BadRequest(), error_details_pb2.QuotaFailure()
    for detail in _details(error):
        for known in (info, retry, bad, quota):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
    ours = info.domain == ERROR_DOMAIN
    return errors.ErrorFacts(
        reason=info.reason if ours else "",
        retry_delay=retry.retry_delay.ToTimedelta() if retry.HasField("retry_delay") else None,
        field_violations=tuple((violation.field, violation.description) for violation in bad.field_violations),
        quota=tuple((violation.subject, violation.description) for violation in quota.violations),
        metadata=dict(info.metadata) if ours else {},
        request_id=(info.metadata.get("request_id", "") if ours else "") or _metadata(error).get(_REQUEST_ID_KEY, ""),
    )


def _details(error: grpc.aio.AioRpcError) -> list[Any]:
    try:
        return list(status_pb2.Status.FromString(_metadata(error).get(_DETAILS_KEY, b"")).details)
    except DecodeError:
        return []


def _metadata(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return {**dict(error.initial_metadata() or ()), **dict(error.trailing_metadata() or ())}
