"""What the commands of a document find: an emulator and a gateway behind its edge, or nothing but free ports."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import trustme
from aiohttp import web

from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from tests.documents.session import Session
from tests.edge_process import EdgeProcess, edge_settings, free_port
from tests.integration.conftest import REGION
from tests.integration.gateway_processes import Running, configuration, running
from tests.packaging.project import ROOT
from tests.prometheus_server import running_prometheus
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    Sessions = Callable[[Path], Session]
    """Makes a session in a folder."""

BUCKETS = ("docs-1250000000", "documents-1250000000", "examplebucket-1250000000")
"""The buckets of the documents."""
EDGE_LOG = "[warning][config] Failed to reload certificates: Failed to load certificate chain from <inline>\n"
_SLIDES = ROOT / "examples" / "normal.pptx"
_PAGES = ROOT / "examples" / "seven-pages.pdf"
_DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")


class Served(NamedTuple):
    """Servers of a document, and what is where."""

    emulator: Emulator
    gateway: Running
    edge: EdgeProcess
    configuration: Path


def fresh(folder: Path) -> Session:
    """For a document whose commands start emulator and gateway themselves."""
    emulator, gateway, admin = (f"127.0.0.1:{free_port()}" for _ in range(3))
    replaced = {"127.0.0.1:50051": gateway, "127.0.0.1:8089": emulator, "127.0.0.1:9464": admin}
    return Session(
        folder,
        replaced,
        EMULATOR=emulator,
        DOCPREVIEW_LISTEN=gateway,
        DOCPREVIEW_ADMIN_LISTEN=admin,
        DOCPREVIEW_TARGET=gateway,
        DOCPREVIEW_UPSTREAM__ENDPOINT=f"http://{emulator}",
        DOCPREVIEW_UPSTREAM__OBJECT_URL_BASE=f"http://{emulator}/_emulator/objects/{{host}}",
    )


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Sessions]:
    """For a document whose reader has a gateway, with documents in its buckets and a job."""
    async with _serving(folder) as servers:
        job = await _a_job(servers)

        def session(place: Path) -> Session:
            reader = Session(
                place,
                {
                    "127.0.0.1:50051": servers.gateway.address,
                    "dns:///docpreview:50051": servers.gateway.address,
                    "https://localhost:50051": f"https://localhost:{servers.edge.port}",
                    "/etc/docpreview": str(folder),
                    "/var/lib/docpreview": str(folder),
                    "JOB_ID": job,
                },
                DOCPREVIEW_TARGET=servers.gateway.address,
                CURL_CA_BUNDLE=str(folder / "client-ca" / "ca.crt"),
                NO_PROXY="127.0.0.1,localhost",
            )
            reader.write("gateway.yaml", (ROOT / "docs" / "envoy" / "gateway.yaml").read_text())
            reader.write("cloud.yaml", "secret_id: example\nsecret_key: example\n")
            (reader.folder / "slides.pptx").symlink_to(_SLIDES)
            return reader

        yield session


@asynccontextmanager
async def paged(folder: Path) -> AsyncIterator[Sessions]:
    """For a runbook: also a Redis server, Prometheus, an issuer of tokens, and the log of the gateway."""
    with running_redis(folder, *_DURABLE) as redis:
        shared = {"shared_state": {"url": redis.url, "namespace": "documents"}}
        async with _serving(folder, **shared) as servers, AsyncExitStack() as stack:
            await _a_job(servers)
            admin = servers.gateway.admin_port
            prometheus = await stack.enter_async_context(running_prometheus(folder, admin, []))
            await prometheus.until(lambda found: found["result"], "/api/v1/query", query="docpreview_build_info")
            issuer = await stack.enter_async_context(_issuer())
            log, edge_log = _logs(folder)
            yield partial(
                Session,
                replaced={
                    "http://prometheus:9090": prometheus.url,
                    "127.0.0.1:9464": f"127.0.0.1:{admin}",
                    "redis://redis.example.com:6379/0": redis.url,
                    "localhost:9465": servers.edge.metrics,
                    "GATEWAY:50051": servers.edge.listen,
                    "https://login.example.com": issuer,
                    "('BUCKET.ci.REGION.myqcloud.com', 443)": f"('127.0.0.1', {servers.emulator.port})",
                    "--config gateway.yaml": f"--config {servers.configuration}",
                    "/etc/docpreview/edge": str(folder / "edge"),
                    '"BUCKET"': f'"{BUCKETS[0]}"',
                    '"CALLER"': '"anonymous"',
                    "docpreview.example.com:50051": servers.edge.listen,
                },
                DOCPREVIEW_CONFIG=str(servers.configuration),
                DOCPREVIEW_SHARED_STATE__URL=redis.url,
                GATEWAY_LOG=log,
                EDGE_LOG=edge_log,
                NO_PROXY="127.0.0.1,localhost",
            )


@asynccontextmanager
async def _serving(folder: Path, **changes: Any) -> AsyncIterator[Served]:
    """Emulator, gateway and edge, with the files that docs/envoy/gateway.yaml names in the folder."""
    tls = _certificates(folder)
    async with Emulator() as emulator:
        path = configuration(
            emulator,
            folder,
            listen=f"127.0.0.1:{free_port()}",
            edge=edge_settings(),
            tls=tls,
            reflection=True,
            buckets=[{"name": name, "region": REGION, "credentials": "main"} for name in BUCKETS],
            upstream={
                "endpoint": emulator.url,
                "object_url_base": f"{emulator.url}/_emulator/objects/{{host}}",
            },
            drain={"delay_seconds": 0, "grace_seconds": 5},
            **changes,
        )
        async with EdgeProcess(path, folder / "edge") as edge, running(path) as gateway:
            yield Served(emulator, gateway, edge, path)


def _certificates(folder: Path) -> dict[str, str]:
    """The section `tls` without client certificates, which the commands of documents do not have."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    for name in ("tls", "client-ca"):
        (folder / name).mkdir()
    server.private_key_pem.write_to_path(folder / "tls" / "tls.key")
    server.cert_chain_pems[0].write_to_path(folder / "tls" / "tls.crt")
    authority.cert_pem.write_to_path(folder / "client-ca" / "ca.crt")
    (folder / "policy.yaml").write_text((ROOT / "examples" / "policy.yaml").read_text())
    (folder / "cloud.yaml").write_text("secret_id: example\nsecret_key: example\n")
    return {"certificate": str(folder / "tls" / "tls.crt"), "key": str(folder / "tls" / "tls.key")}


def _logs(folder: Path) -> tuple[str, str]:
    """Paths of the gateway's log, and of one of an edge that has refused a certificate."""
    (log,) = folder.glob("gateway-*.log")
    (folder / "edge.log").write_text(EDGE_LOG)
    return str(log), str(folder / "edge.log")


async def _a_job(servers: Served) -> str:
    """The id of a finished job of the first bucket, beside the documents that commands name."""
    for bucket in BUCKETS:
        servers.emulator.put_object(bucket, REGION, "a.pdf", _PAGES.read_bytes())
        servers.emulator.put_object(bucket, REGION, "slides/a.pptx", _SLIDES.read_bytes())
    async with DocPreviewClient(servers.gateway.address) as client:
        job = await client.create(BUCKETS[0], "a.pdf", output_object="previews/a/${Number}.jpg")
        return (await client.wait(BUCKETS[0], job.job_id)).job_id


@asynccontextmanager
async def _issuer() -> AsyncIterator[str]:
    """The address of an issuer of tokens that answers with its keys."""
    application = web.Application()
    application.router.add_get("/.well-known/jwks.json", _keys)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _keys(_: web.Request) -> web.Response:
    return web.json_response({"keys": []})
