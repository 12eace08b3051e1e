"""Errors in replies: the cloud's own, by error code, or by HTTP status without a code, and replies of others.

Sources: vendor documents 436/53983 (CI error codes), 436/7730 (COS error codes). CI errors have no `Resource` element,
and bodies may be empty, HTML or JSON.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.model.errors import ForeignReply, GatewayError, ReplyTooLarge, UpstreamError, UpstreamFacts
from docpreview_gateway.upstream.wire import origin
from docpreview_gateway.upstream.wire import xml as xml_codec
from docpreview_gateway.upstream.wire.http import unix_time
from docpreview_gateway.upstream.wire.redaction import redacted

if TYPE_CHECKING:
    from docpreview.v1.error_reason_pb2 import ErrorReason
    from docpreview_gateway.upstream.wire.http import HttpReply

BY_CODE: dict[str, ErrorReason.ValueType] = {
    "InvalidArgument": r.ERROR_REASON_UPSTREAM_INVALID_ARGUMENT,
    "InvalidUrl": r.ERROR_REASON_UPSTREAM_INVALID_ARGUMENT,
    "MissingContent": r.ERROR_REASON_GATEWAY_MALFORMED_REQUEST,
    "InvalidContent": r.ERROR_REASON_GATEWAY_MALFORMED_REQUEST,
    "InvalidContentType": r.ERROR_REASON_GATEWAY_MALFORMED_REQUEST,
    "MalformedXML": r.ERROR_REASON_GATEWAY_MALFORMED_REQUEST,
    "BadDigest": r.ERROR_REASON_GATEWAY_MALFORMED_REQUEST,
    "MissingContentLength": r.ERROR_REASON_GATEWAY_MALFORMED_REQUEST,
    "MethodNotAllowed": r.ERROR_REASON_GATEWAY_MALFORMED_REQUEST,
    "InvalidHost": r.ERROR_REASON_UPSTREAM_HOST_REJECTED,
    "ResourceNotFound": r.ERROR_REASON_INPUT_OBJECT_NOT_FOUND,
    "ResourceAccessDenied": r.ERROR_REASON_INPUT_OBJECT_UNREADABLE,
    "ResourceDownloadFailed": r.ERROR_REASON_INPUT_OBJECT_UNREADABLE,
    "CIRoleNotExist": r.ERROR_REASON_CI_ROLE_MISSING,
    "WriteTargetBucketDenied": r.ERROR_REASON_OUTPUT_BUCKET_DENIED,
    "QueueNotFound": r.ERROR_REASON_QUEUE_NOT_FOUND,
    "NoSuchQueue": r.ERROR_REASON_QUEUE_NOT_FOUND,
    "QueueNotExist": r.ERROR_REASON_QUEUE_NOT_FOUND,
    "InvalidQueueId": r.ERROR_REASON_QUEUE_NOT_FOUND,
    "QueueNumLimit": r.ERROR_REASON_UPSTREAM_QUOTA,
    "BindedBucketNumLimit": r.ERROR_REASON_UPSTREAM_QUOTA,
    "NoSuchBucket": r.ERROR_REASON_BUCKET_NOT_FOUND,
    "NoSuchKey": r.ERROR_REASON_OBJECT_NOT_FOUND,
    "NoSuchJob": r.ERROR_REASON_JOB_NOT_FOUND,
    "AccessDenied": r.ERROR_REASON_UPSTREAM_ACCESS_DENIED,
    "RequestTimeTooSkewed": r.ERROR_REASON_CLOCK_SKEW,
    "SignatureExpired": r.ERROR_REASON_CLOCK_SKEW,
    "RequestHasExpired": r.ERROR_REASON_CLOCK_SKEW,
    "InvalidAccessKeyId": r.ERROR_REASON_UPSTREAM_CREDENTIALS,
    "SecretidNotExist": r.ERROR_REASON_UPSTREAM_CREDENTIALS,
    "SignatureDoesNotMatch": r.ERROR_REASON_UPSTREAM_CREDENTIALS,
    "MissingAuthorization": r.ERROR_REASON_UPSTREAM_CREDENTIALS,
    "InvalidAuthorization": r.ERROR_REASON_UPSTREAM_CREDENTIALS,
    "ExpiredToken": r.ERROR_REASON_UPSTREAM_CREDENTIALS,
    "SlowDown": r.ERROR_REASON_UPSTREAM_THROTTLED,
    "KmsFreqControl": r.ERROR_REASON_UPSTREAM_THROTTLED,
    "RequestLimitExceeded": r.ERROR_REASON_UPSTREAM_THROTTLED,
    "InternalError": r.ERROR_REASON_UPSTREAM_INTERNAL,
    "ServiceUnavailable": r.ERROR_REASON_UPSTREAM_UNAVAILABLE,
    "RequestTimeout": r.ERROR_REASON_UPSTREAM_TIMEOUT,
    "PermanentRedirect": r.ERROR_REASON_WRONG_REGION,
    "TemporaryRedirect": r.ERROR_REASON_WRONG_REGION,
    "UnavailableForLegalReasons": r.ERROR_REASON_ACCOUNT_BLOCKED,
    "PaymentRequired": r.ERROR_REASON_ACCOUNT_BLOCKED,
    "NotImplemented": r.ERROR_REASON_UPSTREAM_NOT_IMPLEMENTED,
}

BY_STATUS: dict[int, ErrorReason.ValueType] = {
    401: r.ERROR_REASON_UPSTREAM_CREDENTIALS,
    402: r.ERROR_REASON_ACCOUNT_BLOCKED,
    403: r.ERROR_REASON_UPSTREAM_ACCESS_DENIED,
    405: r.ERROR_REASON_GATEWAY_MALFORMED_REQUEST,
    407: r.ERROR_REASON_UPSTREAM_CREDENTIALS,
    408: r.ERROR_REASON_UPSTREAM_TIMEOUT,
    411: r.ERROR_REASON_GATEWAY_MALFORMED_REQUEST,
    429: r.ERROR_REASON_UPSTREAM_THROTTLED,
    451: r.ERROR_REASON_ACCOUNT_BLOCKED,
    500: r.ERROR_REASON_UPSTREAM_INTERNAL,
    501: r.ERROR_REASON_UPSTREAM_NOT_IMPLEMENTED,
}

OUTCOME_UNKNOWN = frozenset(
    {
        r.ERROR_REASON_UPSTREAM_INTERNAL,
        r.ERROR_REASON_UPSTREAM_UNAVAILABLE,
        r.ERROR_REASON_UPSTREAM_TIMEOUT,
        r.ERROR_REASON_UPSTREAM_BAD_RESPONSE,
    }
)
"""Reasons after which the cloud may have accepted a create."""

RETRYABLE = {
    r.ERROR_REASON_UPSTREAM_THROTTLED: 1.0,
    r.ERROR_REASON_UPSTREAM_INTERNAL: 1.0,
    r.ERROR_REASON_UPSTREAM_UNAVAILABLE: 1.0,
    r.ERROR_REASON_UPSTREAM_TIMEOUT: 1.0,
    r.ERROR_REASON_UPSTREAM_UNREACHABLE: 1.0,
    r.ERROR_REASON_UPSTREAM_BREAKER_OPEN: 1.0,
    r.ERROR_REASON_OVERLOADED: 1.0,
    r.ERROR_REASON_ACCOUNT_RATE_LIMITED: 1.0,
    r.ERROR_REASON_CLOCK_SKEW: 1.0,
}
"""Transient reasons, with the seconds after which to retry when the cloud sends no `Retry-After`."""

_MESSAGE_IS_SAFE = frozenset(
    {
        r.ERROR_REASON_UPSTREAM_INVALID_ARGUMENT,
        r.ERROR_REASON_INPUT_OBJECT_NOT_FOUND,
        r.ERROR_REASON_INPUT_OBJECT_UNREADABLE,
        r.ERROR_REASON_QUEUE_NOT_FOUND,
        r.ERROR_REASON_DOC_SERVICE_NOT_ENABLED,
        r.ERROR_REASON_UPSTREAM_UNMAPPED,
    }
)
"""Reasons whose errors include the cloud's message; messages of other reasons may contain keys and signatures."""

