"""The gateway's exceptions.

    GatewayError
    ├── InvalidRequest      invalid fields of a request, all violations in one error
    ├── NotPermitted        a rule of the policy refuses the call
    ├── LimitReached        a limit of the caller or of the cloud account is reached
    └── UpstreamError       the cloud rejected a request, failed, or sent a reply that cannot be parsed
        ├── ReplyTooLarge   a reply is larger than the gateway reads
        └── ForeignReply    something on the way to the cloud answered in its place

Each has an `ErrorReason` of the contract; `rpc.statuses` maps reasons to gRPC statuses in one table. Facts are
attributes; messages are written for callers and never contain secrets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docpreview.v1.error_reason_pb2 import ErrorReason


SERVER_ERROR_CODES = frozenset(
    {"UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"}
)
"""gRPC status codes that may be the fault of the gateway or the cloud, not of the caller."""


MAX_ECHO = 64
"""Characters of a caller's text that messages and log lines repeat."""


def echo(text: str) -> str:
    """A caller's text as messages and log lines repeat it: whole, or its beginning and its length."""
    return text if len(text) <= MAX_ECHO else f"{text[:MAX_ECHO]}… ({len(text)} characters)"


MAX_TEXT_BYTES = 512
"""Bytes of UTF-8 of a text in a status, such as its message.

By default clients refuse trailers above 8 KiB, and with them the whole status. A message is there up to three times:
percent-encoded, in the details, and in a QuotaFailure.
"""


def cut(text: str) -> str:
    """The text, or its beginning when it is longer than a status may be."""
    if len(text) <= MAX_TEXT_BYTES // 4 or len(encoded := text.encode()) <= MAX_TEXT_BYTES:
        return text
    return encoded[:MAX_TEXT_BYTES].decode(errors="ignore") + "…"


class GatewayError(Exception):
    """A call failed for one of the contract's reasons.

    `retry_after` is in seconds; None when a retry is pointless or the outcome of the call is unknown.
    """

    def __init__(self, reason: ErrorReason.ValueType, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def metadata(self) -> dict[str, str]:
        """Entries for `google.rpc.ErrorInfo.metadata`."""
        return {}


@dataclass(frozen=True, slots=True)
class Violation:
    """An invalid field: its path in the request message, and how to correct it."""

    field: str
    description: str


class InvalidRequest(GatewayError):  # noqa: N818 - an error of the caller, named as gRPC names it
    """Fields of a request violate the contract's rules. Nothing was sent to the cloud."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        fields = ", ".join(dict.fromkeys(violation.field for violation in self.violations))
        super().__init__(reasons.ERROR_REASON_INVALID_REQUEST, f"invalid request: {fields}")


class NotPermitted(GatewayError):  # noqa: N818 - named as its reason
    """The policy does not allow the call. Nothing was sent to the cloud.

    `rule` is the path of the rule in the policy, for the log: it never has text from a call.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(reasons.ERROR_REASON_NOT_PERMITTED, message)
        self.rule = rule


class LimitReached(GatewayError):  # noqa: N818 - a state of the caller's account
    """A rate, concurrency or page limit is reached. Nothing was sent to the cloud.

    `subject` names the limit and its owner. Without `retry_after` waiting never helps: the request is larger than the
    whole limit.
    """

    def __init__(
        self,
        reason: ErrorReason.ValueType,
        message: str,
        *,
        subject: str,
        retry_after: float | None,
    ) -> None:
        super().__init__(reason, message, retry_after=retry_after)
        self.subject = subject


@dataclass(frozen=True, slots=True)
class UpstreamFacts:
    """Facts of a failed request to the cloud: error code, HTTP status (0: no reply) and the cloud's request id.

    `asked_wait` is the wait that its `Retry-After` asks for, in seconds; 0: none.
    """

    code: str = ""
    http_status: int = 0
    request_id: str = ""
    asked_wait: float = 0.0


class UpstreamError(GatewayError):
    """The cloud rejected a request, failed, or sent a reply that cannot be parsed."""

    def __init__(
        self,
        reason: ErrorReason.ValueType,
        message: str,
        *,
        facts: UpstreamFacts | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason, message, retry_after=retry_after)
        self.facts = facts or UpstreamFacts()

    @property
    def metadata(self) -> dict[str, str]:
        """The known facts, under the contract's names."""
        known = {
            "upstream_code": self.facts.code,
            "upstream_http_status": str(self.facts.http_status or ""),
            "upstream_request_id": self.facts.request_id,
        }
        return {name: value for name, value in known.items() if value}


class ReplyTooLarge(UpstreamError):  # noqa: N818 - a condition to react to: a list may be asked for in smaller pages
    """A reply has more bytes or elements than the gateway reads."""

    def __init__(self) -> None:
        super().__init__(reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE, "reply larger than the gateway reads")


class ForeignReply(UpstreamError):  # noqa: N818 - a condition to react to: it says nothing about the cloud
    """Something on the way to the cloud, such as a proxy, answered in its place: nothing is known of job or object."""


def bad_response(message: str) -> UpstreamError:
    """An error for a reply that does not match the cloud's documentation."""
    return UpstreamError(reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE, message)
