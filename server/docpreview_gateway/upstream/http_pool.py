"""The connections of the built-in HTTP client: their number, their reuse, and how they are made."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.upstream import causes
from docpreview_gateway.upstream.http_connection import Connection
from docpreview_gateway.upstream.http_proxy import open_socket
from docpreview_gateway.upstream.ports import ProxyError, TransportError

if TYPE_CHECKING:
    import ssl
    from typing import Any

    from docpreview_gateway.upstream.http_proxy import Proxy

    Address = tuple[int, int, int, str, tuple[Any, ...]]

MAX_CONNECTIONS = 100
KEEPALIVE_SECONDS = 15.0
"""Shorter than the usual idle timeout of servers, so that they rarely close a connection just before its reuse."""

DNS_SECONDS = 30.0
"""Lifetime of a host's addresses."""


class Origin(NamedTuple):
    """Where a connection leads to."""

    scheme: str
    host: str
    port: int


class Pool:
    """At most `MAX_CONNECTIONS` exchanges at a time, first come, first served; idle connections are reused.

    Without `keep` each exchange has a new connection, and none is kept. With a proxy each has a tunnel of its own.
    """

    def __init__(  # noqa: PLR0913 - what connections are made from
        self,
        names: Names,
        tls: ssl.SSLContext,
        *,
        connect_seconds: float,
        read_seconds: float,
        keep: bool,
        proxy: Proxy | None = None,
    ) -> None:
        self._names = names
        self._tls = tls
        self._proxy = proxy
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._keep = keep
        self._free = MAX_CONNECTIONS
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: dict[Origin, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    async def take(self, origin: Origin) -> Connection:
        """A connection, of which the caller has to tell `give_back`. TransportError, not sent, when there is none."""
        if self._free > 0:
            self._free -= 1
            if (connection := self._quiet(origin)) is not None:
                return connection
            return await self._slow(origin, None)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return await self._slow(origin, turn)

    def give_back(self, origin: Origin, connection: Connection | None) -> None:
        """End an exchange. None: no connection was made."""
        if connection is not None and connection.usable and self._keep:
            loop = asyncio.get_running_loop()
            connection.idle_since = now = loop.time()
            self._idle.setdefault(origin, []).append(connection)
            if self._sweeper is None:
                self._sweeper = loop.call_at(now + KEEPALIVE_SECONDS, self._sweep)
        elif connection is not None:
            connection.close()
        while self._waiting:
            if not (waiter := self._waiting.popleft()).done():
                waiter.set_result(None)
                return
        self._free += 1

    async def close(self) -> None:
        """Close all connections; whoever waits for a reply gets none."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._idle.clear()
        for connection in tuple(self._open):
            connection.abort()
        while self._open:  # noqa: ASYNC110 - until the loop has told each of them, which it does in its next rounds
            await asyncio.sleep(0)

    async def _slow(self, origin: Origin, turn: asyncio.Future[None] | None) -> Connection:
        """Wait for the turn, if there is one to wait for, and connect, both within the connect timeout."""
        has_slot = turn is None
        try:
            async with asyncio.timeout(self._connect_seconds):
                if turn is not None:
                    with causes.step("all connections are in use"):
                        await turn
                    has_slot = True
                    if (connection := self._quiet(origin)) is not None:
                        return connection
                return await self._connect(origin)
        except BaseException as error:
            # The turn may have come in the same moment as the cancellation.
            if has_slot or (turn is not None and turn.done() and not turn.cancelled()):
                self.give_back(origin, None)
            if isinstance(error, TimeoutError):
                cause = causes.of_connecting(error)
                if self._proxy is not None and has_slot:
                    late = f"no connection in time by the proxy {self._proxy.place}: {cause}"
                    raise ProxyError(late, timed_out=True) from error
                raise TransportError(cause, sent=False, timed_out=True) from error
            if isinstance(error, (OSError, UnicodeError)):
                # UnicodeError: of Python's resolver, for a host with a part that is too long.
                raise TransportError(causes.of_connecting(error), sent=False) from error
            raise

    async def _connect(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        sock = await open_socket(self._names, origin, self._proxy)
        secure: dict[str, Any] = {}
        if origin.scheme == "https":
            secure = {"ssl": self._tls, "server_hostname": origin.host, "ssl_handshake_timeout": self._connect_seconds}
        connection = Connection(loop, self._read_seconds, self._open.discard)
        try:
            with causes.step("no TLS handshake in time"):
                await loop.create_connection(lambda: connection, sock=sock, **secure)
        except BaseException:
            if connection.usable:
                connection.abort()
            sock.close()
            raise
        if not connection.usable:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        self._open.add(connection)
        return connection

    def _quiet(self, origin: Origin) -> Connection | None:
        """The idle connection that was used last, if the server has neither closed it nor said anything since."""
        idle = self._idle.get(origin)
        if not idle:
            return None
        oldest = asyncio.get_running_loop().time() - KEEPALIVE_SECONDS
        while idle:
            connection = idle.pop()
            if connection.idle_since > oldest and connection.is_quiet():
                return connection
            connection.close()
        return None

    def _sweep(self) -> None:
        """Close what was idle for too long."""
        loop = asyncio.get_running_loop()
        self._sweeper = None
        oldest = loop.time() - KEEPALIVE_SECONDS
        for origin, idle in tuple(self._idle.items()):
            for connection in idle:
                if connection.idle_since <= oldest or not connection.usable:
                    connection.close()
            if kept := [connection for connection in idle if connection.usable]:
                self._idle[origin] = kept
            else:
                del self._idle[origin]
        if self._idle:
            first = min(connection.idle_since for idle in self._idle.values() for connection in idle)
            self._sweeper = loop.call_at(first + KEEPALIVE_SECONDS, self._sweep)


class Names:
    """Addresses of hosts, asked for once in `DNS_SECONDS` by however many connections, and taken in turn."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float, deque[Address]]] = {}
        self._asked: dict[tuple[str, int], asyncio.Task[deque[Address]]] = {}

    async def addresses(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, each time with another one first. OSError, UnicodeError."""
        if (literal := _literal(host, port)) is not None:
            return [literal]
        key, now = (host, port), asyncio.get_running_loop().time()
        until, found = self._known.get(key, (0.0, None))
        if found is None or until <= now:
            task = self._asked.get(key)
            if task is None:
                task = self._asked[key] = asyncio.ensure_future(self._ask(host, port))
                task.add_done_callback(lambda _task: self._asked.pop(key, None))
            # Shielded: others may wait for the same answer.
            found = await asyncio.shield(task)
        answer = list(found)
        found.rotate(-1)
        return answer

    async def _ask(self, host: str, port: int) -> deque[Address]:
        loop = asyncio.get_running_loop()
        found: deque[Address] = deque(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        for key in [key for key, (until, _) in self._known.items() if until <= loop.time()]:
            del self._known[key]
        self._known[host, port] = (loop.time() + DNS_SECONDS, found)
        return found


def _literal(host: str, port: int) -> Address | None:
    """The address that a host is itself, without any look-up; None: it is a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.version == 6:  # noqa: PLR2004 - of IP
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
