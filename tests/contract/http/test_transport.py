"""HTTP over real sockets: what is sent, what is never done, and whether a request without a reply was sent."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gzip
import os
import socket
import ssl
import subprocess
import tracemalloc
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl

import pytest
import trustme

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import ReplyTooLarge, UpstreamError
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.http_pool import MAX_CONNECTIONS
from docpreview_gateway.upstream.httpx_transport import HttpxTransport
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire.http import MAX_REPLY_BYTES, HttpRequest
from tests.contract.http.aiohttp_transport import AiohttpTransport
from tests.contract.http.candidates import Candidate, chosen
from tests.contract.http.churn import Churn
from tests.fakes.raw_server import Exchange, RawServer

if TYPE_CHECKING:
    from pathlib import Path

HOST = "examplebucket-1250000000.ci.ap-chongqing.myqcloud.com"
HEADERS = {"host": HOST, "content-type": "application/xml", "authorization": "q-sign-algorithm=sha1&q-ak=AKID"}
GET = HttpRequest("GET", HOST, "/doc_jobs/d1", headers=HEADERS)
HEAD = HttpRequest("HEAD", HOST, "/a.pdf", headers=HEADERS)
CREATE = HttpRequest(
    "POST", HOST, "/doc_jobs", headers={**HEADERS, "content-length": "4"}, body=b"<a/>", unrepeatable=True
)

BARE_LF = b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"
UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
OTHER_CODING = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
OK_ = b"HTTP/1.1 200 OK\r\n"
FOLDED = OK_ + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = OK_ + b"Transfer-Encoding: chunked\r\n"
BIG_HEAD = OK_ + b"X: " + b"x" * 100_000 + b"\r\n\r\n"
NOT_HTTP = {
    "two-lengths": (OK_ + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nokmore", "two lengths"),
    "length-and-chunked": (
        OK_ + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "a length and chunks",
    ),
    "chunked-and-length": (CHUNKED + b"Content-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", "a length and chunks"),
    "length-in-trailers": (CHUNKED + b"\r\n2\r\nok\r\n0\r\nContent-Length: 2\r\n\r\n", "a length and chunks"),
    "other-coding": (OTHER_CODING, "a coding of the body that nobody asked for"),
    "plus": (OK_ + b"Content-Length: +2\r\n\r\nok", "invalid character in Content-Length"),
    "negative": (OK_ + b"Content-Length: -2\r\n\r\nok", "invalid character in Content-Length"),
    "endless-number": (OK_ + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nok", "Content-Length overflow"),
    "two-in-one": (OK_ + b"Content-Length: 2 2\r\n\r\nok", "invalid character in Content-Length"),
    "bad-chunk": (CHUNKED + b"\r\n2x\r\nok\r\n0\r\n\r\n", "invalid character in chunk size"),
    "negative-chunk": (CHUNKED + b"\r\n-2\r\nok\r\n0\r\n\r\n", "invalid character in chunk size"),
    "bare-lf": (BARE_LF, "missing expected CR after response line"),
    "space-before-colon": (OK_ + b"X : a\r\nContent-Length: 2\r\n\r\nok", "invalid header token"),
    "no-name": (OK_ + b": a\r\nContent-Length: 2\r\n\r\nok", "invalid header token"),
    "folded": (FOLDED, "unexpected whitespace after header value"),
    "nul": (OK_ + b"X: a\0b\r\nContent-Length: 2\r\n\r\nok", "invalid header value char"),
    "big-head": (BIG_HEAD, "a head of more than 64 KiB"),
    "many-headers": (OK_ + b"X-A: a\r\n" * 10_000 + b"\r\n", "a head of more than 64 KiB"),
    "short-status": (b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", "invalid status code"),
    "long-status": (b"HTTP/1.1 1000 OK\r\nContent-Length: 2\r\n\r\nok", "invalid response status"),
    "no-status": (b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok", "invalid status code"),
    "version": (b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok", "invalid HTTP version"),
    "no-http": (b"SSH-2.0-OpenSSH\r\n", "it does not begin as HTTP"),
    "upgrade": (UPGRADE, "another protocol, which nobody asked for"),
}
"""Replies that are no HTTP, and what is said of them."""

PRODUCTS = {BuiltinTransport, HttpxTransport}
AIOHTTP_TAKES = {
    BARE_LF: "aiohttp 3.14 reads it as a reply",
    FOLDED: "aiohttp 3.14 reads it as a reply",
    OTHER_CODING: "aiohttp 3.14 gives back the body as if it were not coded",
    UPGRADE: "aiohttp 3.14 gives it back as a reply of 101",
}
"""Replies that aiohttp should not take and does."""


@pytest.fixture(params=chosen(), autouse=True)
def candidate(request: pytest.FixtureRequest) -> Candidate:
    """The client under test; `transport` makes it."""
    global _chosen  # noqa: PLW0603 - one test at a time
    _chosen = request.param
    return _chosen


_chosen: Candidate = BuiltinTransport


def transport(
    url: str | None, *, connect: float = 2.0, read: float = 2.0
) -> BuiltinTransport | HttpxTransport | AiohttpTransport:
    return _chosen(base_url=url, connect_seconds=connect, read_seconds=read)


async def ok(exchange: Exchange) -> None:
    await exchange.answer(b"<ok/>", headers="X-Ci-Request-Id: cloud-1\r\n")


async def silence(_exchange: Exchange) -> None:
    await asyncio.sleep(60)


async def hang_up(exchange: Exchange) -> None:
    exchange.reset()


async def failure(
    url: str | None, request: HttpRequest = GET, *, connect: float = 2.0, read: float = 2.0
) -> TransportError:
    async with transport(url, connect=connect, read=read) as client:
        with pytest.raises(TransportError) as caught:
            await client.send(request)
    return caught.value


def assert_cause(error: TransportError, *causes: str) -> None:
    """The message of the product's own clients is one of these."""
    if _chosen in PRODUCTS:
        assert str(error) in causes


