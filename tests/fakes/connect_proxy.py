"""A company's egress proxy: tunnels by CONNECT over real sockets, or whatever a test answers in their place."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tests.fakes.raw_server import Exchange

if TYPE_CHECKING:
    from tests.fakes.raw_server import Behaviour


@dataclass
class ConnectProxy:
    """A proxy on a free loopback port, which notes what it is asked.

    `leads` has the loopback port of each `host:port` that a tunnel leads to. With `authorization` another one, or
    none, gets 407. `instead` answers in place of a tunnel.
    """

    leads: dict[str, int] = field(default_factory=dict)
    authorization: str = ""
    instead: Behaviour | None = None
    asked: list[Exchange] = field(default_factory=list)
    open_connections: int = 0

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._tunnels: set[asyncio.StreamWriter] = set()
        self._all_closed = asyncio.Event()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.place = f"127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the loop closes the sockets in its next round

    async def until_all_are_closed(self) -> None:
        """Until nobody is connected."""
        async with asyncio.timeout(5):
            while self.open_connections:
                self._all_closed.clear()
                await self._all_closed.wait()

    def cut(self) -> None:
        """Break every tunnel."""
        for writer in tuple(self._tunnels):
            writer.transport.abort()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            exchange = Exchange(head, b"", writer, len(self.asked) + 1)
            self.asked.append(exchange)
            if self.instead is not None:
                await self.instead(exchange)
                await reader.read()
            else:
                await self._tunnel(exchange, reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.open_connections -= 1
            self._all_closed.set()

    async def _tunnel(self, exchange: Exchange, reader: asyncio.StreamReader) -> None:
        method, target, _version = exchange.request_line.split(" ")
        if self.authorization and exchange.header("proxy-authorization") != [self.authorization]:
            await exchange.answer(b"who?", "407 Proxy Authentication Required", "Proxy-Authenticate: Basic\r\n")
        elif method != "CONNECT" or target not in self.leads:
            await exchange.answer(b"no", "403 Forbidden")
        else:
            from_target, to_target = await asyncio.open_connection("127.0.0.1", self.leads[target])
            self._tunnels.add(exchange.writer)
            try:
                await exchange.send(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")
                await asyncio.gather(_copy(reader, to_target), _copy(from_target, exchange.writer))
            finally:
                self._tunnels.discard(exchange.writer)
                to_target.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes of one direction, until either end closes; its close too."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
