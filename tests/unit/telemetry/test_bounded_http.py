"""The bounds of the admin port's connections, over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from aiohttp import web

from docpreview_gateway.telemetry.bounded_http import BoundedServer, Handler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BEGUN, REST = b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"\r\n"


class Scene:
    """A server that answers `ok` when `go` is set, and connections to it."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked = asyncio.Event()
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def answer(self, _request: web.BaseRequest) -> web.Response:
        self.asked.set()
        await self.go.wait()
        return web.Response(text="ok")

    async def connect(self, sent: bytes) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        writer.write(sent)
        await writer.drain()
        return reader, writer

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def scene(answer: Handler | None = None, **limits: Any) -> AsyncIterator[Scene]:
    found = Scene()
    runner = web.ServerRunner(BoundedServer(answer or found.answer, **limits), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    try:
        yield found
    finally:
        found.close()
        await runner.cleanup()


async def received(reader: asyncio.StreamReader) -> bytes:
    """All until the end of the connection."""
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""


async def test_each_connection_carries_one_request() -> None:
    """A second one on it is not answered, and a body is not waited for."""
    async with scene() as found:
        found.go.set()
        twice, _ = await found.connect(2 * (BEGUN + REST))
        assert (await received(twice)).count(b"HTTP/1.1 200 OK") == 1
        body, _ = await found.connect(BEGUN + b"Content-Length: 10\r\n\r\n")
        assert b"Connection: close" in await received(body)


async def test_a_head_that_does_not_end_in_time_closes_the_connection() -> None:
    """Nor does one that trickles in live longer."""
    async with scene(head_seconds=0.2) as found:
        silent, _ = await found.connect(b"")
        slow, writer = await found.connect(BEGUN)
        writer.write(b"X-More: 1\r\n")
        assert await received(silent) == b""
        assert await received(slow) == b""
        assert not found.asked.is_set()


@pytest.mark.parametrize(
    "sent",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60),
        b"garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
    ids=["gRPC", "TLS", "garbage", "bad header", "long header"],
)
async def test_what_is_no_http_is_one_line_of_the_log_a_minute(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """And no traceback: any stranger can send it, at any rate."""
    with structlog.testing.capture_logs() as logged:
        async with scene() as found:
            for _ in range(3):
                reader, _ = await found.connect(sent)
                assert b" 200 " not in await received(reader)
    assert [(line["log_level"], line["event"]) for line in logged] == [
        ("info", "a request to the admin port is no HTTP")
    ]
    assert logged[0]["peer"] == "127.0.0.1"
    assert not [record for record in caplog.records if record.name.startswith("aiohttp")]


async def test_an_error_of_the_answer_itself_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """It is one of ours."""

    async def broken(_request: web.BaseRequest) -> web.Response:
        raise RuntimeError

    async with scene(broken) as found:
        reader, _ = await found.connect(BEGUN + REST)
        assert b" 500 " in await received(reader)
    assert [record.exc_info is not None for record in caplog.records if record.name == "aiohttp.server"] == [True]


async def test_an_answer_that_takes_too_long_closes_the_connection() -> None:
    """Whether it is not made or not read."""
    async with scene(answer_seconds=0.2) as found:
        reader, _ = await found.connect(BEGUN + REST)
        assert await received(reader) == b""
        assert found.asked.is_set()


async def test_beyond_the_bound_the_oldest_silent_connection_makes_room() -> None:
    """So that probes are answered however many strangers hold connections."""
    async with scene(most=2) as found:
        found.go.set()
        first, _ = await found.connect(BEGUN)
        second, writer = await found.connect(BEGUN)
        probe, _ = await found.connect(BEGUN + REST)
        assert (await received(probe)).endswith(b"ok")
        assert await received(first) == b""
        writer.write(REST)
        assert (await received(second)).endswith(b"ok")


async def test_when_all_connections_have_asked_a_new_one_is_closed() -> None:
    """Their answers are on the way."""
    async with scene(most=1) as found:
        asked, _ = await found.connect(BEGUN + REST)
        await found.asked.wait()
        refused, _ = await found.connect(BEGUN + REST)
        assert await received(refused) == b""
        found.go.set()
        assert (await received(asked)).endswith(b"ok")