class TestRequests:
    async def test_the_host_header_is_the_requests_own_at_any_endpoint(self) -> None:
        """A trailing slash of `base_url` is ignored."""
        async with RawServer(ok) as server, transport(server.url + "/") as client:
            answer = await client.send(GET)
        (seen,) = server.exchanges
        assert seen.header("host") == [HOST]
        assert seen.request_line == "GET /doc_jobs/d1 HTTP/1.1"
        assert (answer.status, answer.body) == (200, b"<ok/>")
        assert answer.headers["x-ci-request-id"] == "cloud-1"

    async def test_a_request_without_a_host_header_has_the_host_of_the_address(self) -> None:
        """As a browser sends it: `doctor` opens addresses of pages in this way."""
        bare = HttpRequest("GET", HOST, "/a.pdf", headers={"x": "y"})
        async with RawServer(ok) as server, transport(server.url) as client:
            await client.send(bare)
        assert server.exchanges[0].header("host") == [server.url.removeprefix("http://")]

    async def test_body_and_signed_headers_arrive_unchanged(self) -> None:
        """Each header arrives once, and `identity` is the only accepted encoding."""
        async with RawServer(ok) as server, transport(server.url) as client:
            await client.send(CREATE)
        (seen,) = server.exchanges
        assert seen.body == b"<a/>"
        for name in ("host", "content-type", "authorization", "content-length"):
            assert seen.header(name) == [CREATE.headers[name]]
        assert seen.header("accept-encoding") == ["identity"]
        assert seen.header("transfer-encoding") == []

    async def test_a_query_that_needs_encoding_arrives_as_it_was_signed(self) -> None:
        """The cloud decodes the query to the signed values."""
        query = (("nextToken", "a+b/c=="), ("startCreationTime", "2022-09-14T17:15:43+0800"), ("states", "A,B"))
        async with RawServer(ok) as server, transport(server.url) as client:
            await client.send(HttpRequest("GET", HOST, "/doc_jobs", query=query, headers=HEADERS))
        target = server.exchanges[0].request_line.split(" ")[1]
        assert tuple(parse_qsl(target.partition("?")[2])) == query

    async def test_a_proxy_of_the_environment_is_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """HTTP_PROXY and ALL_PROXY have no effect."""
        async with RawServer(hang_up) as proxy, RawServer(ok) as server:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.url)
            async with transport(server.url) as client:
                assert (await client.send(GET)).status == 200
            assert proxy.connections == 0

    async def test_a_redirect_is_returned_as_a_reply_and_is_not_followed(self) -> None:
        """No request is sent to the address of the redirect."""
        async with RawServer(ok) as other:

            async def redirect(exchange: Exchange) -> None:
                await exchange.answer(status="302 Found", headers=f"Location: {other.url}/\r\n")

            async with RawServer(redirect) as server, transport(server.url) as client:
                assert (await client.send(GET)).status == 302
                assert (await client.send(CREATE)).status == 302
            assert other.connections == 0

    async def test_a_cookie_is_neither_stored_nor_sent(self) -> None:
        """A cookie of a reply is not sent with the next request."""

        async def cookie(exchange: Exchange) -> None:
            await exchange.answer(headers="Set-Cookie: a=b\r\n")

        async with RawServer(cookie) as server, transport(server.url) as client:
            await client.send(GET)
            await client.send(GET)
        assert server.exchanges[1].header("cookie") == []


