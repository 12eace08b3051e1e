"""Ports of authentication, and telemetry of reloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from docpreview_gateway.model.callers import Caller


class Evidence(NamedTuple):
    """The credentials of a call.

    `authorization` has every value of that metadata key; `certificate` returns the client certificate, whose chain TLS
    has verified, as PEM, empty without one.
    """

    authorization: tuple[str, ...]
    certificate: Callable[[], bytes]


class Authentication(Protocol):
    """Authenticates calls."""

    async def caller(self, evidence: Evidence) -> Caller:
        """The caller. Unauthenticated without valid credentials; GatewayError when they cannot be verified now."""
        ...


class CertificateReader(Protocol):
    """Reads caller names from client certificates whose chain TLS has verified."""

    def names(self, pem: bytes, now: float) -> tuple[str, ...]:
        """Its `spiffe://` name, or its `dns:` names. Unauthenticated when it cannot authenticate a caller."""
        ...


class TokenVerifier(Protocol):
    """Verifies signed tokens."""

    async def claims(self, token: str) -> Mapping[str, Any] | None:
        """Claims of a valid token; None for tokens of another kind or issuer. Unauthenticated when it is invalid."""
        ...


class AccessTelemetry(Protocol):
    """Records reloads of files, and the life of the gateway's certificate."""

    def reloaded(self, what: str, outcome: Literal["ok", "invalid", "unreachable"]) -> None:
        """Records a new version of a file that is in use now, or is invalid, so that the old one stays in use.

        `unreachable`: the server that has it did not answer, or not with the file.
        """
        ...

    def file_refused(self, what: str, refused: bool) -> None:  # noqa: FBT001 - the value that is recorded
        """Records whether a file of this kind as it is on disk now is refused, or all are in use as they are."""
        ...

    def certificate_ends(self, at: float) -> None:
        """Records the Unix time at which the certificate shown to callers expires."""
        ...
