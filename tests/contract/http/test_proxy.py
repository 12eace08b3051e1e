"""HTTP through an egress proxy: tunnels over real sockets, and what is said when the proxy gives none."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import struct
import traceback
from typing import TYPE_CHECKING

import pytest
import trustme

from docpreview_gateway.upstream import http_proxy
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.http_pool import MAX_CONNECTIONS
from docpreview_gateway.upstream.httpx_transport import HttpxTransport
from docpreview_gateway.upstream.ports import ProxyError, TransportError
from docpreview_gateway.upstream.wire.http import HttpRequest
from tests.contract.http.churn import Churn
from tests.fakes.connect_proxy import ConnectProxy
from tests.fakes.raw_server import Exchange, RawServer

if TYPE_CHECKING:
    from pathlib import Path

HOST = "examplebucket-1250000000.ci.ap-chongqing.myqcloud.com"
OTHER = "otherbucket-1250000000.ci.ap-chongqing.myqcloud.com"
HEADERS = {"host": HOST, "authorization": "q-sign-algorithm=sha1&q-ak=AKID"}
GET = HttpRequest("GET", HOST, "/doc_jobs/d1", headers=HEADERS)
CREATE = HttpRequest(
    "POST", HOST, "/doc_jobs", headers={**HEADERS, "content-length": "4"}, body=b"<a/>", unrepeatable=True
)
PASSWORD = "p@ss:CANARY"
LOGIN = "gateway:p%40ss%3ACANARY@"
AUTHORIZATION = "Basic " + base64.b64encode(f"gateway:{PASSWORD}".encode()).decode()


@pytest.fixture(params=[BuiltinTransport, HttpxTransport], autouse=True)
def candidate(request: pytest.FixtureRequest) -> type[BuiltinTransport | HttpxTransport]:
    """What the product can use; `through` makes it."""
    global _chosen  # noqa: PLW0603 - one test at a time
    _chosen = request.param
    return _chosen


_chosen: type[BuiltinTransport | HttpxTransport] = BuiltinTransport


def through(
    place: str, url: str | None = None, *, login: str = "", connect: float = 2.0, read: float = 2.0
) -> BuiltinTransport | HttpxTransport:
    """A client that has the cloud, or `url`, behind the proxy at `place`."""
    proxy = http_proxy.parse(f"http://{login}{place}")
    return _chosen(base_url=url, connect_seconds=connect, read_seconds=read, proxy=proxy)


def plain(server: RawServer) -> dict[str, int]:
    """Where tunnels lead: to a server without TLS, at the name `cloud.example`."""
    return {"cloud.example:80": server.port}


CLOUD = "http://cloud.example"


async def ok(exchange: Exchange) -> None:
    await exchange.answer(b"<ok/>")


async def failure(
    place: str,
    url: str | None = CLOUD,
    request: HttpRequest = CREATE,
    *,
    login: str = "",
    connect: float = 2.0,
) -> TransportError:
    async with through(place, url, login=login, connect=connect) as client:
        with pytest.raises(TransportError) as caught:
            await client.send(request)
    return caught.value


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """TLS of the cloud's hosts, by an authority that the client trusts."""
    return _tls(HOST, OTHER, folder=tmp_path, monkeypatch=monkeypatch)


