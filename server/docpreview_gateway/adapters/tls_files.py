"""The server's certificate, key and authorities from PEM files, and gRPC credentials that follow them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

if TYPE_CHECKING:
    from pathlib import Path


class TlsFilesError(Exception):
    """Files that cannot be used together; the message names the file and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What a handshake needs. `not_after` is when the certificate ends, in Unix seconds."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    not_after: float

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """As gRPC takes it."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_ca)


def load_tls(certificate: Path, key: Path, client_ca: Path | None) -> TlsMaterial:
    """The files' contents, if they are a certificate, its own key and authorities. TlsFilesError otherwise."""
    chain, secret = _read(certificate), _read(key)
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except ValueError:
        raise TlsFilesError(f"{certificate}: no PEM certificate") from None
    try:
        private = load_pem_private_key(secret, password=None)
    except (ValueError, TypeError):
        raise TlsFilesError(f"{key}: no PEM private key without a password") from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise TlsFilesError(f"{key}: is not the key of {certificate}")
    return TlsMaterial(chain, secret, _authorities(client_ca), leaf.not_valid_after_utc.timestamp())


class TlsCredentials:
    """Server credentials whose every handshake uses the newest material."""

    def __init__(self, material: TlsMaterial) -> None:
        self.replace(material)

    def replace(self, material: TlsMaterial) -> None:
        """From the next handshake on."""
        self._material, self._configuration = material, material.configuration()

    def credentials(self) -> grpc.ServerCredentials:
        """To listen with, at one port. Clients must have a certificate when there are authorities for it."""
        given = self._configuration

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            """What is new since the last time, in a thread of gRPC.

            Each answer makes gRPC replace what handshakes that are under way still use, at times with a crash.
            """
            nonlocal given
            if given is self._configuration:
                return None
            given = self._configuration
            return given

        return grpc.dynamic_ssl_server_credentials(
            given,
            # The stubs do not know that None is "as before".
            renewed,  # type: ignore[arg-type]
            require_client_authentication=self._material.client_ca is not None,
        )


def _authorities(path: Path | None) -> bytes | None:
    if path is None:
        return None
    found = _read(path)
    try:
        x509.load_pem_x509_certificates(found)
    except ValueError:
        raise TlsFilesError(f"{path}: no PEM certificates") from None
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsFilesError(f"{path}: {error.strerror}") from None