class TestConnections:
    async def test_consecutive_reads_share_a_connection(self) -> None:
        """Connections are kept alive for reads."""
        async with RawServer(ok) as server, transport(server.url) as client:
            for _ in range(3):
                await client.send(GET)
        assert [exchange.connection for exchange in server.exchanges] == [1, 1, 1]

    async def test_each_create_has_a_new_connection(self) -> None:
        """A create neither reuses a connection nor leaves one for reuse."""
        async with RawServer(ok) as server, transport(server.url) as client:
            for request in (GET, CREATE, CREATE, GET):
                await client.send(request)
        assert [exchange.connection for exchange in server.exchanges] == [1, 2, 3, 1]

    async def test_creates_are_not_lost_to_connections_that_the_server_closes(self) -> None:
        """The server closes idle connections while creates are sent."""

        async def answer_and_close(exchange: Exchange) -> None:
            await ok(exchange)
            exchange.writer.close()

        async with RawServer(answer_and_close) as server, transport(server.url) as client:
            for _ in range(50):
                assert (await client.send(CREATE)).status == 200
        assert len(server.exchanges) == 50

    async def test_cancelled_requests_return_their_connections_to_the_pool(self) -> None:
        """After a thousand cancelled requests, among answered ones, as many as the pool has are sent at once."""
        await churn(1000)

    @pytest.mark.long
    async def test_twenty_thousand_cancelled_requests_leave_the_whole_pool(self) -> None:
        """At every moment of an exchange: before, while and after it is sent, and as its reply arrives."""
        await churn(20_000)


async def churn(cancelled: int) -> None:
    given_up = Churn(GET, CREATE)
    async with RawServer(given_up.answer) as server, transport(server.url, connect=10, read=10) as client:
        await given_up.run(client, cancelled)


