"""The edge: a real Envoy, configured by `edge-config`, before a real gateway."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client.parser import text_string_to_metric_families

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import (
    CreatePreviewJobRequest,
    ListPreviewJobsRequest,
    WaitPreviewJobRequest,
    WatchPreviewJobRequest,
)
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from tests.edge_process import PATIENCE, EdgeProcess, edge_settings, free_port
from tests.faults import http2
from tests.integration.conftest import BUCKET, REGION
from tests.integration.gateway_processes import Running, configuration, page, running
from tests.integration.identity import bearer, get
from tests.integration.test_certificates import BAD, DNS, GOOD, SPIFFE, URI, Authority, C, Site, kubernetes_swap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
HEADER = "x-forwarded-client-cert"


class Behind(NamedTuple):
    """A gateway and the edge before it."""

    emulator: Emulator
    gateway: Running
    edge: EdgeProcess


@asynccontextmanager
async def behind(folder: Path, **changes: Any) -> AsyncIterator[Behind]:
    async with Emulator() as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", DOCUMENT.read_bytes())
        ports = {"listen": f"127.0.0.1:{free_port()}", "edge": edge_settings()}
        path = configuration(emulator, folder, **ports | changes)
        async with EdgeProcess(path, folder / "edge") as edge, running(path) as gateway:
            yield Behind(emulator, gateway, edge)


@asynccontextmanager
async def with_site(site: Site, **changes: Any) -> AsyncIterator[Behind]:
    """With TLS, client certificates and the policy of the site."""
    tls = {"certificate": str(site.certificate), "key": str(site.key), "client_ca": str(site.client_ca)}
    async with behind(site.folder, **{"policy": {"file": str(site.policy.path)}, "tls": tls} | changes) as found:
        yield found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Files in a folder of their own."""
    return Site(tmp_path)


def channel(address: str) -> grpc.aio.Channel:
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
    return grpc.aio.insecure_channel(address, options=options)


async def metrics(gateway: Running) -> str:
    """The gateway's own."""
    _, text = await page(gateway.admin_port, "/metrics")
    return text


async def calls_of(gateway: Running, caller: str) -> float:
    """The number of calls that the gateway has answered a caller."""
    text = await metrics(gateway)
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "docpreview_caller_calls_total" and sample.labels["caller"] == caller
    )


async def test_certificates_name_the_same_callers_as_without_an_edge(site: Site) -> None:
    """Envoy verifies their chains; the policy does the rest."""
    async with with_site(site) as found:
        for name, make in GOOD.items():
            async with site.channel(found.edge.port, make(site)) as good:
                assert await get(good) == C.NOT_FOUND, name
        codes = {}
        for name, refused in BAD.items():
            async with site.channel(found.edge.port, refused(site)) as bad:
                codes[name] = await get(bad)
    assert {name: code for name, code in codes.items() if code not in {C.UNAUTHENTICATED, C.UNAVAILABLE}} == {}
    assert codes["none"] == C.UNAUTHENTICATED, "the handshake needs no certificate"


async def test_callers_with_a_token_need_no_certificate_on_the_same_port(site: Site) -> None:
    """Both kinds of callers at once, which the gateway alone cannot serve on one port."""
    token = bearer(site.policy.tokens["token"])
    async with with_site(site) as found:
        async with site.channel(found.edge.port, None) as plain:
            assert await get(plain, token) == C.NOT_FOUND
        async with site.channel(found.edge.port, site.authority.identity(URI(SPIFFE))) as certified:
            assert await get(certified) == C.NOT_FOUND
            assert await get(certified, token) == C.UNAUTHENTICATED, "of different callers"
        assert await calls_of(found.gateway, "token") == 1
        assert await calls_of(found.gateway, "one") == 1


async def test_a_forged_certificate_header_is_dropped(site: Site) -> None:
    """The caller is who the handshake says, or nobody."""
    _, stolen = site.authority.identity(URI(SPIFFE))
    forged = ((HEADER, f'Hash={"0" * 64};Cert="{quote(stolen, safe="")}"'),)
    async with with_site(site) as found:
        async with channel(f"127.0.0.1:{found.gateway.port}") as inside:
            assert await get(inside, forged) == C.NOT_FOUND, "it is what the edge would write"
        async with site.channel(found.edge.port, None) as nobody:
            assert await get(nobody, forged) == C.UNAUTHENTICATED
            assert await get(nobody, (*forged, *forged)) == C.UNAUTHENTICATED
        async with site.channel(found.edge.port, site.authority.identity(DNS("two.corp.example"))) as two:
            assert await get(two, forged) == C.NOT_FOUND
        assert await calls_of(found.gateway, "one") == 1
        assert await calls_of(found.gateway, "two") == 1


