"""The server's certificate, key and client CA from PEM files, and gRPC credentials that reload them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

if TYPE_CHECKING:
    from pathlib import Path


class TlsFilesError(Exception):
    """TLS files that cannot be used; the message names the file and quotes nothing of it. `setting` is its key."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """Certificate, key and client CA for handshakes. The certificate expires at `not_after`, in Unix seconds."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    not_after: float

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """The material in gRPC's form."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_ca)


def load_tls(certificate: Path, key: Path, client_ca: Path | None) -> TlsMaterial:
    """Load a certificate chain, its key and the client CA. TlsFilesError unless all can be used.

    They are PEM, the key is that of the certificate, and the client CA has certificates of authorities only.
    """
    chain, secret = _read("certificate", certificate), _read("key", key)
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except ValueError:
        raise TlsFilesError("certificate", f"{certificate}: is no PEM file of a certificate") from None
    try:
        private = load_pem_private_key(secret, password=None)
    except (ValueError, TypeError):
        raise TlsFilesError("key", f"{key}: is no PEM file of a private key without password") from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise TlsFilesError("key", f"{key}: is not the key of {certificate}")
    return TlsMaterial(chain, secret, _authorities(client_ca), leaf.not_valid_after_utc.timestamp())


class TlsCredentials:
    """Server credentials that use the latest material in every handshake."""

    def __init__(self, material: TlsMaterial) -> None:
        self.replace(material)

    def replace(self, material: TlsMaterial) -> None:
        """Use this material from the next handshake on."""
        self._material, self._configuration = material, material.configuration()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for one listener. Client certificates are required when there is a client CA."""
        given = self._configuration

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            """The configuration if it has changed since the last call; runs in a thread of gRPC at each handshake.

            With every configuration gRPC replaces objects that handshakes in flight still use, at times with a crash.
            """
            nonlocal given
            if given is self._configuration:
                return None
            given = self._configuration
            return given

        return grpc.dynamic_ssl_server_credentials(
            given,
            # The stubs do not declare None, which means "unchanged".
            renewed,  # type: ignore[arg-type]
            require_client_authentication=self._material.client_ca is not None,
        )


def _authorities(path: Path | None) -> bytes | None:
    if path is None:
        return None
    found = _read("client_ca", path)
    try:
        certificates = x509.load_pem_x509_certificates(found)
        of_others = [each for each in certificates if not _may_sign(each)]
    except (ValueError, x509.DuplicateExtension):
        raise TlsFilesError("client_ca", f"{path}: is no PEM file of certificates") from None
    if of_others:
        name = of_others[0].subject.rfc4514_string() or "without a subject"
        raise TlsFilesError(
            "client_ca",
            f"{path}: the certificate {name} is that of no authority; name those of the authorities that have signed "
            "callers' certificates",
        )
    return found


def _may_sign(certificate: x509.Certificate) -> bool:
    """Whether a certificate may have signed others. Old authorities say nothing of it."""
    extensions = {type(each.value): each.value for each in certificate.extensions}
    basic, usage = extensions.get(x509.BasicConstraints), extensions.get(x509.KeyUsage)
    is_authority = not isinstance(basic, x509.BasicConstraints) or basic.ca
    return is_authority and (not isinstance(usage, x509.KeyUsage) or usage.key_cert_sign)


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsFilesError(setting, f"{path}: {error.strerror}") from None
