"""The sender against receivers that misbehave, on real sockets."""

from __future__ import annotations

import asyncio
import base64
import socket
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from docpreview_gateway.model.webhooks import WebhookTarget
from docpreview_gateway.webhooks.sender import Answer, Sender, sender, why_not
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


async def answered(folder: Path, answer: bytes, url: str = "http://127.0.0.1:{port}/") -> tuple[Answer, int]:
    """What comes of an attempt at a receiver that sends this again and again, and the bytes that it got rid of."""
    secret, sent = folder / "secret", 0
    secret.write_text("whsec_" + base64.b64encode(bytes(32)).decode())
    over = asyncio.Event()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        try:
            while answer.endswith(b"body"):
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
        except OSError:
            pass
        finally:
            writer.close()
            over.set()

    async with await asyncio.start_server(receive, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        target = WebhookTarget("orders", url.format(port=port), secret)
        async with asyncio.timeout(30), sender(FakeClock()) as sending:
            found = await sending.send(target, "evt_1", b"{}")
            if "{port}" in url:
                await over.wait()
    return found, sent


async def test_the_body_of_an_answer_is_not_read(tmp_path: Path) -> None:
    """The connection is closed; what fits into the buffers of sockets has been sent."""
    found, sent = await answered(tmp_path, b"HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\nbody")
    assert found == Answer("delivered", "status 200")
    assert sent < 32 << 20


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the connection was closed before an answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nbody", "the answer is not HTTP"),
    ],
)
async def test_what_is_no_answer_of_http_is_no_delivery(tmp_path: Path, answer: bytes, words: str) -> None:
    found, _ = await answered(tmp_path, answer)
    assert found == Answer("unreachable", words)


async def test_why_there_is_no_connection_is_said_in_words(tmp_path: Path) -> None:
    found, _ = await answered(tmp_path, b"", "http://127.0.0.1:1/")
    assert found == Answer("unreachable", "connection refused")


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "h.test"), "name not found"),
        (OSError(None, "h.test"), "name cannot be resolved"),
    ],
)
def test_a_name_that_is_not_found_is_said_without_it(cause: OSError, words: str) -> None:
    key = ConnectionKey("h.test", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None)
    assert why_not(aiohttp.ClientConnectorDNSError(key, cause)) == words


async def test_a_receiver_that_says_nothing_is_one_with_no_answer_in_time(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("whsec_" + base64.b64encode(bytes(32)).decode())
    over = asyncio.Event()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        over.set()

    async with await asyncio.start_server(receive, "127.0.0.1", 0) as server:
        target = WebhookTarget("orders", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", tmp_path / "secret")
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.2)) as session:
            found = await Sender(session, FakeClock()).send(target, "evt_1", b"{}")
        await over.wait()
    assert found == Answer("timeout", "no answer in time")


async def test_an_address_that_cannot_be_asked_is_one_that_cannot_be_reached(tmp_path: Path) -> None:
    """Policies refuse such an address; it ends the attempt and not the delivery all the same."""
    found, _ = await answered(tmp_path, b"", f"http://{'x' * 64}.example.com/")
    assert found.outcome == "unreachable"