async def test_a_certificate_header_without_an_edge_is_no_identity(site: Site) -> None:
    """The gateway alone asks the handshake only."""
    _, stolen = site.authority.identity(URI(SPIFFE))
    forged = ((HEADER, f'Hash={"0" * 64};Cert="{quote(stolen, safe="")}"'),)
    unknown = site.authority.identity(DNS("three.corp.example"))
    async with (
        Emulator() as emulator,
        site.gateway(emulator) as gateway,
        site.channel(gateway.port, unknown) as three,
    ):
        assert await get(three, forged) == C.UNAUTHENTICATED


async def test_a_revoked_certificate_is_refused_behind_the_edge(site: Site) -> None:
    """By the gateway, on open connections too."""
    identity, other = (site.authority.identity(URI(SPIFFE)) for _ in range(2))
    crl = site.folder / "clients.crl"
    crl.write_bytes(site.authority.revocations())
    tls = {"certificate": site.certificate, "key": site.key, "client_ca": site.client_ca, "client_crl": crl}
    async with (
        with_site(site, tls={name: str(path) for name, path in tls.items()}) as found,
        site.channel(found.edge.port, identity) as revoked,
        site.channel(found.edge.port, other) as kept,
    ):
        assert await get(revoked) == C.NOT_FOUND
        crl.write_bytes(site.authority.revocations(identity[1]))
        async with asyncio.timeout(PATIENCE):
            while await get(revoked) != C.UNAUTHENTICATED:
                pass
        assert await get(kept) == C.NOT_FOUND


def command(folder: Path, *words: str, **values: Any) -> tuple[str, ...]:
    config = {
        "buckets": [{"name": BUCKET, "region": REGION, "credentials": "main"}],
        "credentials": {"main": {"secret_id": "x", "secret_key": "y"}},
    }
    path = folder / "command.yaml"
    path.write_text(json.dumps(config | values))
    return (sys.executable, "-m", "docpreview_gateway", *words, "--config", str(path))


async def run(*words: str) -> tuple[int | None, str, str]:
    """Exit code, output and errors."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, env=environment, stdout=pipe, stderr=pipe)
    said, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    return process.returncode, said.decode(), errors.decode()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"listen": "0.0.0.0:50050"}, "listen: 0.0.0.0:50050 is not on loopback"),
        ({"listen": "[::]:50050"}, "is not on loopback"),
        ({"listen": "127.0.0.1:50051"}, "edge.listen: has the port of listen"),
        ({"edge": {"listen": "edge.example:50051"}}, "edge.listen: must have the form IP:port"),
        ({"edge": {"listen": "0.0.0.0:50051", "admin_listen": "0.0.0.0:1"}}, "admin_listen must be on loopback"),
    ],
)
async def test_a_gateway_that_others_could_tell_certificates_does_not_start(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """It believes the header of whoever reaches `listen`, so only this machine may."""
    values = {"listen": "127.0.0.1:50050", "edge": {"listen": "0.0.0.0:50051"}, "auth": "insecure"} | changes
    code, _, errors = await run(*command(tmp_path, "serve", **values))
    assert code == 2
    assert said in errors


async def test_callers_of_an_edge_on_a_network_must_prove_who_they_are(tmp_path: Path) -> None:
    """The rules for `listen` hold for the address that callers reach."""
    values = {"listen": "127.0.0.1:50050", "edge": {"listen": "0.0.0.0:50051"}}
    code, _, errors = await run(*command(tmp_path, "serve", **values))
    assert code == 2
    assert "listen: 0.0.0.0:50051 is not on loopback, and callers would not have to prove who they are" in errors


async def test_edge_config_writes_a_folder_and_prints_the_command_that_uses_it(tmp_path: Path) -> None:
    """Without `edge.listen` it says what to set."""
    folder = tmp_path / "new" / "edge"
    values = {"listen": "127.0.0.1:50050", "edge": {"listen": "127.0.0.1:50051"}, "drain": {"delay_seconds": 7}}
    code, said, _ = await run(*command(tmp_path, "edge-config", str(folder), **values))
    assert (code, said) == (0, f"envoy -c {folder}/envoy.yaml --disable-hot-restart --drain-time-s 7\n")
    assert {path.name for path in folder.iterdir()} == {"envoy.yaml", "docpreview.binpb"}
    code, said, _ = await run(*command(tmp_path, "edge-config", str(folder), "--workers", "3", **values))
    assert code == 0
    assert "max_connections: 3000" in (folder / "envoy.yaml").read_text()
    code, _, errors = await run(*command(tmp_path, "edge-config", str(folder)))
    assert code == 2
    assert "edge.listen: is not set" in errors


@pytest.mark.parametrize("name", ["certificate", "key", "client_ca"])
async def test_edge_config_names_a_file_that_is_missing_and_writes_nothing(site: Site, name: str) -> None:
    """Envoy would start, and refuse every handshake."""
    missing: Path = getattr(site, name)
    missing.unlink()  # noqa: ASYNC240 - before anything runs
    tls = {"certificate": str(site.certificate), "key": str(site.key), "client_ca": str(site.client_ca)}
    policy = {"file": str(site.policy.path)}
    values = {"listen": "127.0.0.1:50050", "edge": {"listen": "127.0.0.1:50051"}, "policy": policy, "tls": tls}
    folder = site.folder / "edge"
    code, said, errors = await run(*command(site.folder, "edge-config", str(folder), **values))
    assert (code, said) == (1, "")
    assert f"{missing}: No such file" in errors
    assert not folder.exists()


async def shown(port: int) -> bytes:
    """The certificate that a new handshake gets, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found
    finally:
        writer.close()


