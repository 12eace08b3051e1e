"""The admin port over real sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from docpreview_gateway.telemetry.admin_server import admin_server
from docpreview_gateway.telemetry.readiness import Dependency

if TYPE_CHECKING:
    from collections.abc import Mapping


async def get(port: int, path: str, accept: str = "*/*") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as browser:
        return await browser.get(f"http://127.0.0.1:{port}{path}", headers={"Accept": accept})


async def test_the_registry_is_served_in_prometheus_text_format() -> None:
    """The registry that was handed in, in Prometheus' text format."""
    registry = CollectorRegistry()
    Counter("apples", "Apples.", registry=registry).inc()
    async with admin_server("127.0.0.1", 0, registry=registry, unready=lambda: None) as port:
        answer = await get(port, "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "apples_total 1.0" in answer.text


async def test_metrics_with_exemplars() -> None:
    """OpenMetrics, which has a place for exemplars, for a scraper that asks for it."""
    registry = CollectorRegistry()
    Histogram("pears", "Pears.", registry=registry).observe(0.1, {"trace_id": "0af7651916cd43dd8448eb211c80319c"})
    async with admin_server("127.0.0.1", 0, registry=registry, unready=lambda: None) as port:
        answer = await get(port, "/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        plain = await get(port, "/metrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert '# {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.1' in answer.text
    assert "trace_id" not in plain.text


async def test_an_unready_gateway_is_503_with_its_reason_and_still_alive() -> None:
    """Ready, or 503 with the reason; alive in both cases."""
    reason: str | None = None
    async with admin_server("127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: reason) as port:
        answer = await get(port, "/readyz")
        assert (answer.status_code, answer.text) == (200, "ready\n")
        reason = "stopping"
        answer = await get(port, "/readyz")
        assert (answer.status_code, answer.text) == (503, "stopping\n")
        answer = await get(port, "/healthz")
        assert (answer.status_code, answer.text) == (200, "ok\n")


@pytest.mark.parametrize("path", ["/readyz", "/metrics", "/nothing"])
async def test_every_answer_says_that_a_gateway_gave_it_and_where_it_listens(path: str) -> None:
    """Refusals too: a probe knows by it whom it has asked."""
    registry = CollectorRegistry()
    async with admin_server("127.0.0.1", 0, registry=registry, unready=lambda: None, listen="0.0.0.0:50051") as port:
        headers = (await get(port, path)).headers
    assert (headers["server"], headers["docpreview-listen"]) == ("docpreview-gateway", "0.0.0.0:50051")


async def test_any_other_path_or_method_is_refused() -> None:
    """Nothing else answers."""
    async with admin_server("127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: None) as port:
        assert (await get(port, "/metrics/../etc/passwd")).status_code == 404
        async with httpx.AsyncClient(trust_env=False) as browser:
            assert (await browser.post(f"http://127.0.0.1:{port}/healthz")).status_code == 405


async def test_request_that_is_not_finished() -> None:
    """A probe that hangs, or connects at the wrong moment, does not hold up the end."""
    clock = asyncio.get_running_loop().time
    async with admin_server("127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: None) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10\r\n\r\n")
        await reader.readline()
        begun = clock()
    assert clock() - begun < 5
    writer.close()


async def test_port_that_is_taken() -> None:
    """OSError; and the port is free again after its server has ended."""
    async with admin_server("127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: None) as port:
        with pytest.raises(OSError, match="in use"):
            async with admin_server("127.0.0.1", port, registry=CollectorRegistry(), unready=lambda: None):
                pass
    async with admin_server("127.0.0.1", port, registry=CollectorRegistry(), unready=lambda: None) as again:
        assert again == port


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9464", 200),
        ("10.1.2.3", 200),
        ("[fd00::7]:9464", 200),
        ("localhost", 200),
        ("gateway:9464", 200),
        ("gateway.example.com", 200),
        ("GATEWAY.example.com:9464", 200),
        ("other.example.com", 421),
        ("127.0.0.1.example.com", 421),
        ("127.0.0.1@example.com", 421),
        ("[::1", 421),
        (".", 421),
    ],
)
async def test_only_addresses_local_names_and_the_names_given_are_served(host: str, status: int) -> None:
    """A browser can be led here by a name that a stranger controls, for the stranger's script to read the answer."""
    async with (
        admin_server(
            "127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: None, hosts=["gateway.example.com"]
        ) as port,
        httpx.AsyncClient(trust_env=False) as browser,
    ):
        for path in ("/healthz", "/readyz", "/metrics"):
            answer = await browser.get(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
            assert answer.status_code == status
            assert ("admin_hosts" in answer.text) == (status == 421)


async def test_a_request_without_host_is_served() -> None:
    """Of a simple probe: browsers always send one."""
    async with admin_server("127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: None) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"ok\n")
        writer.close()


async def test_a_failing_dependency_is_named_unless_it_is_excluded() -> None:
    """`/readyz?verbose` names all of them; a name that does not exist is an error."""
    found = {"cloud": Dependency(), "records": Dependency("/state/creates.db: disk is full")}
    async with admin_server(
        "127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: None, dependencies=lambda: found
    ) as port:
        for path, status, text in (
            ("/readyz", 503, "records failing: /state/creates.db: disk is full\n"),
            ("/readyz?verbose", 503, "not ready\ncloud ok\nrecords failing: /state/creates.db: disk is full\n"),
            ("/readyz?exclude=records&exclude=cloud", 200, "ready\n"),
            ("/readyz?exclude=disk", 400, "exclude: there is no dependency disk; there are: cloud, records\n"),
        ):
            answer = await get(port, path)
            assert (answer.status_code, answer.text) == (status, text)


class Echo:
    """Pages that say what was asked for."""

    headers: ClassVar = {"Content-Type": "text/html"}

    async def html(self, path: str, query: Mapping[str, str]) -> str | None:
        return None if path == "/none" else f"{path} {dict(query)}"


async def text(query: Mapping[str, str]) -> bytes:
    return f"<b>{query.get('id')}</b>".encode()


async def test_texts_are_plain_and_pages_answer_for_all_other_paths() -> None:
    """With the query of the request."""
    async with admin_server(
        "127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: None, pages=Echo(), texts={"/debug": text}
    ) as port:
        answer = await get(port, "/debug?id=d1")
        assert (answer.headers["content-type"], answer.text) == ("text/plain; charset=utf-8", "<b>d1</b>")
        assert (await get(port, "/calls?id=d1")).text == "/calls {'id': 'd1'}"
        assert (await get(port, "/healthz")).text == "ok\n"


async def test_an_unknown_path_is_404_with_those_that_there_are() -> None:
    """`/debug` too, which is off by default."""
    async with admin_server("127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: None, pages=Echo()) as port:
        answer = await get(port, "/none")
        assert answer.status_code == 404
        assert "/metrics" in answer.text
        assert "admin_debug" in answer.text