class TestWithoutReply:
    @pytest.mark.parametrize("request_", [GET, CREATE], ids=["read", "create"])
    async def test_a_refused_connection_counts_as_not_sent(self, request_: HttpRequest) -> None:
        """No byte of the request left."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            error = await failure(f"http://127.0.0.1:{taken.getsockname()[1]}", request_)
        assert (error.sent, error.timed_out) == (False, False)
        assert_cause(error, "connection refused")

    async def test_a_name_that_does_not_resolve_counts_as_not_sent(self) -> None:
        """No byte of the request left."""
        error = await failure("http://nowhere.invalid:1", CREATE)
        assert error.sent is False
        assert_cause(error, "name not found", "no answer of the name server")

    async def test_a_host_that_is_no_name_counts_as_not_sent(
        self, candidate: Candidate, request: pytest.FixtureRequest
    ) -> None:
        """Python's resolver cannot encode it."""
        if candidate is AiohttpTransport:
            request.applymarker(pytest.mark.xfail(reason="aiohttp 3.14 raises it as another error", strict=True))
        error = await failure(f"http://{'a' * 70}.example:1", CREATE)
        assert error.sent is False
        assert_cause(error, "name is none of a host")

    @pytest.mark.parametrize("request_", [GET, CREATE], ids=["read", "create"])
    async def test_a_connection_closed_without_a_reply_counts_as_sent(self, request_: HttpRequest) -> None:
        """The server may have carried out the request."""
        async with RawServer(hang_up) as server:
            error = await failure(server.url, request_)
        assert error.sent is True

    @pytest.mark.parametrize("request_", [GET, HEAD, CREATE], ids=["read", "head", "create"])
    async def test_a_request_on_a_broken_connection_is_not_repeated_by_the_library(self, request_: HttpRequest) -> None:
        """It arrives once, on a new connection as on one that is kept alive.

        aiohttp 3.14 repeats GET and HEAD when a connection breaks, unless a client middleware turns the error into one
        of another kind. A version that repeats them all the same fails here.
        """
        async with RawServer(hang_up) as server:
            await failure(server.url, request_)
            assert len(server.exchanges) == 1

    @pytest.mark.parametrize("request_", [GET, HEAD], ids=["read", "head"])
    async def test_a_request_on_a_reused_connection_that_breaks_is_not_repeated_by_the_library(
        self, request_: HttpRequest
    ) -> None:
        """The second request of a connection gets no reply, and arrives once."""

        async def hang_up_later(exchange: Exchange) -> None:
            await (ok(exchange) if len(server.exchanges) == 1 else hang_up(exchange))

        async with RawServer(hang_up_later) as server, transport(server.url) as client:
            await client.send(GET)
            with pytest.raises(TransportError) as caught:
                await client.send(request_)
        assert caught.value.sent is True
        assert [exchange.connection for exchange in server.exchanges] == [1, 1]

    @pytest.mark.parametrize("request_", [GET, CREATE], ids=["read", "create"])
    async def test_a_server_without_an_answer_is_sent_and_timed_out(self, request_: HttpRequest) -> None:
        """The read timeout ends the request."""
        async with RawServer(silence) as server:
            error = await failure(server.url, request_, read=0.05)
        assert (error.sent, error.timed_out) == (True, True)

    async def test_a_connect_timeout_counts_as_not_sent(self) -> None:
        """A listener that does not accept connections."""
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting = [socket.socket() for _ in range(4)]
            for one in waiting:
                one.settimeout(0)
                one.connect_ex(full.getsockname())
            error = await failure(f"http://127.0.0.1:{full.getsockname()[1]}", CREATE, connect=0.2)
            for one in waiting:
                one.close()
        assert (error.sent, error.timed_out) == (False, True)
        assert_cause(error, "no answer to the connect in time")

    async def test_a_wait_for_the_pool_that_times_out_counts_as_not_sent(self) -> None:
        """All connections of the pool are busy."""
        async with RawServer(silence) as server, transport(server.url, connect=3, read=30) as client:
            busy = [asyncio.ensure_future(client.send(GET)) for _ in range(MAX_CONNECTIONS)]
            async with asyncio.timeout(20):
                while len(server.exchanges) < MAX_CONNECTIONS:  # noqa: ASYNC110 - the server has no event for it
                    await asyncio.sleep(0.01)
            with pytest.raises(TransportError) as caught:
                await client.send(GET)
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)
        assert (caught.value.sent, caught.value.timed_out) == (False, True)
        assert_cause(caught.value, "all connections are in use")

    @pytest.mark.parametrize(
        "bytes_",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<Response>",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n<Response>\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n<Resp",
            b"HTTP/1.1 200 OK\r\nContent-Le",
        ],
        ids=["cut-body", "cut-between-chunks", "cut-chunk", "cut-head"],
    )
    @pytest.mark.parametrize("request_", [GET, CREATE], ids=["read", "create"])
    async def test_a_truncated_reply_counts_as_sent(self, bytes_: bytes, request_: HttpRequest) -> None:
        """No part of it is returned as a reply."""

        async def broken(exchange: Exchange) -> None:
            await exchange.send(bytes_)
            exchange.writer.close()

        async with RawServer(broken) as server:
            error = await failure(server.url, request_)
        assert error.sent is True

    async def test_a_body_that_stalls_times_out_after_sending(self) -> None:
        """The read timeout is for each wait for more bytes."""

        async def stall(exchange: Exchange) -> None:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<Response>")
            await asyncio.sleep(60)

        async with RawServer(stall) as server:
            error = await failure(server.url, read=0.05)
        assert (error.sent, error.timed_out) == (True, True)

    async def test_the_message_of_an_error_contains_nothing_of_the_request(self) -> None:
        """The message is the kind of failure."""
        async with RawServer(hang_up) as server:
            error = await failure(server.url)
        own = {"closed by the server, before a reply", "connection reset by peer, before a reply"}
        assert str(error) in {"ServerDisconnectedError", "ClientOSError", *own}