def _tls(*names: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


class TestTunnels:
    async def test_the_cloud_is_spoken_to_in_a_tunnel_by_its_own_name_with_its_own_tls(
        self, tls: ssl.SSLContext
    ) -> None:
        """The bucket's name, which no resolver here knows, is for the proxy to resolve; the proxy sees no request."""
        async with (
            RawServer(ok, tls) as server,
            ConnectProxy({f"{HOST}:443": server.port}) as proxy,
            through(proxy.place) as client,
        ):
            assert (await client.send(GET)).body == b"<ok/>"
        (asked,), (seen,) = proxy.asked, server.exchanges
        assert asked.head == f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode()
        assert seen.request_line == "GET /doc_jobs/d1 HTTP/1.1"
        assert seen.header("host") == [HOST]

    async def test_a_certificate_of_another_name_is_rejected_in_the_tunnel_before_sending(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Though its authority is trusted, and though it is the proxy's name; it is not the proxy that is blamed."""
        tls = _tls("127.0.0.1", "proxy.example", folder=tmp_path, monkeypatch=monkeypatch)
        async with RawServer(ok, tls) as server, ConnectProxy({f"{HOST}:443": server.port}) as proxy:
            error = await failure(proxy.place, None)
            await proxy.until_all_are_closed()
        assert (error.sent, error.timed_out) == (False, False)
        assert not isinstance(error, ProxyError)
        assert server.exchanges == []

    async def test_a_server_without_tls_is_spoken_to_in_a_tunnel_too(self) -> None:
        """Such as an emulator at `upstream.endpoint`."""
        async with RawServer(ok) as server, ConnectProxy(plain(server)) as proxy, through(proxy.place, CLOUD) as client:
            assert (await client.send(CREATE)).body == b"<ok/>"
        assert [each.request_line for each in proxy.asked] == ["CONNECT cloud.example:80 HTTP/1.1"]
        assert server.exchanges[0].body == b"<a/>"

    async def test_user_and_password_are_for_the_proxy_alone(self) -> None:
        """With their special characters as they are behind the %-encoding."""
        async with (
            RawServer(ok) as server,
            ConnectProxy(plain(server), AUTHORIZATION) as proxy,
            through(proxy.place, CLOUD, login=LOGIN) as client,
        ):
            assert (await client.send(GET)).status == 200
        assert proxy.asked[0].header("proxy-authorization") == [AUTHORIZATION]
        assert b"proxy-" not in server.exchanges[0].head.lower()

    async def test_an_ipv6_endpoint_is_named_in_brackets(self) -> None:
        """As in an address."""
        async with (
            RawServer(ok) as server,
            ConnectProxy({"[2001:db8::1]:8089": server.port}) as proxy,
            through(proxy.place, "http://[2001:db8::1]:8089") as client,
        ):
            assert (await client.send(GET)).status == 200

    @pytest.mark.parametrize("host", ["a b", "a\tb HTTP/1.1"])
    async def test_what_is_no_host_name_is_not_asked_for(self, host: str) -> None:
        """It could be more than a name in the proxy's request line."""
        async with ConnectProxy() as proxy:
            error = await failure(proxy.place, None, HttpRequest("GET", host, "/", headers=HEADERS))
        assert error.sent is False
        assert proxy.asked == []


class TestConnections:
    async def test_reads_of_a_host_share_a_tunnel_and_each_create_has_its_own(self, tls: ssl.SSLContext) -> None:
        """As without a proxy."""
        async with (
            RawServer(ok, tls) as server,
            ConnectProxy({f"{HOST}:443": server.port}) as proxy,
            through(proxy.place) as client,
        ):
            for request in (GET, CREATE, CREATE, GET):
                await client.send(request)
        assert [exchange.connection for exchange in server.exchanges] == [1, 2, 3, 1]
        assert len(proxy.asked) == 3

    async def test_two_hosts_share_no_tunnel(self, tls: ssl.SSLContext) -> None:
        """Although they are behind one proxy."""
        other = HttpRequest("GET", OTHER, "/doc_jobs/d1", headers={"host": OTHER})
        async with RawServer(ok, tls) as server, RawServer(ok, tls) as second:
            leads = {f"{HOST}:443": server.port, f"{OTHER}:443": second.port}
            async with ConnectProxy(leads) as proxy, through(proxy.place) as client:
                for request in (GET, other, GET, other):
                    await client.send(request)
        assert [exchange.header("host") for exchange in server.exchanges] == [[HOST], [HOST]]
        assert [exchange.header("host") for exchange in second.exchanges] == [[OTHER], [OTHER]]
        assert len(proxy.asked) == 2

    async def test_a_tunnel_that_breaks_during_a_request_counts_as_sent(self) -> None:
        """The cloud may have carried it out; the proxy is not blamed for what may be the cloud's doing."""

        async def cut(_exchange: Exchange) -> None:
            proxy.cut()

        async with RawServer(cut) as server, ConnectProxy(plain(server)) as proxy:
            error = await failure(proxy.place)
        assert error.sent is True
        assert not isinstance(error, ProxyError)

    async def test_an_idle_tunnel_that_the_proxy_closed_is_not_used_again(self) -> None:
        """No read is lost to it."""
        async with RawServer(ok) as server, ConnectProxy(plain(server)) as proxy, through(proxy.place, CLOUD) as client:
            for _ in range(3):
                assert (await client.send(GET)).status == 200
                proxy.cut()
                await proxy.until_all_are_closed()
        assert len(server.exchanges) == 3

    async def test_leaving_the_client_closes_its_tunnels(self) -> None:
        """Idle ones too."""
        async with RawServer(ok) as server, ConnectProxy(plain(server)) as proxy:
            async with through(proxy.place, CLOUD) as client:
                await client.send(GET)
            await proxy.until_all_are_closed()

    async def test_cancelled_requests_return_their_connections_to_the_pool(self) -> None:
        """After a thousand, cancelled while the tunnel is asked for too, as many as the pool has are sent at once."""
        await churn(1000)

    @pytest.mark.long
    @pytest.mark.timeout(600)
    async def test_twenty_thousand_cancelled_requests_leave_the_whole_pool(self) -> None:
        """And no tunnel is left open."""
        await churn(20_000)


async def churn(cancelled: int) -> None:
    given_up = Churn(GET, CREATE)
    async with RawServer(given_up.answer) as server, ConnectProxy(plain(server)) as proxy:
        async with through(proxy.place, CLOUD, connect=10, read=10) as client:
            await given_up.run(client, cancelled)
        await proxy.until_all_are_closed()


def says(data: bytes, *, closes: bool = True) -> ConnectProxy:
    """A proxy that answers CONNECT with these bytes."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(data)
        if closes:
            exchange.writer.close()

    return ConnectProxy(instead=answer)


async def reset(exchange: Exchange) -> None:
    sock = exchange.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.reset()


async def endless(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await exchange.send(b"X: " + b"x" * 1000 + b"\r\n")


async def dribble(exchange: Exchange) -> None:
    """Never done, and never silent for long."""
    await exchange.send(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        await exchange.send(b"x")
        await asyncio.sleep(0.01)


REFUSED = b"Content-Length: 6\r\n\r\nCANARY"


class TestWithoutTunnel:
    @pytest.mark.parametrize(
        ("proxy", "words"),
        [
            (ConnectProxy(authorization="Basic other"), "refuses its user or password (HTTP 407)"),
            (says(b"HTTP/1.1 403 CANARY\r\n" + REFUSED), "forbids cloud.example:80 (HTTP 403)"),
            (says(b"HTTP/1.1 502 CANARY\r\n" + REFUSED), "opened no tunnel to cloud.example:80 (HTTP 502)"),
            (says(b"HTTP/1.0 503\r\n\r\n"), "opened no tunnel to cloud.example:80 (HTTP 503)"),
            (says(b"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n"), "(HTTP 302)"),
            (says(b"HTTP/1.1 100 Continue\r\n\r\n"), "(HTTP 100)"),
            (says(b""), "closed the connection when it was asked for cloud.example:80"),
            (says(b"HTTP/1.1 200 O"), "closed the connection when it was asked for cloud.example:80"),
            (ConnectProxy(instead=reset), "broke"),
            (says(b"SSH-2.0-CANARY\r\n\r\n"), "is no HTTP proxy"),
            (says(b"HTTP/1.1 2000 OK\r\n\r\n"), "is no HTTP proxy"),
            (ConnectProxy(instead=endless), "is no HTTP proxy"),
            (says(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "said more than"),
            (says(b"HTTP/1.1 200 OK\r\n\r\n\r\n\r\n"), "said more than"),
        ],
        ids=[
            "407", "403", "502", "503", "redirect", "informational", "closed", "cut-head", "reset", "no-http",
            "bad-status", "endless-head", "reply", "line-breaks",
        ],
    )  # fmt: skip
    async def test_a_proxy_that_gives_no_tunnel_is_named_and_nothing_was_sent(
        self, proxy: ConnectProxy, words: str
    ) -> None:
        """Without the password and without the proxy's own words, in the traceback too."""
        async with proxy:
            error = await failure(proxy.place, login=LOGIN)
            await proxy.until_all_are_closed()
        assert isinstance(error, ProxyError)
        assert (error.sent, error.timed_out) == (False, False)
        assert proxy.place in str(error)
        assert words in str(error)
        _has_no_secret(error)

    async def test_a_proxy_that_asks_for_a_password_says_so(self) -> None:
        """When the setting has none."""
        async with ConnectProxy(authorization="Basic other") as proxy:
            error = await failure(proxy.place)
        assert "asks for a user and a password (HTTP 407)" in str(error)

    async def test_a_proxy_that_is_not_there_is_named_and_nothing_was_sent(self) -> None:
        """Refused, or not in the DNS."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            closed = f"127.0.0.1:{taken.getsockname()[1]}"
            for place, why in ((closed, "connection refused"), ("nowhere.invalid:3128", "name")):
                error = await failure(place, login=LOGIN)
                assert isinstance(error, ProxyError)
                assert str(error).startswith(f"no connection to the proxy {place}: {why}")
                assert (error.sent, error.timed_out) == (False, False)
                _has_no_secret(error)

    @pytest.mark.parametrize(
        "proxy",
        [says(b"", closes=False), says(b"HTTP/1.1 200 OK\r\n", closes=False), ConnectProxy(instead=dribble)],
        ids=["silent", "half-head", "slow-head"],
    )
    async def test_the_connect_timeout_covers_the_proxys_answer(self, proxy: ConnectProxy) -> None:
        """However little at a time it says."""
        async with proxy:
            error = await failure(proxy.place, login=LOGIN, connect=0.2)
            await proxy.until_all_are_closed()
        assert isinstance(error, ProxyError)
        assert (error.sent, error.timed_out) == (False, True)
        assert str(error) == f"no connection in time by the proxy {proxy.place}: it does not answer"
        _has_no_secret(error)

    async def test_the_connect_timeout_covers_the_tls_handshake_in_the_tunnel(self) -> None:
        """The proxy opens the tunnel, and nothing speaks in it."""
        async with says(b"HTTP/1.1 200 OK\r\n\r\n", closes=False) as proxy:
            error = await failure(proxy.place, None, connect=0.2)
            await proxy.until_all_are_closed()
        assert (error.sent, error.timed_out) == (False, True)
        assert proxy.place in str(error)

    async def test_a_wait_for_a_free_connection_is_not_blamed_on_the_proxy(self) -> None:
        """All connections of the pool are busy at the cloud."""
        all_there = asyncio.Event()

        async def silence(_exchange: Exchange) -> None:
            if len(server.exchanges) == MAX_CONNECTIONS:
                all_there.set()
            await asyncio.sleep(60)

        async with (
            RawServer(silence) as server,
            ConnectProxy(plain(server)) as proxy,
            through(proxy.place, CLOUD, connect=3, read=30) as client,
        ):
            busy = [asyncio.ensure_future(client.send(GET)) for _ in range(MAX_CONNECTIONS)]
            async with asyncio.timeout(20):
                await all_there.wait()
            with pytest.raises(TransportError) as caught:
                await client.send(GET)
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)
        assert (caught.value.sent, caught.value.timed_out) == (False, True)
        assert not isinstance(caught.value, ProxyError)

    async def test_refused_tunnels_leave_the_whole_pool(self) -> None:
        """A proxy that works again is used at once, however many requests it refused before."""
        async with RawServer(ok) as server, ConnectProxy({}) as proxy, through(proxy.place, CLOUD) as client:
            refused = await asyncio.gather(
                *(client.send(GET) for _ in range(2 * MAX_CONNECTIONS)), return_exceptions=True
            )
            assert {type(each) for each in refused} == {ProxyError}
            proxy.leads = plain(server)
            assert (await client.send(GET)).status == 200


def _has_no_secret(error: Exception) -> None:
    shown = "".join(traceback.format_exception(error)) + repr(error)
    for secret in (PASSWORD, LOGIN, "CANARY", AUTHORIZATION.removeprefix("Basic ")):
        assert secret not in shown
