"""What the layers above core need in order to know who calls, as small as each need is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from docpreview_gateway.model.callers import Caller


class Evidence(NamedTuple):
    """What a call brings to prove whose it is.

    `authorization` has every value of that name; `certificate` gives the verified client certificate as PEM, empty when
    there is none.
    """

    authorization: tuple[str, ...]
    certificate: Callable[[], bytes]


class Identification(Protocol):
    """Knows callers by what they prove."""

    async def caller(self, evidence: Evidence) -> Caller:
        """The caller. Unauthenticated when nothing is proved; GatewayError when it cannot be told now."""
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


class ReloadTelemetry(Protocol):
    """Hears of files that changed while the gateway runs."""

    def reloaded(self, what: str, outcome: Literal["ok", "invalid"]) -> None:
        """A new version was taken over, or was refused and the old one kept."""
        ...