class TestBodies:
    async def test_a_body_of_the_cap_is_read(self) -> None:
        """MAX_REPLY_BYTES is the largest body."""

        async def big(exchange: Exchange) -> None:
            await exchange.answer(b"x" * MAX_REPLY_BYTES)

        async with RawServer(big) as server, transport(server.url) as client:
            assert len((await client.send(GET)).body) == MAX_REPLY_BYTES

    @pytest.mark.parametrize(
        "head", [b"Transfer-Encoding: chunked", b"Content-Length: 1000000000000", b"X: until-close"]
    )
    async def test_a_body_past_the_cap_is_too_large(self, head: bytes) -> None:
        """ReplyTooLarge as soon as the cap is passed; the connection is closed and the rest not read."""
        sent = 0
        gone = asyncio.Event()

        async def endless(exchange: Exchange) -> None:
            nonlocal sent
            chunk = b"x" * 65536
            framed = b"10000\r\n" + chunk + b"\r\n" if b"chunked" in head else chunk
            try:
                await exchange.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
                while True:
                    await exchange.send(framed)
                    sent += len(chunk)
            finally:
                gone.set()

        async with RawServer(endless) as server, transport(server.url) as client:
            with pytest.raises(ReplyTooLarge):
                await client.send(GET)
            async with asyncio.timeout(5):
                await gone.wait()
        assert sent < 2 * MAX_REPLY_BYTES + 16 * 1024 * 1024

    @pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
    async def test_a_body_in_gzip_is_inflated_although_it_was_not_asked_for(self, encoding: str) -> None:
        """As the vendor's SDKs do."""

        async def compressed(exchange: Exchange) -> None:
            await exchange.answer(gzip.compress(b"<ok/>"), headers=f"Content-Encoding: {encoding}\r\n")

        async with RawServer(compressed) as server, transport(server.url) as client:
            assert (await client.send(GET)).body == b"<ok/>"

    async def test_a_body_that_inflates_past_the_cap_is_too_large(self) -> None:
        """100 KB of it would be 100 MB: no more than the cap is made."""
        bomb = gzip.compress(b"x" * 100_000_000)

        async def compressed(exchange: Exchange) -> None:
            await exchange.answer(bomb, headers="Content-Encoding: gzip\r\n")

        async with RawServer(compressed) as server, transport(server.url) as client:
            tracemalloc.start()
            with pytest.raises(ReplyTooLarge):
                await client.send(GET)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 4 * MAX_REPLY_BYTES

    async def test_a_compressed_body_of_the_cap_is_read(self) -> None:
        """MAX_REPLY_BYTES is the largest body, inflated too."""

        async def compressed(exchange: Exchange) -> None:
            await exchange.answer(gzip.compress(b"x" * MAX_REPLY_BYTES), headers="Content-Encoding: gzip\r\n")

        async with RawServer(compressed) as server, transport(server.url) as client:
            assert len((await client.send(GET)).body) == MAX_REPLY_BYTES

    @pytest.mark.parametrize(
        "body",
        [b"<ok/>", gzip.compress(b"<ok/>")[:-1], gzip.compress(b"<ok/>") + b"more", b"\x1f\x8b"],
        ids=["plain", "cut", "more", "head"],
    )
    async def test_a_body_that_is_not_the_gzip_of_its_header_is_a_bad_response(self, body: bytes) -> None:
        """No part of it is returned."""

        async def compressed(exchange: Exchange) -> None:
            await exchange.answer(body, headers="Content-Encoding: gzip\r\n")

        async with RawServer(compressed) as server, transport(server.url) as client:
            with pytest.raises(UpstreamError) as caught:
                await client.send(GET)
        assert caught.value.reason == reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE

    async def test_a_reply_without_a_body_keeps_its_encoding(self) -> None:
        """The answer to the HEAD of a compressed object names the encoding of the object."""

        async def head(exchange: Exchange) -> None:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Encoding: gzip\r\n\r\n")

        async with RawServer(head) as server, transport(server.url) as client:
            assert (await client.send(HEAD)).status == 200


