"""A gateway whose cloud is behind an egress proxy, and what `doctor` says of the proxy."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trustme

from docpreview_client import DocPreviewClient, DocPreviewError
from docpreview_emulator import Emulator
from docpreview_gateway.doctor.checks import cloud_credentials, run_checks
from docpreview_gateway.doctor.cloud_probe import CloudProbe
from docpreview_gateway.doctor.examination import Diagnostics
from docpreview_gateway.doctor.network import SystemNetwork
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.settings.upstream import UpstreamSettings
from docpreview_gateway.upstream import http_proxy
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.wiring.gateway import Gateway
from docpreview_gateway.wiring.system_clock import SystemClock
from docpreview_gateway.wiring.upstream import http_transport
from tests.fakes.connect_proxy import ConnectProxy
from tests.fakes.credentials import FakeCredentials
from tests.fakes.raw_server import Exchange, RawServer
from tests.integration.conftest import BUCKET, ONCE, REGION, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.doctor.diagnosis import Finding
    from docpreview_gateway.settings.loading import Settings

PASSWORD = "CANARY-of-the-proxy"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """A healthy cloud."""
    async with Emulator() as running:
        running.put_object(BUCKET, REGION, "a.pdf", b"%PDF-1.4")
        yield running


def leading_to(emulator: Emulator) -> ConnectProxy:
    """A proxy that lets the emulator be reached."""
    place = urlsplit(emulator.url).netloc
    return ConnectProxy({place: int(place.rpartition(":")[2])})


def behind(proxy: ConnectProxy, emulator: Emulator | RawServer, **changes: Any) -> Settings:
    """Settings of a gateway whose cloud is `emulator`, behind the proxy."""
    base = f"{emulator.url}/_emulator/objects/{{host}}"
    address = f"http://gateway:{PASSWORD}@{proxy.place}"
    upstream = UpstreamSettings(endpoint=emulator.url, object_url_base=base, proxy=address, **changes)
    return settings(emulator, upstream=upstream)


@pytest.mark.parametrize("client", ["builtin", "httpx"])
async def test_calls_of_a_gateway_go_through_the_proxy_and_its_refusal_is_named_to_callers(
    emulator: Emulator, client: str
) -> None:
    """Without a restart they go on when the proxy does. No password is in what callers get."""
    async with (
        leading_to(emulator) as proxy,
        Gateway(behind(proxy, emulator, http_client=client)) as gateway,
        DocPreviewClient(f"127.0.0.1:{gateway.port}", options=ONCE) as caller,
    ):
        with pytest.raises(DocPreviewError, match="no job d1"):
            await caller.get(BUCKET, "d1")
        assert len(proxy.asked) == 1
        leads, proxy.leads = proxy.leads, {}
        proxy.cut()
        await proxy.until_all_are_closed()
        with pytest.raises(DocPreviewError) as refused:
            await caller.get(BUCKET, "d1")
        proxy.leads = leads
        with pytest.raises(DocPreviewError, match="no job d1"):
            await caller.get(BUCKET, "d1")
    assert f"no connection to the cloud: the proxy {proxy.place} forbids" in str(refused.value)
    assert PASSWORD not in repr(refused.value)


async def test_doctor_checks_the_cloud_through_the_proxy(emulator: Emulator) -> None:
    """Without a problem."""
    async with leading_to(emulator) as proxy:
        found = await run_checks(behind(proxy, emulator))
    assert [each for each in found if not each.ok] == []
    assert {each.check for each in found} >= {"signature", "binding", "queue", "pages", "emulator"}
    assert "dns" not in {each.check for each in found}
    assert proxy.asked


async def test_doctor_names_the_proxy_when_it_is_the_trouble(emulator: Emulator) -> None:
    """It says what to check, and no password."""
    async with ConnectProxy(authorization="Basic other") as proxy:
        found = await run_checks(behind(proxy, emulator))
    troubles = {each.check: each for each in found if not each.ok}
    assert set(troubles) == {"binding", "pages"}
    assert all(proxy.place in each.result and "HTTP 407" in each.result for each in troubles.values())
    assert all("check upstream.proxy" in each.remedy for each in troubles.values())
    assert PASSWORD not in str(found)


async def examined(proxy: ConnectProxy) -> list[Finding]:
    """Findings on a host with TLS that only the proxy can resolve."""
    way = http_proxy.parse(f"http://{proxy.place}")
    network = SystemNetwork({"cloud.example": 443}, way)
    async with BuiltinTransport(base_url=None, connect_seconds=5, read_seconds=5, proxy=way) as transport:
        clock = SystemClock()
        examination = Diagnostics(network, transport, FakeCredentials(), clock, endpoint=None, proxy=way)
        return await examination.findings(["cloud.example"], [])


def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> ssl.SSLContext:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def silent(exchange: Exchange) -> None:
    await exchange.answer(b"")


@pytest.mark.parametrize(("name", "level"), [("cloud.example", "ok"), ("other.example", "problem")])
async def test_doctor_sees_the_certificate_of_the_cloud_in_the_tunnel(
    name: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the proxy's; and the proxy is not blamed for a wrong one."""
    async with (
        RawServer(silent, tls(tmp_path, monkeypatch, name)) as server,
        ConnectProxy({"cloud.example:443": server.port}) as proxy,
    ):
        found = await examined(proxy)
    assert {each.check: each.level for each in found} == {"proxy": "ok", "tls": level}


async def test_doctor_says_which_host_the_proxy_forbids() -> None:
    """The name is not looked up here."""
    async with ConnectProxy() as proxy:
        (found,) = await examined(proxy)
    assert (found.check, found.subject, found.level) == ("proxy", proxy.place, "problem")
    assert "forbids cloud.example:443" in found.result
    assert "CONNECT" in found.remedy


async def test_a_record_of_a_probe_that_the_proxy_stops_names_no_host(emulator: Emulator) -> None:
    """It may be attached to an issue."""
    async with ConnectProxy() as proxy:
        values, clock = behind(proxy, emulator), SystemClock()
        async with http_transport(values, None) as cloud:
            keys = cloud_credentials(values, clock)
            probe = CloudProbe(cloud, keys, clock, Bucket(BUCKET, REGION, "main"), nonce="0123456789abcdef")
            facts = await probe.run()
    assert facts == {"put_document": {"failed": "the proxy gave no connection"}}
