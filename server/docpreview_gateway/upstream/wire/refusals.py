"""Error replies of the cloud and their reasons, by error code, or by HTTP status for replies without a code.

Sources: vendor documents 436/53983 (CI error codes), 436/7730 (COS error codes). CI errors have no `Resource` element,
and bodies may be empty, HTML or JSON.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.model.errors import UpstreamError, UpstreamFacts
from docpreview_gateway.upstream.wire import xml as xml_codec

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
    402: r.ERROR_REASON_ACCOUNT_BLOCKED,
    403: r.ERROR_REASON_UPSTREAM_ACCESS_DENIED,
    405: r.ERROR_REASON_GATEWAY_MALFORMED_REQUEST,
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

_UNBOUND = re.compile(r"BucketUnBinded$|doc bucket unbinded|bucket's host is unavailable", re.IGNORECASE)
_MESSAGE_LENGTH = 256
_MAX_RETRY_AFTER = 300


def accepted(reply: HttpReply) -> bool:
    """Whether the status of a reply is 2xx."""
    return 200 <= reply.status < 300  # noqa: PLR2004 - as HTTP has it


def read(reply: HttpReply) -> UpstreamError:
    """The error in a reply whose status is not 2xx."""
    code, message, request_id = _details(reply)
    reason = _reason(reply.status, code, message)
    asked = _asked_wait(reply) if reason in RETRYABLE else 0.0
    facts = UpstreamFacts(code, reply.status, request_id or request_id_of(reply), asked)
    shown = f"the cloud answered {code or 'without a code'} (HTTP {reply.status})"
    if reason in _MESSAGE_IS_SAFE and message:
        shown += f": {message}"
    return UpstreamError(reason, shown, facts=facts, retry_after=asked or RETRYABLE.get(reason))


def request_id_of(reply: HttpReply) -> str:
    """The cloud's id of the request, whose header has another name in each of its two services; empty: none."""
    found = reply.headers.get("x-ci-request-id") or reply.headers.get("x-cos-request-id") or ""
    return found[:128] if found.isascii() and found.isprintable() else ""


def _reason(status: int, code: str, message: str) -> ErrorReason.ValueType:
    if _UNBOUND.search(code) or _UNBOUND.search(message):
        return r.ERROR_REASON_DOC_SERVICE_NOT_ENABLED
    if code == "AccessDenied" and "expired" in message.lower():
        return r.ERROR_REASON_CLOCK_SKEW
    if code in BY_CODE:
        return BY_CODE[code]
    if status in BY_STATUS:
        return BY_STATUS[status]
    if 300 <= status < 400:  # noqa: PLR2004 - redirects
        return r.ERROR_REASON_WRONG_REGION
    return r.ERROR_REASON_UPSTREAM_UNMAPPED if status < 500 else r.ERROR_REASON_UPSTREAM_UNAVAILABLE  # noqa: PLR2004


def _details(reply: HttpReply) -> tuple[str, str, str]:
    """Code, message and request id in the body, each empty when it is missing."""
    found = _xml_details(reply.body) or _json_details(reply.body) or {}
    code, message, request_id = (_clean(found.get(name, "")) for name in ("Code", "Message", "RequestId"))
    return (code if code.isalnum() else ""), message, request_id


def _xml_details(body: bytes) -> dict[str, str] | None:
    try:
        return xml_codec.texts(xml_codec.read(body, "Error"))
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
    """Seconds of the cloud's `Retry-After`, at most 300; 0 when it is not a number of at most three digits."""
    asked = reply.headers.get("retry-after", "")
    if asked.isascii() and asked.isdigit() and len(asked) <= len(str(_MAX_RETRY_AFTER)):
        return float(min(int(asked), _MAX_RETRY_AFTER))
    return 0.0