async def test_rotated_certificates_are_shown_and_a_mismatched_pair_is_not(site: Site, tmp_path: Path) -> None:
    """As Kubernetes swaps them; calls go on meanwhile, and the gateway's metrics tell of both."""
    mount = tmp_path / "mount"

    def swap(version: int, *, mismatched: bool = False) -> bytes:
        key = site.key.read_bytes()
        site.renew()
        files = {"tls.crt": site.certificate.read_bytes(), "tls.key": key if mismatched else site.key.read_bytes()}
        kubernetes_swap(mount, files, version)
        return x509.load_pem_x509_certificate(files["tls.crt"]).public_bytes(Encoding.DER)

    first = swap(0)
    tls = {"certificate": str(mount / "tls.crt"), "key": str(mount / "tls.key"), "client_ca": str(site.client_ca)}
    async with with_site(site, tls=tls) as found, site.channel(found.edge.port, None) as honest:
        token = bearer(site.policy.tokens["token"])

        async def until(wanted: bytes) -> None:
            async with asyncio.timeout(PATIENCE):
                while await shown(found.edge.port) != wanted:
                    assert await get(honest, token) == C.NOT_FOUND

        await until(first)
        await until(swap(1))
        mismatched = swap(2, mismatched=True)
        async with asyncio.timeout(PATIENCE):
            while await found.edge.count("envoy_sds_key_rotation_failed", envoy_xds_resource_name="certificate") == 0:
                assert await shown(found.edge.port) != mismatched
        assert await shown(found.edge.port) != mismatched
        async with asyncio.timeout(PATIENCE):
            while 'docpreview_reloads_total{file="certificate",outcome="invalid"} 1.0' not in await metrics(
                found.gateway
            ):
                assert await get(honest, token) == C.NOT_FOUND
        await until(swap(3))


async def reloaded(gateway: Running, outcome: str) -> None:
    """Wait until the gateway has once tried another version of the certificate, with this outcome."""
    line = f'docpreview_reloads_total{{file="certificate",outcome="{outcome}"}} 1.0'
    async with asyncio.timeout(PATIENCE):
        while line not in await metrics(gateway):
            pass


