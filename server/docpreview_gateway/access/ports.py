"""What authentication needs from outside, and what it offers to the parts above."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from docpreview_gateway.model.callers import Caller


class Evidence(NamedTuple):
    """The credentials that a call brings.

    `authorization` has every value of that name; `certificate` gives the verified client certificate as PEM, empty when
    there is none.
    """

    authorization: tuple[str, ...]
    certificate: Callable[[], bytes]


class Authentication(Protocol):
    """Authenticates callers."""

    async def caller(self, evidence: Evidence) -> Caller:
        """The caller of a call with this evidence. Unauthenticated, or GatewayError when it cannot be verified now."""
        ...


class CertificateReader(Protocol):
    """Reads client certificates that TLS has verified."""

    def names(self, pem: bytes, now: float) -> tuple[str, ...]:
        """The certificate's `spiffe://` name, or its `dns:` names. Unauthenticated when it is no caller's."""
        ...


class TokenVerifier(Protocol):
    """Verifies signed tokens."""

    async def claims(self, token: str) -> Mapping[str, Any] | None:
        """Claims of a valid token; None when it is of another kind. Unauthenticated when it is wrong."""
        ...


class AccessTelemetry(Protocol):
    """Records reloads of files, and the life of the gateway's certificate."""

    def reloaded(self, what: str, outcome: Literal["ok", "invalid"]) -> None:
        """Records a new version of a file that is in use now, or is invalid, so that the old one stays in use."""
        ...

    def certificate_ends(self, at: float) -> None:
        """Records the Unix time at which the certificate shown to callers expires."""
        ...
