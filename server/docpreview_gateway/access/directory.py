"""Directory of callers by their credentials: names in certificates, static tokens, claims of signed tokens.

A certificate and a token that identify callers must identify the same one. After an invalid credential no other kind is
tried.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.access import tokens
from docpreview_gateway.model.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from docpreview_gateway.access.tokens import TokenHash
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.model.webhooks import WebhookTarget

MAX_TOKEN_LENGTH = 8192
"""Characters; longer tokens are rejected without parsing."""


class Unauthenticated(GatewayError):  # noqa: N818 - named as gRPC names it
    """A call without valid credentials. `why` is for the log: all causes have the same message for callers."""

    def __init__(self, why: str) -> None:
        super().__init__(
            reasons.ERROR_REASON_UNAUTHENTICATED,
            "the gateway needs a valid client certificate or `authorization: Bearer <token>` of a caller that it knows",
        )
        self.why = why


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of an issuer's tokens, with the value that identifies a caller."""

    issuer: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Directory:
    """The callers of a policy by name, certificate name (`spiffe://` or `dns:`), token id, and claim.

    `webhooks` are its targets of webhooks, by name.
    """

    callers: Mapping[str, Caller] = field(default_factory=lambda: MappingProxyType({}))
    names: Mapping[str, Caller] = field(default_factory=lambda: MappingProxyType({}))
    tokens: Mapping[str, tuple[TokenHash, Caller]] = field(default_factory=lambda: MappingProxyType({}))
    claims: Mapping[Claim, Caller] = field(default_factory=lambda: MappingProxyType({}))
    webhooks: Mapping[str, WebhookTarget] = field(default_factory=lambda: MappingProxyType({}))

    def by_names(self, names: Iterable[str]) -> Caller | None:
        """The caller of a verified certificate with these names, or None. Unauthenticated when there are several."""
        found = {caller.name: caller for name in names if (caller := self.names.get(name)) is not None}
        if len(found) > 1:
            raise Unauthenticated("the certificate's names belong to several callers")
        return next(iter(found.values()), None)

    def by_token(self, token: str) -> Caller | None:
        """The caller of a static token; None when it is unknown. The duration does not reveal which part is wrong."""
        parts = tokens.split(token)
        if parts is None:
            return None
        known, caller = self.tokens.get(parts[0], (tokens.DUMMY_HASH, None))
        return caller if known.matches(parts[1]) else None

    def by_claims(self, claims: Mapping[str, Any]) -> Caller | None:
        """The caller of a verified token with these claims, or None. Unauthenticated when there are several."""
        issuer = claims.get("iss", "")
        values = ((name, value) for name, value in claims.items() if isinstance(value, str))
        named = (self.claims.get(Claim(issuer, name, value)) for name, value in values)
        found = {caller.name: caller for caller in named if caller is not None}
        if len(found) > 1:
            raise Unauthenticated("the token's claims belong to several callers")
        return next(iter(found.values()), None)


def bearer(values: tuple[str, ...]) -> str | None:
    """The token in a call's `authorization` values; None without values. Unauthenticated unless they are one token."""
    if not values:
        return None
    if len(values) > 1:
        raise Unauthenticated("more than one authorization value")
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_LENGTH or " " in token:
        raise Unauthenticated("the authorization value is not `Bearer <token>`")
    return token
