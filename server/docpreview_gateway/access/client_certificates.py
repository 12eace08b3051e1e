"""Caller names in client certificates, parsed by `cryptography`. TLS must have verified their chains."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from cachetools import LRUCache
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from docpreview_gateway.access.directory import Unauthenticated

if TYPE_CHECKING:
    from pathlib import Path

CACHED_CERTIFICATES = 1024
Revoked = frozenset[tuple[bytes, int]]
"""Revoked certificates, by the issuer's name in DER and the serial number."""

_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class RevocationsError(Exception):
    """A file of CRLs that cannot be used; the message names it."""


def load_revoked(path: Path, client_ca: Path) -> Revoked:
    """The certificates revoked by the CRLs in a PEM file. RevocationsError unless `client_ca` has signed each CRL."""
    try:
        crls = [x509.load_pem_x509_crl(pem) for pem in _CRL.findall(path.read_bytes())]
        authorities = x509.load_pem_x509_certificates(client_ca.read_bytes())
    except OSError as error:
        raise RevocationsError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise RevocationsError(f"{path}: not PEM revocation lists, or {client_ca} has no certificate") from None
    if not crls:
        raise RevocationsError(f"{path}: no PEM revocation list")
    for crl in crls:
        if not any(_signed_by(crl, authority) for authority in authorities):
            raise RevocationsError(f"{path}: has a revocation list that no authority in {client_ca} has signed")
    return frozenset((crl.issuer.public_bytes(), entry.serial_number) for crl in crls for entry in crl)


def _signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if crl.issuer != authority.subject:
        return False
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # others are TypeErrors
    except (InvalidSignature, TypeError):
        return False


class _Parsed(NamedTuple):
    """A parsed certificate; `problem` says why it cannot authenticate a caller, empty when it can."""

    names: tuple[str, ...]
    problem: str
    not_after: float


class ClientCertificates:
    """`CertificateReader` with a cache of parsed certificates."""

    def __init__(self) -> None:
        self._cache: LRUCache[bytes, _Parsed] = LRUCache(CACHED_CERTIFICATES)
        self._revoked: Revoked = frozenset()

    def revoke(self, revoked: Revoked) -> None:
        """Replace the set of revoked certificates."""
        self._revoked = revoked
        self._cache.clear()

    def names(self, pem: bytes, now: float) -> tuple[str, ...]:
        """The certificate's one `spiffe://` name; without URIs its `dns:` names. Never a common name.

        Unauthenticated when it has expired, is revoked, or cannot authenticate a caller. `now` is in Unix seconds.
        """
        parsed = self._cache.get(pem)
        if parsed is None:
            parsed = self._cache[pem] = _parse(pem, self._revoked)
        if parsed.problem or now > parsed.not_after:
            raise Unauthenticated(parsed.problem or "the client certificate has expired")
        return parsed.names


def _parse(pem: bytes, revoked: Revoked) -> _Parsed:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        extensions = certificate.extensions
    except ValueError:
        return _Parsed((), "the client certificate cannot be parsed", 0.0)
    not_after = certificate.not_valid_after_utc.timestamp()
    if (certificate.issuer.public_bytes(), certificate.serial_number) in revoked:
        return _Parsed((), "the client certificate is revoked", not_after)
    if _is_authority(extensions):
        return _Parsed((), "the client certificate is that of an authority", not_after)
    return _Parsed(*_names(extensions), not_after)


def _names(extensions: x509.Extensions) -> tuple[tuple[str, ...], str]:
    """The names, and the problem with them; empty: none."""
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), "the client certificate has no subject alternative name"
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) > 1:
        return (), "the client certificate has more than one URI"
    if uris:
        # Other URIs are ignored: one such as "dns:..." must not pass for a DNS name.
        return tuple(uri for uri in uris if uri.startswith("spiffe://")), ""
    return tuple(f"dns:{name}" for name in names.get_values_for_type(x509.DNSName)), ""


def _is_authority(extensions: x509.Extensions) -> bool:
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            return True
        if isinstance(extension.value, x509.KeyUsage) and extension.value.key_cert_sign:
            return True
    return False
