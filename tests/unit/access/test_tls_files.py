"""The client CA of the gateway: certificates of authorities, which alone can have signed those of callers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from docpreview_gateway.access.tls_files import TlsFilesError, TlsMaterial, load_tls

if TYPE_CHECKING:
    from pathlib import Path


def pem(*extensions: x509.ExtensionType) -> bytes:
    """A certificate with these extensions."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "callers")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def usage(*, signs_certificates: bool) -> x509.KeyUsage:
    rest = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
        **rest,
    )


OF_AUTHORITY = x509.BasicConstraints(ca=True, path_length=None)
OF_ANOTHER = x509.BasicConstraints(ca=False, path_length=None)


def loaded(folder: Path, client_ca: bytes) -> TlsMaterial:
    own = trustme.CA().issue_cert("localhost")
    own.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    own.private_key_pem.write_to_path(folder / "tls.key")
    (folder / "ca.crt").write_bytes(client_ca)
    return load_tls(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")


@pytest.mark.parametrize(
    "extensions", [[OF_AUTHORITY], [OF_AUTHORITY, usage(signs_certificates=True)], []], ids=["CA", "usage", "old"]
)
def test_certificates_of_authorities_are_a_client_ca(tmp_path: Path, extensions: list[x509.ExtensionType]) -> None:
    """Old ones do not say that they are one."""
    authorities = pem(*extensions) + pem(OF_AUTHORITY)
    assert loaded(tmp_path, authorities).client_ca == authorities


@pytest.mark.parametrize(
    "extensions",
    [[OF_ANOTHER], [OF_AUTHORITY, usage(signs_certificates=False)], [usage(signs_certificates=False)]],
    ids=["no CA", "may not sign", "says nothing and may not sign"],
)
def test_a_certificate_that_signs_no_others_is_refused_as_client_ca_with_its_name(
    tmp_path: Path, extensions: list[x509.ExtensionType]
) -> None:
    """Handshakes would fail with each certificate that an authority has signed: callers see `Socket closed`."""
    with pytest.raises(TlsFilesError, match=r"ca\.crt: the certificate CN=callers is that of no authority") as refused:
        loaded(tmp_path, pem(OF_AUTHORITY) + pem(*extensions))
    assert refused.value.setting == "client_ca"
