"""Names in client certificates, read by `cryptography`. That TLS has verified the chain is its caller's affair."""

from __future__ import annotations

from typing import NamedTuple

from cachetools import LRUCache
from cryptography import x509

from docpreview_gateway.core.identity import Unauthenticated

REMEMBERED = 1024


class _Read(NamedTuple):
    """What a certificate says, and what is wrong with it as a caller's."""

    names: tuple[str, ...]
    wrong: str
    not_after: float


class ClientCertificates:
    """The port `CertificateReader`. Certificates are remembered, so that a call costs a look-up."""

    def __init__(self) -> None:
        self._seen: LRUCache[bytes, _Read] = LRUCache(REMEMBERED)

    def names(self, pem: bytes, now: float) -> tuple[str, ...]:
        """The certificate's one `spiffe://` name; without URIs its `dns:` names. Never a common name."""
        read = self._seen.get(pem)
        if read is None:
            read = self._seen[pem] = _read(pem)
        if read.wrong or now > read.not_after:
            raise Unauthenticated(read.wrong or "the client certificate has expired")
        return read.names


def _read(pem: bytes) -> _Read:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        extensions = certificate.extensions
    except ValueError:
        return _Read((), "the client certificate cannot be read", 0.0)
    not_after = certificate.not_valid_after_utc.timestamp()
    if _is_authority(extensions):
        return _Read((), "the client certificate is an authority's", not_after)
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return _Read((), "the client certificate has no subject alternative name", not_after)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) > 1:
        return _Read((), "the client certificate has more than one URI", not_after)
    if uris:
        # Any other URI is no name here: one that says "dns:..." must not pass for a DNS name.
        return _Read(tuple(uri for uri in uris if uri.startswith("spiffe://")), "", not_after)
    return _Read(tuple(f"dns:{name}" for name in names.get_values_for_type(x509.DNSName)), "", not_after)


def _is_authority(extensions: x509.Extensions) -> bool:
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            return True
        if isinstance(extension.value, x509.KeyUsage) and extension.value.key_cert_sign:
            return True
    return False