class TestFraming:
    @pytest.mark.parametrize(("bytes_", "what"), list(NOT_HTTP.values()), ids=list(NOT_HTTP))
    @pytest.mark.parametrize("request_", [GET, CREATE], ids=["read", "create"])
    async def test_a_reply_that_breaks_a_rule_of_http_is_a_bad_response_that_says_which(
        self,
        bytes_: bytes,
        what: str,
        request_: HttpRequest,
        candidate: Candidate,
        request: pytest.FixtureRequest,
    ) -> None:
        """Two readers could read it differently. No part of it is returned; the next request has another connection."""
        if candidate is AiohttpTransport and bytes_ in AIOHTTP_TAKES:
            request.applymarker(pytest.mark.xfail(reason=AIOHTTP_TAKES[bytes_], strict=True))

        async def odd(exchange: Exchange) -> None:
            await (exchange.send(bytes_) if len(server.exchanges) == 1 else ok(exchange))

        async with RawServer(odd) as server, transport(server.url, read=0.5) as client:
            with pytest.raises((UpstreamError, TransportError)) as caught:
                await client.send(request_)
            assert (await client.send(GET)).body == b"<ok/>"
        assert [exchange.connection for exchange in server.exchanges] == [1, 2]
        if candidate not in PRODUCTS:
            assert isinstance(caught.value, TransportError)
            assert caught.value.sent is True
            return
        assert isinstance(caught.value, UpstreamError)
        assert caught.value.reason == reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE
        assert caught.value.message == f"the reply is not HTTP: {what}"

    @pytest.mark.parametrize("later", [False, True], ids=["at-once", "later"])
    @pytest.mark.parametrize("surplus", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"garbage"])
    async def test_what_follows_a_reply_is_never_the_next_ones(
        self, surplus: bytes, *, later: bool, candidate: Candidate, request: pytest.FixtureRequest
    ) -> None:
        """A server that says more than it was asked loses the connection."""
        if candidate is AiohttpTransport:
            reason = "aiohttp 3.14 gives it to the next request: one reason against it in ADR 1"
            request.applymarker(pytest.mark.xfail(reason=reason, strict=False))

        async def talkative(exchange: Exchange) -> None:
            if len(server.exchanges) > 1:
                await ok(exchange)
                return
            reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            await exchange.send(reply if later else reply + surplus)
            if later:
                await asyncio.sleep(0.01)
                await exchange.send(surplus)
                said.set()

        said = asyncio.Event()
        async with RawServer(talkative) as server, transport(server.url) as client:
            assert (await client.send(GET)).body == b"ok"
            if later:
                await said.wait()
            assert (await client.send(GET)).body == b"<ok/>"
        assert [exchange.connection for exchange in server.exchanges] == [1, 2]

    async def test_informational_replies_come_before_the_reply(self) -> None:
        """100 and 103 are passed over."""

        async def early(exchange: Exchange) -> None:
            await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n")
            await ok(exchange)

        async with RawServer(early) as server, transport(server.url) as client:
            for _ in range(2):
                answer = await client.send(GET)
                assert (answer.status, answer.body) == (200, b"<ok/>")

    @pytest.mark.parametrize(
        "reply",
        [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n<o\r\n3\r\nk/>\r\n0\r\nT: t\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n<ok/>",
            b"HTTP/1.0 200 OK\r\n\r\n<ok/>",
        ],
        ids=["chunked", "until-close", "http-1.0"],
    )
    async def test_each_way_to_end_a_body_is_read(self, reply: bytes) -> None:
        """In pieces of one byte too."""

        async def dribble(exchange: Exchange) -> None:
            for byte in reply:
                await exchange.send(bytes((byte,)))
            exchange.writer.close()

        async with RawServer(dribble) as server, transport(server.url) as client:
            assert (await client.send(GET)).body == b"<ok/>"

    async def test_an_idle_connection_that_the_server_closes_is_not_used_again(
        self, candidate: Candidate, request: pytest.FixtureRequest
    ) -> None:
        """No read is lost to it, once the server's end of the connection is closed."""
        if candidate is AiohttpTransport:
            reason = "aiohttp 3.14 uses it unless the loop has heard of the end: one reason against it in ADR 1"
            request.applymarker(pytest.mark.xfail(reason=reason, strict=False))

        async def answer_and_close(exchange: Exchange) -> None:
            await ok(exchange)
            exchange.writer.close()
            await exchange.writer.wait_closed()
            closed.set()

        closed = asyncio.Event()
        async with RawServer(answer_and_close) as server, transport(server.url) as client:
            for _ in range(50):
                closed.clear()
                assert (await client.send(GET)).status == 200
                await closed.wait()
        assert len(server.exchanges) == 50

    @pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rb", "a\0b"])
    async def test_a_header_with_a_line_break_is_never_sent(self, value: str) -> None:
        """Nothing of the request arrives."""
        async with RawServer(ok) as server, transport(server.url) as client:
            with pytest.raises((ValueError, TransportError)):
                await client.send(HttpRequest("GET", HOST, "/", headers={**HEADERS, "x": value}))
        assert server.exchanges == []