_NOT_ENABLED = re.compile(
    r"BucketUnBinded$|doc bucket unbinded|bucket's host is unavailable|processing service is not activated",
    re.IGNORECASE,
)
_DETAILS = ("Code", "Message", "RequestId")
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NAMES_A_JOB = b"JobId>"
_MESSAGE_LENGTH = 256
_MOST_OF_MESSAGE = 4096
_MAX_RETRY_AFTER = 300
_BUSY_ON_THE_WAY = frozenset({408, 429})
_START = 1024
"""Bytes of a body in which the name of its root is."""


def error_in(reply: HttpReply) -> UpstreamError | None:
    """The error that a reply of the job API stands for; None when CI sent it and it has a result.

    ForeignReply when CI did not send it: only CI can say that a job does not exist, or refuse a create.
    """
    if not origin.is_from_ci(reply):
        return foreign(reply)
    if not accepted(reply):
        return read(reply)
    return _error_of_accepted(reply)


def is_transient(error: Exception) -> bool:
    """Whether another attempt at a read may succeed."""
    if not isinstance(error, GatewayError):
        return False
    is_bad = error.reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE and not isinstance(error, ReplyTooLarge)
    return is_bad or error.reason in RETRYABLE


def accepted(reply: HttpReply) -> bool:
    """Whether the status of a reply is 2xx."""
    return 200 <= reply.status < 300  # noqa: PLR2004 - as HTTP has it