@pytest.mark.parametrize("by", ["the gateway", "edge-config"])
async def test_a_removed_authority_is_not_trusted_after_a_refused_pair_was_taken_back(
    site: Site, tmp_path: Path, by: str
) -> None:
    """Envoy alone would keep the refused key, and with it refuse every change of the authorities."""
    mount, trusted, folder = tmp_path / "mount", tmp_path / "trusted", tmp_path / "edge"
    good = {"tls.crt": site.certificate.read_bytes(), "tls.key": site.key.read_bytes()}
    site.renew()
    kubernetes_swap(mount, good, 0)
    kubernetes_swap(trusted, {"ca.crt": site.client_ca.read_bytes()}, 0)
    tls = {"certificate": str(mount / "tls.crt"), "key": str(mount / "tls.key"), "client_ca": str(trusted / "ca.crt")}
    edge = edge_settings(**({"folder": str(folder)} if by == "the gateway" else {}))
    failed = "envoy_sds_key_rotation_failed"
    async with with_site(site, tls=tls, edge=edge) as found:

        async def code_of(authority: Authority) -> grpc.StatusCode:
            async with site.channel(found.edge.port, authority.identity(URI(SPIFFE))) as caller:
                return await get(caller)

        assert await code_of(site.authority) == C.NOT_FOUND
        kubernetes_swap(mount, good | {"tls.crt": site.certificate.read_bytes()}, 1)
        await reloaded(found.gateway, "invalid")
        assert await found.edge.count(failed, envoy_xds_resource_name="certificate") == 1
        kubernetes_swap(mount, good, 2)
        await reloaded(found.gateway, "ok")
        if by == "edge-config":
            again = (sys.executable, "-m", "docpreview_gateway", "edge-config", str(folder))
            assert (await run(*again, "--config", str(tmp_path / "gateway.yaml")))[0] == 0
        new = Authority("new")
        kubernetes_swap(trusted, {"ca.crt": new.pem}, 1)
        async with asyncio.timeout(PATIENCE):
            while await code_of(new) != C.NOT_FOUND:
                pass
        assert await code_of(site.authority) == C.UNAVAILABLE
        assert await found.edge.count(failed, envoy_xds_resource_name="authorities") == 0


async def test_the_edge_publishes_its_metrics_and_readiness_and_nothing_else(tmp_path: Path) -> None:
    """Its admin interface could end it."""
    async with behind(tmp_path) as found, channel(found.edge.listen) as honest:
        assert await get(honest) == C.NOT_FOUND
        assert await found.edge.count("envoy_cluster_upstream_rq_total", envoy_cluster_name="gateway") == 1
        assert (await found.edge.page("/ready"))[0] == 200
        async with httpx.AsyncClient(trust_env=False) as browser:
            for method, path in (
                ("POST", "/quitquitquit"),
                ("POST", "/drain_listeners"),
                ("GET", "/config_dump"),
                ("GET", "/stats"),
                ("GET", "/"),
                ("GET", "/stats/prometheus/../../config_dump"),
            ):
                answer = await browser.request(method, f"http://{found.edge.metrics}{path}")
                assert answer.status_code == 404, path
        assert await get(honest) == C.NOT_FOUND


async def test_the_documents_and_alerts_name_metrics_that_envoy_has(tmp_path: Path) -> None:
    """Of a running one, with TLS or without."""
    root = Path(__file__).parents[2]
    documents = (root / "docs/envoy/README.md", root / "helm/docpreview-gateway/rules/alerts.yaml")
    named = {name for document in documents for name in re.findall(r"\benvoy_\w+", document.read_text())}
    async with with_site(Site(tmp_path)) as found, channel(found.edge.listen) as stranger:
        assert await get(stranger) == C.UNAVAILABLE, "it speaks no TLS"
        _, text = await found.edge.page("/stats/prometheus")
    missing = {name for name in named if f"\n{name}{{" not in text}
    labels = {"envoy_http_conn_manager_prefix", "envoy_cluster_name", "envoy_xds_resource_name"}
    assert missing - labels == set()


async def unary(address: str, path: str) -> grpc.StatusCode:
    async with channel(address) as stranger:
        method: Any = stranger.unary_unary(path)
        call = method(b"", timeout=10)
        found: grpc.StatusCode = await call.code()
        return found


async def test_paths_outside_of_the_contract_are_unimplemented_and_never_reach_the_gateway(tmp_path: Path) -> None:
    """Each path exactly, with its query."""
    path = "/docpreview.v1.PreviewJobService/GetPreviewJob"
    others = (f"{path}?x=1", f"{path}/", f"/{path}", f"{path}X", "/docpreview.v1.PreviewJobService/Drop", "/x", "/")
    reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    async with behind(tmp_path) as found:
        for other in (*others, reflection):
            assert await unary(found.edge.listen, other) == C.UNIMPLEMENTED, other
        assert await found.edge.count("envoy_cluster_upstream_rq_total", envoy_cluster_name="gateway") == 0
        assert await unary(found.edge.listen, "/grpc.health.v1.Health/Check") == C.OK
        assert await unary(found.edge.listen, path) == C.INVALID_ARGUMENT


