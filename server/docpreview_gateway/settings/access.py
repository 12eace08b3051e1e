"""Settings of authentication, TLS and the policy file."""

from __future__ import annotations

import ipaddress
from pathlib import Path  # noqa: TC003 - pydantic looks it up
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from docpreview_gateway.settings.limits import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

JwtAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Asymmetric ones only: with HS256 an attacker could sign with the public key."""


class JwtSettings(Section):
    """An issuer of signed tokens, and the source of its public keys."""

    issuer: str = Field(min_length=1, description="issuer of signed tokens (JWT), exactly as in their `iss` claim")
    audience: str = Field(min_length=1, description="required entry of the tokens' `aud` claim")
    jwks_file: Path | None = Field(
        None, description="JWKS file with the issuer's public keys, re-read when it changes; either this or `jwks_url`"
    )
    jwks_url: str | None = Field(
        None,
        pattern=r"^(https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/])\S+$",
        description="URL of the issuer's JWKS, https unless it is on this machine; fetched at start, every 10 "
        "minutes, and for a token with an unknown key, at most every 30 s",
    )
    algorithms: tuple[JwtAlgorithm, ...] = Field(
        ("RS256", "ES256"),
        min_length=1,
        description="accepted signature algorithms of tokens",
    )

    @model_validator(mode="after")
    def _one_source(self) -> JwtSettings:
        if (self.jwks_file is None) == (self.jwks_url is None):
            raise ValueError("must have one of jwks_file and jwks_url")
        return self


class AuthSettings(Section):
    """Authentication of callers beside client certificates (`tls`) and static tokens (in the policy)."""

    jwt: tuple[JwtSettings, ...] = ()


class TlsSettings(Section):
    """TLS files in PEM, re-read when they change."""

    certificate: Path | None = Field(
        None,
        description="PEM file of the server certificate with its chain, re-read when it changes; without it the "
        "gateway speaks plaintext",
    )
    key: Path | None = Field(None, description="PEM file of the certificate's private key")
    client_ca: Path | None = Field(
        None,
        description="PEM file of the authorities of client certificates, which every connection must then present; "
        "behind `edge.listen` it may, and callers with tokens need none",
    )
    client_crl: Path | None = Field(
        None,
        description="PEM file of revocation lists of these authorities, re-read when it changes; revoked certificates "
        "are rejected, on open connections too. Lists past their `nextUpdate` stay in force",
    )
    plaintext: bool = Field(
        default=False,
        description="TLS termination before the gateway, as by a mesh; allows a policy without a certificate off "
        "loopback",
    )

    @model_validator(mode="after")
    def _whole(self) -> TlsSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and key")
        if self.client_crl is not None and self.client_ca is None:
            raise ValueError("client_crl needs client_ca")
        if self.plaintext and self.certificate is not None:
            raise ValueError("plaintext, but there is a certificate; take one of them away")
        return self


class PolicySettings(Section):
    """The rights of callers."""

    file: Path | None = Field(
        None,
        description="YAML file of callers and their rights; without it everyone may do everything. See "
        "[security.md](security.md)",
    )


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address of the form host:port."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def access_mistakes(
    listen: str, *, auth: AuthSettings | Literal["insecure"], policy: PolicySettings, tls: TlsSettings
) -> Iterator[str]:
    """Problems: calls would need no authentication, or tokens no TLS, without a setting that says so."""
    if auth == "insecure":
        if policy.file is not None:
            yield "auth: insecure, but policy.file names callers; take one of them away"
        return
    if policy.file is None:
        if auth.jwt or tls.client_ca:
            yield "policy.file: is needed to say which callers the tokens and certificates belong to"
        elif not is_loopback(listen):
            yield (
                f"listen: {listen} is not on loopback, and callers would not have to prove who they are; name them in "
                "policy.file, or write auth: insecure when something before the gateway does that"
            )
    elif tls.certificate is None and not tls.plaintext and not is_loopback(listen):
        yield (
            "tls: tokens and answers on a network need certificate and key, or plaintext: true when something before "
            "the gateway does TLS"
        )
    issuers = [found.issuer for found in auth.jwt]
    if len(set(issuers)) < len(issuers):
        yield "auth.jwt: an issuer stands twice; give it one entry"
