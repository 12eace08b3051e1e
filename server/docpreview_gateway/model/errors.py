"""The errors that travel up through the gateway.

    GatewayError
    ├── InvalidRequest      the caller's fields, all violations at once
    ├── LimitReached        the caller, or the account, has used up what it may
    └── UpstreamError       the cloud refused, failed or could not be understood
        └── ReplyTooLarge   it said more than the gateway reads

Each carries an `ErrorReason` of the contract; `rpc.statuses` turns reasons into gRPC statuses in one table. Facts are
attributes; messages are written for callers and never hold secrets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docpreview.v1.error_reason_pb2 import ErrorReason


class GatewayError(Exception):
    """A call failed for a reason that the contract knows.

    `retry_after` is in seconds; None when repeating the call is pointless or its outcome unknown.
    """

    def __init__(self, reason: ErrorReason.ValueType, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def metadata(self) -> dict[str, str]:
        """Facts for `google.rpc.ErrorInfo.metadata`."""
        return {}


@dataclass(frozen=True, slots=True)
class Violation:
    """A bad field: its path in the request message, and what to do about it."""

    field: str
    description: str


class InvalidRequest(GatewayError):  # noqa: N818 - an error of the caller, named as gRPC names it
    """Fields of a request break the contract's rules. Nothing was sent."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        fields = ", ".join(dict.fromkeys(violation.field for violation in self.violations))
        super().__init__(reasons.ERROR_REASON_INVALID_REQUEST, f"invalid request: {fields}")


class LimitReached(GatewayError):  # noqa: N818 - a state of the caller's account
    """A limit lets no more pass for now. Nothing was sent.

    `subject` names whose limit it is and which. `final`: nobody should wait for it within a call, however patient.
    """

    def __init__(
        self, reason: ErrorReason.ValueType, message: str, *, subject: str, retry_after: float, final: bool = False
    ) -> None:
        super().__init__(reason, message, retry_after=retry_after)
        self.subject = subject
        self.final = final


@dataclass(frozen=True, slots=True)
class UpstreamFacts:
    """What the cloud said when it failed: its error code, HTTP status (0: no reply), request id, and `Retry-After`.

    `asked_wait` is in seconds; 0 when the cloud asked for none.
    """

    code: str = ""
    http_status: int = 0
    request_id: str = ""
    asked_wait: float = 0.0


class UpstreamError(GatewayError):
    """The cloud refused, failed, or gave a reply that cannot be understood."""

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
        """The facts that are known, under the names of the contract."""
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


def bad_response(message: str) -> UpstreamError:
    """The cloud answered, but not with what its documents promise."""
    return UpstreamError(reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE, message)
