"""Names in client certificates, read by `cryptography`. That TLS has verified the chain is its caller's affair."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from cachetools import LRUCache
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from docpreview_gateway.access.directory import Unauthenticated

if TYPE_CHECKING:
    from pathlib import Path

REMEMBERED = 1024
Revoked = frozenset[tuple[bytes, int]]
"""Issuer's name in DER, and serial number."""

_LIST = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class RevocationsError(Exception):
    """Lists that cannot be used; the message names the file."""


def load_revoked(path: Path, client_ca: Path) -> Revoked:
    """Whom the lists in a PEM file revoke. RevocationsError unless each is signed by an authority of `client_ca`."""
    try:
        lists = [x509.load_pem_x509_crl(found) for found in _LIST.findall(path.read_bytes())]
        authorities = x509.load_pem_x509_certificates(client_ca.read_bytes())
    except OSError as error:
        raise RevocationsError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise RevocationsError(f"{path}: no PEM revocation list, or {client_ca} has no certificate") from None
    if not lists:
        raise RevocationsError(f"{path}: no PEM revocation list")
    for found in lists:
        if not any(_signed_by(found, authority) for authority in authorities):
            raise RevocationsError(f"{path}: a list that none of the authorities in {client_ca} has signed")
    return frozenset((found.issuer.public_bytes(), entry.serial_number) for found in lists for entry in found)


def _signed_by(found: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if found.issuer != authority.subject:
        return False
    try:
        return found.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # others are TypeErrors
    except (InvalidSignature, TypeError):
        return False


class _Read(NamedTuple):
    """What a certificate says, and what is wrong with it as a caller's."""

    names: tuple[str, ...]
    wrong: str
    not_after: float


class ClientCertificates:
    """The port `CertificateReader`. Certificates are remembered, so that a call costs a look-up."""

    def __init__(self) -> None:
        self._seen: LRUCache[bytes, _Read] = LRUCache(REMEMBERED)
        self._revoked: Revoked = frozenset()

    def revoke(self, revoked: Revoked) -> None:
        """These are nobody's from now on, and no others."""
        self._revoked = revoked
        self._seen.clear()

    def names(self, pem: bytes, now: float) -> tuple[str, ...]:
        """The certificate's one `spiffe://` name; without URIs its `dns:` names. Never a common name."""
        read = self._seen.get(pem)
        if read is None:
            read = self._seen[pem] = _read(pem, self._revoked)
        if read.wrong or now > read.not_after:
            raise Unauthenticated(read.wrong or "the client certificate has expired")
        return read.names


def _read(pem: bytes, revoked: Revoked) -> _Read:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        extensions = certificate.extensions
    except ValueError:
        return _Read((), "the client certificate cannot be read", 0.0)
    not_after = certificate.not_valid_after_utc.timestamp()
    if (certificate.issuer.public_bytes(), certificate.serial_number) in revoked:
        return _Read((), "the client certificate is revoked", not_after)
    if _is_authority(extensions):
        return _Read((), "the client certificate is an authority's", not_after)
    return _Read(*_names(extensions), not_after)


def _names(extensions: x509.Extensions) -> tuple[tuple[str, ...], str]:
    """The names, and what is wrong with them."""
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), "the client certificate has no subject alternative name"
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) > 1:
        return (), "the client certificate has more than one URI"
    if uris:
        # Any other URI is no name here: one that says "dns:..." must not pass for a DNS name.
        return tuple(uri for uri in uris if uri.startswith("spiffe://")), ""
    return tuple(f"dns:{name}" for name in names.get_values_for_type(x509.DNSName)), ""


def _is_authority(extensions: x509.Extensions) -> bool:
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            return True
        if isinstance(extension.value, x509.KeyUsage) and extension.value.key_cert_sign:
            return True
    return False
