"""Keeps a gRPC server listening on one port.

grpc.aio's accept loop dies of whatever a stranger's bytes raise in it: in grpcio 1.85 of a `:path` that is not UTF-8.
Its server then refuses connections for good, and calls run on, on the connections that exist. Nothing in grpc.aio
prevents or tells it. But the loop is an asyncio task, whose end is known before the server closes its sockets.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from docpreview_gateway.storage.background import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from docpreview_gateway.rpc.ports import RpcTelemetry

REBIND_SECONDS = 5.0
"""Time for which binding a lost port is tried."""

REBIND_PAUSE = 0.1

_ACCEPT_LOOP, _SHUTDOWN = "AioServer._server_main_loop", "AioServer.shutdown"
_LIBRARY = logging.getLogger("grpc._cython.cygrpc")

log = structlog.get_logger("docpreview_gateway.rpc")


class Listener:
    """A gRPC server on `address`, and another one on the same port when it ends unasked.

    `create` returns a server with handlers and without ports. If its sockets may share the port, a new server has the
    port before the old one has lost it. Calls in flight on the old one run on for at most `grace` seconds. A port that
    cannot be bound again within `rebind` seconds is lost.
    """

    def __init__(  # noqa: PLR0913 - what is served, where, and for how long
        self,
        create: Callable[[], grpc.aio.Server],
        address: str,
        credentials: grpc.ServerCredentials | None,
        telemetry: RpcTelemetry,
        *,
        grace: float,
        rebind: float = REBIND_SECONDS,
    ) -> None:
        self._create = create
        self._address = address
        self._credentials = credentials
        self._telemetry = telemetry
        self._grace, self._rebind = grace, rebind
        self._servers: list[grpc.aio.Server] = []
        """Those with a port or with calls: one listens, others have ended unasked."""
        self._tasks = BackgroundTasks()
        self._accepting: asyncio.Task[Any] | None = None
        """The latest server's accept loop."""
        self._stopping = False
        self.listening = False
        self.lost = asyncio.Event()
        """Set when the port cannot be bound again: the process is of no use any more."""

    async def start(self) -> int:
        """Listen. The port; RuntimeError when the address cannot be used."""
        server, port = self._bind()
        self._address = f"{self._address.rpartition(':')[0]}:{port}"
        _LIBRARY.addFilter(self._is_news)
        await self._serve(server)
        return port

    async def stop(self, grace: float | None) -> None:
        """Stop listening. Calls in flight get `grace` seconds; None: they are cancelled."""
        self._stopping = True
        self._set_listening(to=False)
        await self._tasks.cancel()
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
        _LIBRARY.removeFilter(self._is_news)

    def _bind(self) -> tuple[grpc.aio.Server, int]:
        """A new server and its port, at which connections wait from now on. RuntimeError when it cannot be bound."""
        server = self._create()
        if self._credentials is None:
            port = server.add_insecure_port(self._address)
        else:
            port = server.add_secure_port(self._address, self._credentials)
        self._servers.append(server)
        return server, port

    async def _serve(self, server: grpc.aio.Server) -> None:
        self._accepting = accepting = await _start(server)
        accepting.add_done_callback(partial(self._on_end, server))
        self._set_listening(to=True)

    def _on_end(self, server: grpc.aio.Server, accepting: asyncio.Task[Any]) -> None:
        """Replace a server whose accept loop has ended, unless it was asked to."""
        if self._stopping:
            return
        self._set_listening(to=False)
        self._telemetry.server_replaced()
        error = None if accepting.cancelled() else accepting.exception()
        _retrieve_errors_of_shutdowns()
        # Its type only: the text may quote the stranger's bytes.
        log.error("the gRPC server ended unasked and is replaced", error=type(error).__name__ if error else "")
        try:
            # Here, not in a task: after this callback the old server closes its socket.
            bound, _ = self._bind()
        except RuntimeError:
            bound = None
        _ = self._tasks.start(self._replace(server, bound), "replace the gRPC server")

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Whether a line of gRPC tells anything but the end of an accept loop, of which `_on_end` writes a line."""
        ended = self._accepting
        if ended is None or not ended.done() or ended.cancelled():
            return True
        return record.msg is not ended.exception()  # gRPC logs the error itself

    async def _replace(self, ended: grpc.aio.Server, bound: grpc.aio.Server | None) -> None:
        if bound is None:
            bound = await self._bound_later()
        if bound is None:
            log.critical("the gRPC port cannot be bound again", address=self._address)
            self.lost.set()
            return
        await self._serve(bound)
        await ended.stop(self._grace)
        self._servers.remove(ended)

    async def _bound_later(self) -> grpc.aio.Server | None:
        """A new server once the port is free; None if it does not become free in time."""
        deadline = time.monotonic() + self._rebind
        while time.monotonic() < deadline:
            await asyncio.sleep(REBIND_PAUSE)
            try:
                return self._bind()[0]
            except RuntimeError:
                continue
        return None

    def _set_listening(self, *, to: bool) -> None:
        self.listening = to
        self._telemetry.listening(to)


async def _start(server: grpc.aio.Server) -> asyncio.Task[Any]:
    """Start the server. The task in which it accepts calls, which grpc.aio does not show otherwise."""
    before = asyncio.all_tasks()
    await server.start()
    (accepting,) = (task for task in asyncio.all_tasks() - before if _name(task) == _ACCEPT_LOOP)
    return accepting


def _retrieve_errors_of_shutdowns() -> None:
    """Keep asyncio from logging the stranger's bytes: gRPC shuts an ended server down in a task that nobody awaits.

    That task fails with the error of the accept loop, which is known.
    """
    for task in asyncio.all_tasks():
        if _name(task) == _SHUTDOWN:
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())


def _name(task: asyncio.Task[Any]) -> str:
    name: str = getattr(task.get_coro(), "__qualname__", "")
    return name