async def test_what_envoy_refuses_itself_is_a_status_in_json_too(tmp_path: Path) -> None:
    """Broken JSON, another method of HTTP, an unknown path, too much, and no gateway; callers of gRPC get a text."""
    get_job = "/docpreview.v1.PreviewJobService/GetPreviewJob"
    async with (
        behind(tmp_path) as found,
        httpx.AsyncClient(base_url=f"http://{found.edge.listen}", trust_env=False, timeout=PATIENCE) as browser,
    ):

        async def refused(method: str, path: str, content: bytes = b"") -> tuple[int, int, str]:
            answer = await browser.request(method, path, content=content)
            assert answer.headers["content-type"] == "application/json"
            return answer.status_code, answer.json()["code"], answer.json()["message"]

        status, code, message = await refused("POST", get_job, b"{bad")
        assert (status, code) == (400, 3)
        assert "Expected : between key:value pair" in message
        unknown = (404, 12, "no such method; call with POST")
        assert [await refused("POST", path, b"{}") for path in ("/x", f"{get_job}?x=1")] == [unknown] * 2
        assert [await refused("GET", path) for path in ("/x", get_job)] == [unknown] * 2
        assert (await refused("POST", get_job, b'{"bucket": "' + b"x" * 2_000_000))[:2] == (413, 8)
        assert await found.edge.count("envoy_cluster_upstream_rq_total", envoy_cluster_name="gateway") == 0
        found.gateway.process.kill()
        await found.gateway.process.wait()
        status, code, message = await refused("POST", get_job, b'{"bucket": "b"}')
        assert (status, code) == (503, 14)
        async with channel(found.edge.listen) as caller:
            method: Any = caller.unary_unary(get_job)
            call = method(b"", timeout=10)
            assert await call.code() == C.UNAVAILABLE
            assert not (await call.details()).startswith("{")


async def test_an_unknown_path_is_answered_when_the_message_has_come(tmp_path: Path) -> None:
    """Before, the call would have to be reset, and curl takes the reset of a whole answer for an error."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/x",
        ":authority": "x",
        "content-type": "application/json",
    }
    headers = http2.header_block([(name.encode(), value.encode()) for name, value in fields.items()])
    async with behind(tmp_path) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.edge.port)
        writer.write(http2.HELLO + http2.frame(http2.HEADERS, http2.END_HEADERS, 1, headers))
        writer.write(http2.frame(http2.PING, payload=b"x" * 8))
        buffer, kinds, is_sent, is_ended = bytearray(), [], False, False
        async with asyncio.timeout(PATIENCE):
            while not is_ended:
                buffer += await reader.read(65536)
                for frame in http2.frames(buffer):
                    if frame.stream == 1:
                        kinds.append(frame.kind)
                    is_ended |= frame.stream == 1 and bool(frame.flags & http2.END_STREAM)
                    if frame.kind == http2.PING and not is_sent:
                        assert kinds == []
                        writer.write(http2.frame(http2.DATA, http2.END_STREAM, 1, b"{}"))
                        is_sent = True
        writer.close()
    assert http2.RST_STREAM not in kinds
    assert is_sent


async def test_reflection_passes_the_edge_only_when_it_is_on(tmp_path: Path) -> None:
    """Of both versions, the gateway has v1alpha."""
    async with behind(tmp_path, reflection=True) as found:
        address = found.edge.listen
        path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        async with channel(address) as tool:
            method: Any = tool.stream_stream(path)
            call = method(iter([b":\x00"]), timeout=10)
            assert await call.read() != grpc.aio.EOF
            call.cancel()


async def test_connections_are_renewed_and_no_call_fails(tmp_path: Path) -> None:
    """`limits.connection_age_seconds` holds for callers' connections; a watch outlives its own."""
    changes = {"limits": {"connection_age_seconds": 1}, "watch": {"heartbeat_seconds": 0.2}}
    async with behind(tmp_path, **changes) as found, channel(found.edge.listen) as honest:
        stub: Any = PreviewJobServiceStub(honest)
        found.emulator.hold_jobs()
        create = CreatePreviewJobRequest(bucket=BUCKET, input_object="a.pdf", output=ObjectLocation(object="${Page}"))
        job = await stub.CreatePreviewJob(create, timeout=20)
        watch = stub.WatchPreviewJob(WatchPreviewJobRequest(bucket=BUCKET, job_id=job.job_id))
        renewed = "envoy_http_downstream_cx_max_duration_reached"
        async with asyncio.timeout(PATIENCE):
            while await found.edge.count(renewed, envoy_http_conn_manager_prefix="callers") < 3:
                assert await get(honest) == C.NOT_FOUND
                assert await watch.read() is not grpc.aio.EOF
        found.emulator.release_jobs()
        assert await end_of(watch) == (C.OK, None)


