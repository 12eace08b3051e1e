"""The callers of a scenario, and their credentials: tokens or certificates."""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from docpreview_gateway.access import tokens
from tests.integration.identity import caller

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

STRANGER = "stranger"
"""A caller with well-formed but unknown credentials."""


class Authority:
    """A certificate authority."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        certificate = self._builder(self._name, self._key.public_key()).add_extension(constraints, critical=True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(_pem(certificate.sign(self._key, hashes.SHA256())))

    def issue(self, *names: x509.GeneralName) -> dict[str, str]:
        """Issue a certificate for these names; the paths of certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ignored")])
        certificate = self._builder(name, key.public_key()).add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
        base = self._folder / secrets.token_hex(8)
        paths = {"certificate_chain": base.with_suffix(".crt"), "private_key": base.with_suffix(".key")}
        paths["certificate_chain"].write_bytes(_pem(certificate.sign(self._key, hashes.SHA256())))
        paths["private_key"].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return {what: str(path) for what, path in paths.items()}

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)  # noqa: TID251 - TLS looks at the machine's clock too
        hour = dt.timedelta(hours=1)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        return (
            builder.serial_number(x509.random_serial_number()).not_valid_before(now - hour).not_valid_after(now + hour)
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass
class Callers:
    """The callers: the gateway's configuration for them, and their credentials for a runner."""

    changes: dict[str, Any] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)
    _certificates: dict[str, dict[str, str]] = field(default_factory=dict)
    _trusted: dict[str, str] | None = None

    @classmethod
    def of(cls, scenario: dict[str, Any], folder: Path) -> Callers:
        """The callers of a scenario, with their files in `folder`."""
        callers, mutual = cls(), scenario.get("tls") == "mutual"
        names = scenario.get("callers", {})
        if names:
            callers._write_policy(names, folder / "policy.yaml", mutual=mutual)
        if "tls" in scenario:
            callers._issue(names, folder, mutual=mutual)
        return callers

    def proof(self, name: str | None) -> dict[str, Any]:
        """`token` and `tls` of a step; without a name there are no credentials."""
        proof: dict[str, Any] = {"token": None, "tls": self._trusted}
        if name in self._certificates and self._trusted is not None:
            proof["tls"] = self._trusted | self._certificates[name]
        elif name is not None:
            proof["token"] = self._tokens[name]
        return proof

    def _write_policy(self, names: dict[str, Any], path: Path, *, mutual: bool) -> None:
        entries = {}
        for name, limits in names.items():
            self._tokens[name], kept = tokens.new(secrets.token_bytes)
            identity = {"dns": f"{name}.internal"} if mutual else {"token": str(kept)}
            entry = caller([identity], **(limits or {}))
            entry["buckets"][0]["outputs"][0]["prefixes"] = ["out/"]
            entries[name] = entry
        self._tokens[STRANGER], _ = tokens.new(secrets.token_bytes)
        path.write_text(yaml.safe_dump({"version": 1, "callers": entries}))
        self.changes["policy"] = {"file": path}

    def _issue(self, names: Iterable[str], folder: Path, *, mutual: bool) -> None:
        """Issue certificates; the server's is for the address, since runners get no server name."""
        authority, other = Authority(folder, "authority"), Authority(folder, "other-authority")
        server = authority.issue(x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost"))
        self.changes["tls"] = {"certificate": server["certificate_chain"], "key": server["private_key"]}
        self._trusted = {"root_certificates": str(authority.path)}
        if mutual:
            self.changes["tls"]["client_ca"] = str(authority.path)
            self._certificates = {name: authority.issue(x509.DNSName(f"{name}.internal")) for name in names}
            self._certificates[STRANGER] = other.issue(*(x509.DNSName(f"{name}.internal") for name in names))
