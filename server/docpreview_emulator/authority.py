"""The certificate authority of an emulator with TLS, and its certificates for the names that clients ask for.

The authority is made at the first start and kept in the data directory. The certificates are not kept: all have one key
that lives as long as the process.
"""

import datetime as dt
import ipaddress
import secrets
import ssl
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from docpreview_emulator.clock import Clock
from docpreview_emulator.errors import StorageError
from docpreview_emulator.hosts import LOOPBACK_NAMES, read_host
from docpreview_emulator.private_files import create_private, private_folder

_DAY = dt.timedelta(days=1)
_CA_LIFE, _CA_REST, _LIFE = 3650 * _DAY, 60 * _DAY, 397 * _DAY
_MOST_NAMES = 1000
"""Contexts that are kept for names; an older one is made again."""


class Authority:
    """The authority in a folder. `names` are those of the machine; each host of the cloud has a certificate, too.

    Raises:
        StorageError: the folder cannot be used, or what is in it is no authority.
    """

    def __init__(self, folder: Path, names: Iterable[str] = LOOPBACK_NAMES) -> None:
        self.certificate_file = folder / "ca.crt"
        """The certificate that clients have to trust, as PEM."""

        self._folder = folder
        self._names = tuple(dict.fromkeys(names))
        self._now = dt.datetime.fromtimestamp(Clock().now(), dt.UTC)
        self._key, self._certificate = self._load_or_make(folder / "ca.key")
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._context_of = lru_cache(_MOST_NAMES)(self._make_context)

    def context(self) -> ssl.SSLContext:
        """The server's side of TLS: for each connection the certificate of the name that it asks for."""
        context = self._context_of(self._names)
        context.sni_callback = self._choose
        return context

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """Other names get the machine's certificate, and their clients say that it does not fit."""
        if name is not None and read_host(name) is not None:
            connection.context = self._context_of((name,))

    def _load_or_make(self, key_file: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        try:
            private_folder(self._folder)
            if key_file.exists() and self.certificate_file.exists():
                key = serialization.load_pem_private_key(key_file.read_bytes(), None)
                certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
                if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
                    raise _unusable(self._folder, "the key is not that of the certificate")
                key_file.chmod(0o600)
                if certificate.not_valid_after_utc > self._now + _CA_REST:
                    return key, certificate
            key, certificate = self._make_ca()
            with create_private(key_file) as file:
                file.write(_pem(key))
            with create_private(self.certificate_file) as file:
                file.write(certificate.public_bytes(serialization.Encoding.PEM))
        except (OSError, ValueError) as error:
            raise _unusable(self._folder, str(error)) from error
        return key, certificate

    def _make_ca(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        # Two authorities have two names: a store of trusted ones may hold both.
        name = _name(f"docpreview-emulator CA {secrets.token_hex(4)}")
        builder = self._builder(name, name, key.public_key(), _CA_LIFE)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return key, builder.add_extension(_usage(ca=True), critical=True).sign(key, hashes.SHA256())

    def _make_context(self, names: tuple[str, ...]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        # The standard library reads certificates from files only.
        with tempfile.NamedTemporaryFile(dir=self._folder) as file:
            certificate = self._make_certificate(names).public_bytes(serialization.Encoding.PEM)
            file.write(_pem(self._leaf_key) + certificate)
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def _make_certificate(self, names: tuple[str, ...]) -> x509.Certificate:
        public_key = self._leaf_key.public_key()
        builder = self._builder(_name("docpreview-emulator"), self._certificate.subject, public_key, _LIFE)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName(map(_alternative, names)), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(ca=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        return builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())

    def _builder(
        self, name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: dt.timedelta
    ) -> x509.CertificateBuilder:
        begin = self._now - _DAY  # for clients whose clocks are behind
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key)
        return builder.not_valid_after(begin + life).add_extension(identifier, critical=False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _unusable(folder: Path, problem: str) -> StorageError:
    return StorageError(f"{folder} has no usable authority ({problem}): remove it, and a new authority is made")