async def test_many_calls_on_one_connection_of_a_caller_are_spread_over_the_workers(tmp_path: Path) -> None:
    """The kernel spreads connections, so Envoy makes several."""
    async with behind(tmp_path, workers=2) as found, channel(found.edge.listen) as honest:
        stub: Any = PreviewJobServiceStub(honest)
        found.emulator.hold_jobs()
        create = CreatePreviewJobRequest(bucket=BUCKET, input_object="a.pdf", output=ObjectLocation(object="${Page}"))
        job = await stub.CreatePreviewJob(create, timeout=20)
        waited = WaitPreviewJobRequest(bucket=BUCKET, job_id=job.job_id)
        waits = [asyncio.ensure_future(stub.WaitPreviewJob(waited)) for _ in range(90)]
        of_gateway = {"envoy_cluster_name": "gateway"}
        async with asyncio.timeout(PATIENCE):
            while await found.edge.count("envoy_cluster_upstream_rq_active", **of_gateway) < len(waits):
                pass
        assert await found.edge.count("envoy_cluster_upstream_cx_active", **of_gateway) >= 4
        found.emulator.release_jobs()
        assert {done.job_id for done in await asyncio.gather(*waits)} == {job.job_id}


async def refused(port: int) -> bool:
    """Whether new connections are refused, within PATIENCE."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return True
            writer.close()
            await asyncio.sleep(0.05)


async def end_of(stream: Any) -> tuple[grpc.StatusCode, str | None]:
    """The status of a stream, after all of its messages."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()
    return C.OK, None


@pytest.mark.parametrize("workers", [1, 2])
async def test_drain_ends_in_the_right_order_and_calls_in_flight_finish(tmp_path: Path, workers: int) -> None:
    """SIGTERM to the gateway alone. Envoy serves on for the delay, then takes no connection, and ends what it has."""
    drain = {"delay_seconds": 2, "grace_seconds": 20}
    async with behind(tmp_path, workers=workers, drain=drain) as found, channel(found.edge.listen) as honest:
        stub: Any = PreviewJobServiceStub(honest)
        found.emulator.hold_jobs()
        create = CreatePreviewJobRequest(bucket=BUCKET, input_object="a.pdf", output=ObjectLocation(object="${Page}"))
        job = await stub.CreatePreviewJob(create, timeout=20)
        watch = stub.WatchPreviewJob(WatchPreviewJobRequest(bucket=BUCKET, job_id=job.job_id))
        assert (await watch.read()).job.state == PreviewJob.STATE_SUBMITTED
        found.gateway.process.send_signal(signal.SIGTERM)
        assert await get(honest) == C.NOT_FOUND, "the delay: served as before"
        # The cloud takes so long that the call ends when the listeners are closed.
        found.emulator.add_fault("latency", "list", seconds=6)
        slow = asyncio.ensure_future(stub.ListPreviewJobs(ListPreviewJobsRequest(bucket=BUCKET)))
        assert await refused(found.edge.port), "Envoy closes its listeners after the delay"
        assert not found.edge.has_ended
        assert found.gateway.process.returncode is None, "the gateway is there for what is in flight"
        assert not slow.done()
        assert [found.job_id for found in (await slow).jobs] == [job.job_id]
        assert await end_of(watch) == (C.UNAVAILABLE, "the gateway is stopping; try again")
        assert await asyncio.wait_for(found.gateway.process.wait(), PATIENCE) == 0
        assert not found.edge.has_ended