def read(reply: HttpReply) -> UpstreamError:
    """The error in a reply of the cloud whose status is not 2xx."""
    code, message, request_id = _details(reply)
    reason = _reason(reply.status, code, message)
    if not code and _NAMES_A_JOB in reply.body:
        # Status and body contradict each other: neither is believed.
        reason = r.ERROR_REASON_UPSTREAM_BAD_RESPONSE
    asked = _asked_wait(reply) if reason in RETRYABLE else 0.0
    facts = UpstreamFacts(code, reply.status, request_id or request_id_of(reply), asked)
    shown = f"the cloud answered {code or 'without a code'} (HTTP {reply.status})"
    if reason in _MESSAGE_IS_SAFE and message:
        shown += f": {message}"
    return UpstreamError(reason, shown, facts=facts, retry_after=asked or RETRYABLE.get(reason))


def foreign(reply: HttpReply) -> ForeignReply:
    """The error for a reply that the cloud did not send. Neither its words nor its `Retry-After` count."""
    shown = f"something on the way to the cloud answered in its place (HTTP {reply.status})"
    facts = UpstreamFacts(http_status=reply.status)
    if reply.status >= 500 or reply.status in _BUSY_ON_THE_WAY:  # noqa: PLR2004 - as HTTP has it
        reason = r.ERROR_REASON_UPSTREAM_UNAVAILABLE
        return ForeignReply(reason, shown, facts=facts, retry_after=RETRYABLE[reason])
    return ForeignReply(r.ERROR_REASON_UPSTREAM_BAD_RESPONSE, shown, facts=facts)


def request_id_of(reply: HttpReply) -> str:
    """The cloud's id of the request, whose header has another name in each of its two services; empty: none."""
    found = reply.headers.get("x-ci-request-id") or reply.headers.get("x-cos-request-id") or ""
    return found[:128] if found.isascii() and found.isprintable() else ""


def _error_of_accepted(reply: HttpReply) -> UpstreamError | None:
    """The error of an `Error` document that came with a status 2xx. An unknown code leaves open what was done."""
    if b"Error" not in reply.body[:_START] or _xml_details(reply.body) is None:
        return None
    error = read(reply)
    if error.reason != r.ERROR_REASON_UPSTREAM_UNMAPPED:
        return error
    return UpstreamError(r.ERROR_REASON_UPSTREAM_BAD_RESPONSE, error.message, facts=error.facts)


def _reason(status: int, code: str, message: str) -> ErrorReason.ValueType:
    if _NOT_ENABLED.search(code) or _NOT_ENABLED.search(message):
        return r.ERROR_REASON_DOC_SERVICE_NOT_ENABLED
    if code == "AccessDenied" and "expired" in message.lower():
        return r.ERROR_REASON_CLOCK_SKEW
    for known in (code, code.partition(".")[0]):
        if known in BY_CODE:
            return BY_CODE[known]
    if status in BY_STATUS:
        return BY_STATUS[status]
    if 300 <= status < 400:  # noqa: PLR2004 - redirects
        return r.ERROR_REASON_WRONG_REGION
    return r.ERROR_REASON_UPSTREAM_UNMAPPED if status < 500 else r.ERROR_REASON_UPSTREAM_UNAVAILABLE  # noqa: PLR2004


def _details(reply: HttpReply) -> tuple[str, str, str]:
    """Code, message without secrets, and request id in the body, each empty when it is missing."""
    found = _xml_details(reply.body) or _json_details(reply.body) or {}
    # Before it is cut: half a secret is one too.
    found["Message"] = redacted(found.get("Message", "")[:_MOST_OF_MESSAGE])
    code, message, request_id = (_clean(found.get(name, "")) for name in _DETAILS)
    return (code if _CODE.fullmatch(code) else ""), message, request_id


def _xml_details(body: bytes) -> dict[str, str] | None:
    try:
        root = xml_codec.read(body, "Error")
        return {name: xml_codec.text(root, name) for name in _DETAILS}
    except UpstreamError:
        return None


def _json_details(body: bytes) -> dict[str, str] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    names = {"Code": "code", "Message": "message", "RequestId": "request_id"}
    return {name: str(found.get(name) or found.get(other) or "") for name, other in names.items()}


def _clean(word: str) -> str:
    return "".join(character for character in word[:_MESSAGE_LENGTH] if character.isprintable())


def _asked_wait(reply: HttpReply) -> float:
    """Seconds of the cloud's `Retry-After`, at most 300; 0 without a valid one. A date counts from the reply's own."""
    asked = reply.headers.get("retry-after", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(_MAX_RETRY_AFTER if len(asked) > len(str(_MAX_RETRY_AFTER)) else min(int(asked), _MAX_RETRY_AFTER))
    then, now = unix_time(asked), unix_time(reply.headers.get("date", ""))
    return 0.0 if then is None or now is None else min(max(then - now, 0.0), _MAX_RETRY_AFTER)
