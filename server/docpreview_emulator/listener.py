"""The listening port: plain HTTP, TLS, and tunnels of HTTP CONNECT, told apart by their first byte.

A tunnel ends in the emulator itself, whatever host of the cloud it names. Nothing is ever dialled.
"""

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, cast
from weakref import WeakSet

from aiohttp import web

from docpreview_emulator.hosts import read_host

_log = logging.getLogger(__name__)
_TLS = b"\x16"
_LONGEST_HEAD = 16 * 1024
_HEAD_SECONDS = 10.0
_PAUSE = 0.1
_BACKLOG = 128
_MOST_TURNS = 100
_END = b"\r\n\r\n"
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_CONNECT = re.compile(r"CONNECT ([!-~]+) HTTP/1\.[01]")


class Listener:
    """Accepts connections and hands them to applications: `direct` ones, and those that came through a tunnel.

    Without `tls` all connections are plain HTTP, and tunnels are refused.
    """

    def __init__(self, direct: web.AppRunner, tunnelled: web.AppRunner, tls: ssl.SSLContext | None) -> None:
        self._direct = direct
        self._tunnelled = tunnelled
        self._tls = tls
        self._listening: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._secure: WeakSet[socket.socket] = WeakSet()

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen at each address of the host; the first of them and its port are returned.

        Raises:
            OSError: an address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        for runner in (self._direct, self._tunnelled):
            await runner.setup()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            listening = socket.create_server(address, family=family, backlog=_BACKLOG)
            listening.settimeout(0)
            self._listening.append(listening)
            self._spawn(self._accept(listening))
        first = self._listening[0].getsockname()
        return str(first[0]), int(first[1])

    async def close(self) -> None:
        """Stop listening, let the requests in flight end, and close all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening in self._listening:
            listening.close()
        for runner in (self._direct, self._tunnelled):
            await runner.cleanup()
        # A TLS transport that is closed waits for the client's farewell; an idle client sends none.
        for connection in self._secure:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for _ in range(_MOST_TURNS):
            if all(connection.fileno() < 0 for connection in self._secure):
                break
            await asyncio.sleep(0)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # such as too many open files
                _log.warning("a connection cannot be accepted: %s", error.strerror)
                await asyncio.sleep(_PAUSE)
            else:
                self._spawn(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        try:
            chosen = await self._choose(connection)
            if chosen is None:
                connection.close()
                return
        except (OSError, TimeoutError) as error:
            connection.close()
            _log.info("a connection ended before its first request: %s", error)
            return
        except BaseException:
            connection.close()
            raise
        runner, tls = chosen
        if tls is not None:
            self._secure.add(connection)
        try:
            loop, factory = asyncio.get_running_loop(), cast("Callable[[], asyncio.Protocol]", runner.server)
            await loop.connect_accepted_socket(factory, connection, ssl=tls)
        except OSError as error:  # the socket is closed by its transport
            _log.info("a TLS handshake failed: %s", error)

    async def _choose(self, connection: socket.socket) -> tuple[web.AppRunner, ssl.SSLContext | None] | None:
        """What serves a connection, with TLS or without; None: it is refused, and has its answer."""
        first, runner = await _peek(connection, 1), self._direct
        if first == b"C":  # no other method that the cloud knows begins with it
            async with asyncio.timeout(_HEAD_SECONDS):
                refusal = self._refusal(await _read_head(connection))
                await asyncio.get_running_loop().sock_sendall(connection, refusal or _ESTABLISHED)
            if refusal:
                return None
            first, runner = await _peek(connection, 1), self._tunnelled
        if first == _TLS and self._tls is None:
            _log.warning("a client speaks TLS: start the emulator with --tls")
        return runner, self._tls if first == _TLS else None

    def _refusal(self, head: bytes) -> bytes | None:
        """The answer to a CONNECT that gets no tunnel."""
        line = head.split(b"\r\n", 1)[0].decode("ascii", "replace")
        match = _CONNECT.fullmatch(line)
        if match is None:
            return _answer("400 Bad Request", "This is no request that the emulator can read.")
        if read_host(match[1]) is None:
            _log.warning("CONNECT %s: refused, not a host of the cloud", match[1][:100])
            return _answer(
                "403 Not a host of the cloud",
                f"{match[1][:100]} is not a host of the cloud, and the emulator connects to nothing else. "
                "Name other hosts in NO_PROXY.",
            )
        if self._tls is None:
            return _answer("501 Start the emulator with --tls", "Start the emulator with --tls to have CONNECT.")
        _log.info("CONNECT %s", match[1])
        return None


async def _peek(connection: socket.socket, size: int) -> bytes:
    """The next bytes, which stay to be read; none: the client has closed."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    while True:
        try:
            return connection.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            readable.clear()
            loop.add_reader(connection, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(connection)


async def _read_head(connection: socket.socket) -> bytes:
    """The head of a request up to its end, and nothing of what follows it.

    Raises:
        ConnectionError: the client closed before its end, or it is longer than is read.
    """
    head = b""
    while not head.endswith(_END):
        seen = await _peek(connection, _LONGEST_HEAD - len(head))
        if not seen:
            raise ConnectionError("the head of a CONNECT has no end")
        end = (head + seen).find(_END)
        head += connection.recv(len(seen) if end < 0 else end + len(_END) - len(head))
    return head


def _answer(status: str, message: str) -> bytes:
    body = f"{message}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
