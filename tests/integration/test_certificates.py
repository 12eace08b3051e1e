"""Client certificates over real TLS: the callers that they authenticate, and the ones that are refused."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from docpreview_client import DocPreviewClient, NotFound, Tls, Unauthenticated
from docpreview_emulator import Emulator
from docpreview_gateway.settings.access import PolicySettings, TlsSettings
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, settings
from tests.integration.identity import Policy, bearer, caller, get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

C = grpc.StatusCode
NOW = dt.datetime.now(dt.UTC)  # noqa: TID251 - TLS reads the clock itself
DAY = dt.timedelta(days=1)
SPIFFE = "spiffe://corp.example/ns/one/sa/app"
URI, DNS = x509.UniformResourceIdentifier, x509.DNSName


class Authority:
    """A certificate authority that signs any name and extension."""

    def __init__(self, name: str = "corp") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = self._pem(self.certificate([], subject=self.name, key=self.key, authority=True))

    def certificate(
        self,
        names: list[x509.GeneralName],
        *,
        subject: x509.Name | None = None,
        key: ec.EllipticCurvePrivateKey,
        authority: bool = False,
        begin: dt.datetime = NOW - DAY,
        end: dt.datetime = NOW + DAY,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
        signs: bool = False,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "one.corp.example")]))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if signs:
            off = dict.fromkeys(
                ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
            )
            bits = x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, encipher_only=False, decipher_only=False, **off
            )
            builder = builder.add_extension(bits, critical=True)
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def identity(self, *names: x509.GeneralName, **changes: Any) -> tuple[bytes, bytes]:
        """Key and certificate with these names, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        found = self.certificate(list(names), key=key, **changes)
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return key.private_bytes(*form), self._pem(found)

    def revocations(self, *revoked: bytes, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
        """A revocation list of these certificates, as PEM; `key`: signed by another key."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name).last_update(NOW).next_update(NOW + DAY)
        for pem in revoked:
            serial = x509.load_pem_x509_certificate(pem).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(key or self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    @staticmethod
    def _pem(certificate: x509.Certificate) -> bytes:
        return certificate.public_bytes(serialization.Encoding.PEM)


class Site:
    """A gateway's files: its own certificate, and the authority of its callers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server_ca = trustme.CA()
        self.authority = Authority()
        self.certificate, self.key, self.client_ca = (folder / name for name in ("tls.crt", "tls.key", "ca.crt"))
        self.client_ca.write_bytes(self.authority.pem)
        self.renew()
        self.policy = Policy(folder / "policy.yaml")
        self.policy.callers["one"] = caller([{"spiffe": SPIFFE}, {"dns": "one.corp.example"}])
        self.policy.callers["two"] = caller([{"dns": "two.corp.example"}])
        self.policy.add("token")
        self.policy.write()

    def renew(self) -> None:
        """Write a new certificate of the server."""
        made = self.server_ca.issue_cert("localhost")
        made.private_key_pem.write_to_path(self.key)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))

    def gateway(self, emulator: Emulator, *, client_ca: bool = True) -> Gateway:
        tls = TlsSettings(certificate=self.certificate, key=self.key, client_ca=self.client_ca if client_ca else None)
        return Gateway(settings(emulator, policy=PolicySettings(file=self.policy.path), tls=tls))

    def channel(self, port: int, identity: tuple[bytes, bytes] | None) -> grpc.aio.Channel:
        key, chain = identity or (None, None)
        credentials = grpc.ssl_channel_credentials(self.server_ca.cert_pem.bytes(), key, chain)
        # A local subchannel pool: gRPC would share a connection between channels with equal arguments.
        return grpc.aio.secure_channel(
            f"localhost:{port}", credentials, options=[("grpc.use_local_subchannel_pool", 1)]
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Files in a folder of their own."""
    return Site(tmp_path)


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[Gateway]:
    async with Emulator() as emulator, site.gateway(emulator) as gateway:
        yield gateway


GOOD: dict[str, Callable[[Site], tuple[bytes, bytes]]] = {
    "SPIFFE": lambda s: s.authority.identity(URI(SPIFFE)),
    "SPIFFE and a DNS name": lambda s: s.authority.identity(URI(SPIFFE), DNS("x.example")),
    "DNS": lambda s: s.authority.identity(DNS("one.corp.example")),
    "one of several DNS names": lambda s: s.authority.identity(DNS("x.example"), DNS("one.corp.example")),
}

# What TLS itself refuses is UNAVAILABLE for the caller, what the gateway refuses is UNAUTHENTICATED.
BAD: dict[str, Callable[[Site], tuple[bytes, bytes] | None]] = {
    "none": lambda _: None,
    "another authority": lambda _: Authority().identity(URI(SPIFFE)),
    "another authority of the same name": lambda _: Authority("corp").identity(URI(SPIFFE)),
    "expired": lambda s: s.authority.identity(URI(SPIFFE), begin=NOW - 2 * DAY, end=NOW - DAY),
    "not yet valid": lambda s: s.authority.identity(URI(SPIFFE), begin=NOW + DAY, end=NOW + 2 * DAY),
    "for servers": lambda s: s.authority.identity(URI(SPIFFE), usage=ExtendedKeyUsageOID.SERVER_AUTH),
    "two URIs": lambda s: s.authority.identity(URI(SPIFFE), URI("spiffe://corp.example/ns/two")),
    "the same URI twice": lambda s: s.authority.identity(URI(SPIFFE), URI(SPIFFE)),
    "an authority's": lambda s: s.authority.identity(URI(SPIFFE), authority=True),
    "one that may sign certificates": lambda s: s.authority.identity(URI(SPIFFE), signs=True),
    "only a common name": lambda s: s.authority.identity(),
    "an unknown SPIFFE name": lambda s: s.authority.identity(URI("spiffe://corp.example/ns/three")),
    "another trust domain": lambda s: s.authority.identity(URI(SPIFFE.replace("corp.example", "evil.example"))),
    "a SPIFFE name that begins alike": lambda s: s.authority.identity(URI(SPIFFE + "2")),
    "an unknown URI beside a known DNS name": lambda s: s.authority.identity(
        URI("spiffe://corp.example/ns/three"), DNS("one.corp.example")
    ),
    "an unknown DNS name": lambda s: s.authority.identity(DNS("three.corp.example")),
    "a wildcard": lambda s: s.authority.identity(DNS("*.corp.example")),
    "a DNS name that says SPIFFE": lambda s: s.authority.identity(DNS(SPIFFE)),
    "a URI that says dns": lambda s: s.authority.identity(URI("dns:one.corp.example")),
    "two callers' DNS names": lambda s: s.authority.identity(DNS("one.corp.example"), DNS("two.corp.example")),
    "an e-mail address": lambda s: s.authority.identity(x509.RFC822Name("one@corp.example")),
    "the key of another certificate": lambda s: (Authority().identity()[0], s.authority.identity(URI(SPIFFE))[1]),
}


async def test_a_trusted_certificate_with_a_name_of_the_policy_is_accepted(site: Site) -> None:
    """A SPIFFE name, a DNS name, or several names of which one is known."""
    async with running(site) as gateway:
        for name, make in GOOD.items():
            async with site.channel(gateway.port, make(site)) as channel:
                assert await get(channel) == C.NOT_FOUND, name


async def test_any_other_certificate_is_refused(site: Site) -> None:
    """TLS refuses most of them, the policy the rest."""
    found = {}
    async with running(site) as gateway:
        for name, make in BAD.items():
            async with site.channel(gateway.port, make(site)) as channel:
                found[name] = await get(channel)
    assert {name: code for name, code in found.items() if code not in {C.UNAUTHENTICATED, C.UNAVAILABLE}} == {}
    assert found["two URIs"] == C.UNAUTHENTICATED


async def test_a_certificate_and_a_token_must_belong_to_the_same_caller(site: Site) -> None:
    """A certificate without a caller leaves authentication to the token."""
    token = bearer(site.policy.tokens["token"])
    async with running(site) as gateway:
        async with site.channel(gateway.port, site.authority.identity(DNS("sidecar.example"))) as channel:
            assert await get(channel, token) == C.NOT_FOUND
            assert await get(channel) == C.UNAUTHENTICATED
        async with site.channel(gateway.port, site.authority.identity(URI(SPIFFE))) as channel:
            assert await get(channel, token) == C.UNAUTHENTICATED
            assert await get(channel, bearer("x")) == C.UNAUTHENTICATED
            assert await get(channel) == C.NOT_FOUND


async def test_a_plain_text_call_to_a_tls_port_is_refused(site: Site) -> None:
    """The port serves TLS only."""
    async with running(site) as gateway, grpc.aio.insecure_channel(f"localhost:{gateway.port}") as channel:
        assert await get(channel) == C.UNAVAILABLE


async def test_the_python_client_authenticates_by_certificate_or_token_over_tls(site: Site) -> None:
    """`Tls` with a certificate, and `token` with TLS."""
    roots = site.server_ca.cert_pem.bytes()
    key, chain = site.authority.identity(URI(SPIFFE))
    async with running(site) as gateway:
        tls = Tls(root_certificates=roots, private_key=key, certificate_chain=chain)
        async with DocPreviewClient(f"localhost:{gateway.port}", tls=tls) as client:
            with pytest.raises(NotFound):
                await client.get(BUCKET, "d1")
    token = site.policy.tokens["token"]
    site.policy.callers = {"token": site.policy.callers["token"]}
    site.policy.write()
    async with Emulator() as emulator, site.gateway(emulator, client_ca=False) as gateway:
        tls = Tls(root_certificates=roots)
        async with DocPreviewClient(f"localhost:{gateway.port}", tls=tls, token=token) as client:
            with pytest.raises(NotFound):
                await client.get(BUCKET, "d1")
        async with DocPreviewClient(f"localhost:{gateway.port}", tls=tls, token="wrong") as client:
            with pytest.raises(Unauthenticated):
                await client.get(BUCKET, "d1")


async def test_the_python_command_authenticates_by_certificate_files(site: Site) -> None:
    """Without the certificate the command fails."""
    files = {"ca.pem": site.server_ca.cert_pem.bytes()}
    files["key.pem"], files["cert.pem"] = site.authority.identity(URI(SPIFFE))
    for name, content in files.items():
        (site.folder / name).write_bytes(content)
    (site.folder / "token").write_text(site.policy.tokens["token"])
    mutual = ("--cert", "cert.pem", "--key", "key.pem")
    async with running(site) as gateway:
        for options, expected in ((mutual, "NotFound"), ((*mutual, "--token-file", "token"), "Unauthenticated")):
            command = ("--target", f"localhost:{gateway.port}", "--ca", "ca.pem", *options, "get", BUCKET, "d1")
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "docpreview_client", *command, cwd=site.folder, stderr=asyncio.subprocess.PIPE
            )
            _, output = await process.communicate()
            assert process.returncode
            assert expected.upper() in output.decode().upper().replace("_", "").replace(" ", "")


def kubernetes_swap(mount: Path, files: dict[str, bytes], version: int) -> None:
    """Change a mounted secret as the kubelet does: a new directory and one swapped symlink."""
    folder = mount / f"..v{version}"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    link = mount / "..data_tmp"
    link.symlink_to(folder.name)
    os.replace(link, mount / "..data")  # noqa: PTH105 - a rename of the link itself
    for name in files:
        if not (mount / name).is_symlink():
            (mount / name).symlink_to(f"..data/{name}")


async def test_certificate_renewals_under_load_fail_no_call(  # noqa: PLR0915 - one story
    site: Site, tmp_path: Path
) -> None:
    """Renewals and a broken certificate while callers connect and call: no call fails."""
    mount = tmp_path / "mount"

    def swap(version: int, *, broken: bool = False) -> bytes:
        site.renew()
        key = b"broken" if broken else site.key.read_bytes()
        kubernetes_swap(mount, {"tls.crt": site.certificate.read_bytes(), "tls.key": key}, version)
        return site.certificate.read_bytes()

    swap(0)
    tls = TlsSettings(certificate=mount / "tls.crt", key=mount / "tls.key", client_ca=site.client_ca)
    identity = site.authority.identity(URI(SPIFFE))
    codes: list[grpc.StatusCode] = []
    done = asyncio.Event()

    async def calls(port: int) -> None:
        while not done.is_set():
            async with site.channel(port, identity) as channel:
                codes.extend([await get(channel) for _ in range(10)])

    async with (
        Emulator() as emulator,
        Gateway(settings(emulator, policy=PolicySettings(file=site.policy.path), tls=tls)) as gateway,
    ):
        callers = [asyncio.create_task(calls(gateway.port)) for _ in range(4)]

        async def reloaded(outcome: str, times: int) -> None:
            labels = {"file": "certificate", "outcome": outcome}
            async with asyncio.timeout(20):
                while gateway.registry.get_sample_value("docpreview_reloads_total", labels) != times:  # noqa: ASYNC110 - a metric
                    await asyncio.sleep(0.02)

        swap(1)
        await reloaded("ok", 1)
        swap(2, broken=True)
        await reloaded("invalid", 1)
        newest = swap(3)
        await reloaded("ok", 2)
        enough = max(200, len(codes) + 100)
        while len(codes) < enough:  # noqa: ASYNC110 - calls are counted, not announced
            await asyncio.sleep(0.02)
        done.set()
        await asyncio.gather(*callers)
        expiry = gateway.registry.get_sample_value(
            "docpreview_certificate_expiry_timestamp_seconds", {"certificate": "server"}
        )
    assert set(codes) == {C.NOT_FOUND}
    assert expiry == x509.load_pem_x509_certificate(newest).not_valid_after_utc.timestamp()


class TestRevoked:
    @asynccontextmanager
    async def running(self, site: Site, revocations: bytes) -> AsyncIterator[Gateway]:
        """A gateway with a revocation list."""
        path = site.folder / "crl.pem"
        path.write_bytes(revocations)
        tls = TlsSettings(certificate=site.certificate, key=site.key, client_ca=site.client_ca, client_crl=path)
        identity = PolicySettings(file=site.policy.path)
        async with Emulator() as emulator, Gateway(settings(emulator, policy=identity, tls=tls)) as gateway:
            yield gateway

    async def reloaded(self, gateway: Gateway, outcome: str) -> None:
        labels = {"file": "revocations", "outcome": outcome}
        async with asyncio.timeout(20):
            while gateway.registry.get_sample_value("docpreview_reloads_total", labels) != 1:  # noqa: ASYNC110 - a metric
                await asyncio.sleep(0.02)

    async def test_a_revoked_certificate_is_refused_and_another_of_the_same_name_accepted(self, site: Site) -> None:
        """The list names serial numbers."""
        lost, other = (site.authority.identity(URI(SPIFFE)) for _ in range(2))
        async with self.running(site, site.authority.revocations(lost[1])) as gateway:
            for identity, expected in ((lost, C.UNAUTHENTICATED), (other, C.NOT_FOUND)):
                async with site.channel(gateway.port, identity) as channel:
                    assert await get(channel) == expected

    async def test_a_changed_revocation_list_applies_to_open_connections(self, site: Site) -> None:
        """A list with a wrong signature is not loaded, and counted as `invalid`."""
        identity = site.authority.identity(URI(SPIFFE))
        path = site.folder / "crl.pem"
        async with (
            self.running(site, site.authority.revocations()) as gateway,
            site.channel(gateway.port, identity) as channel,
        ):
            assert await get(channel) == C.NOT_FOUND
            path.write_bytes(site.authority.revocations(identity[1]))
            await self.reloaded(gateway, "ok")
            assert await get(channel) == C.UNAUTHENTICATED
            path.write_bytes(site.authority.revocations(key=ec.generate_private_key(ec.SECP256R1())))
            await self.reloaded(gateway, "invalid")
            assert await get(channel) == C.UNAUTHENTICATED

    @pytest.mark.parametrize("kind", ["empty", "no list", "foreign"])
    async def test_an_unusable_revocation_list_fails_the_start_and_names_the_file(self, site: Site, kind: str) -> None:
        """An empty file, a certificate in its place, and another authority's list."""
        forms = {"empty": b"", "no list": site.authority.pem, "foreign": Authority().revocations()}
        with pytest.raises(StartError, match=r"crl\.pem: "):
            async with self.running(site, forms[kind]):
                pass