class TlsServer:
    """A TLS server with a certificate of a new authority, which the client is told to trust; it stores what it hears.

    `says` is its answer to the first request, after which it closes the connection, by `abort` without a close_notify.
    """

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, name: str = "localhost", age: int = 0, says: bytes = b""
    ) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        begin = dt.datetime.now(dt.UTC) - dt.timedelta(days=age + 1)  # noqa: TID251 - TLS reads the clock itself
        issued = authority.issue_cert(name, not_before=begin, not_after=begin + dt.timedelta(days=2))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(self.context)
        self.says, self.abort = says, False
        self.heard: list[bytes] = []

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.context)
        self.url = f"https://localhost:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            self.heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.says)
            if self.abort:
                # The plain connection beneath is closed as by somebody on the way.
                await asyncio.sleep(0)  # uvloop writes at the end of its round
                with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as plain:
                    plain.shutdown(socket.SHUT_WR)
        writer.close()


class TestTls:
    async def test_a_trusted_certificate_of_the_host_is_accepted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The request goes through; the body ends with the server's own close."""
        says = b"HTTP/1.1 200 OK\r\n\r\n<ok/>"
        async with (
            TlsServer(tmp_path, monkeypatch, says=says) as server,
            transport(server.url) as client,
        ):
            assert (await client.send(GET)).body == b"<ok/>"
        assert server.heard[0].startswith(b"GET /doc_jobs/d1 HTTP/1.1\r\n")

    @pytest.mark.parametrize(
        ("name", "age", "cause"),
        [
            ("other.example", 0, "the certificate is for another name"),
            ("localhost", 30, "the certificate has expired, by this machine's clock"),
            ("localhost", -30, "the certificate is not valid yet, by this machine's clock"),
        ],
        ids=["another-name", "expired", "not-yet"],
    )
    async def test_a_certificate_that_is_not_the_hosts_or_expired_is_rejected_before_sending(
        self, name: str, age: int, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Although its authority is trusted; it counts as not sent."""
        async with TlsServer(tmp_path, monkeypatch, name=name, age=age) as server:
            error = await failure(server.url, CREATE)
        assert (error.sent, error.timed_out) == (False, False)
        assert_cause(error, cause)
        assert server.heard == []

    async def test_a_body_until_the_close_is_no_reply_without_a_close_of_tls(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candidate: Candidate, request: pytest.FixtureRequest
    ) -> None:
        """Anybody on the way can close a connection, and so cut a body that has no length."""
        if candidate is AiohttpTransport:
            request.applymarker(pytest.mark.xfail(reason="aiohttp 3.14 takes the cut body for whole", strict=True))
        async with TlsServer(tmp_path, monkeypatch, says=b"HTTP/1.1 200 OK\r\n\r\n<ok") as server:
            server.abort = True
            assert (await failure(server.url)).sent is True

    async def test_an_untrusted_certificate_is_rejected_before_sending(self, tmp_path: Path) -> None:
        """A self-signed certificate counts as not sent."""
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 1 -subj /CN=x"
        subprocess.run(command.split(), check=True, capture_output=True)  # noqa: ASYNC221 - before anything runs
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        heard: list[bytes] = []

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read())
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
        error = await failure(f"https://localhost:{server.sockets[0].getsockname()[1]}", CREATE)
        server.close()
        assert error.sent is False
        assert_cause(error, "the certificate is not of a trusted authority")
        assert b"".join(heard) == b""

    @pytest.mark.parametrize(
        ("says", "causes"),
        [
            (bytes((0x15, 3, 1, 0, 2, 2, 70)), {"the TLS version of the server is too old"}),
            (bytes((0x15, 3, 1, 0, 2, 2, 40)), {"the server refuses the TLS handshake"}),
            (b"", {"closed in the TLS handshake", "connection reset by peer"}),
        ],
        ids=["old-version", "refused", "closed"],
    )
    async def test_a_handshake_that_the_server_ends_counts_as_not_sent(self, says: bytes, causes: set[str]) -> None:
        """By an alert, as OpenSSL's server does, or by closing, as a box on the way that forbids the host."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                await reader.read(2000)
                writer.write(says)
                if says:
                    await reader.read()
            writer.close()
            gone.set()

        gone = asyncio.Event()
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        error = await failure(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", CREATE)
        server.close()
        await gone.wait()
        await asyncio.sleep(0)
        assert error.sent is False
        assert_cause(error, *causes)

    async def test_a_failed_tls_handshake_counts_as_not_sent(self) -> None:
        """The server does not speak TLS."""

        async def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        error = await failure(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", CREATE)
        server.close()
        assert error.sent is False
        assert_cause(error, "what answers there speaks no TLS")

    async def test_the_connect_timeout_covers_the_tls_handshake(self) -> None:
        """The server accepts the connection and stays silent."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            gone.set()

        gone = asyncio.Event()
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        error = await failure(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", CREATE, connect=0.2)
        server.close()
        await gone.wait()
        await asyncio.sleep(0)
        assert (error.sent, error.timed_out) == (False, True)
        assert_cause(error, "no TLS handshake in time")
