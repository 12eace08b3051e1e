"""Whether the gRPC server of a process accepts calls, and who is told when it no longer does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    import grpc

    from docpreview_gateway.rpc.ports import RpcTelemetry

log = structlog.get_logger("docpreview_gateway.rpc")


class Listener:
    """The listening of one gRPC server, which is made with `on_unknown` and `on_end` (`rpc/accepting.py`)."""

    def __init__(self, telemetry: RpcTelemetry) -> None:
        self._telemetry = telemetry
        self._server: grpc.aio.Server | None = None
        self.listening = False
        self.lost = asyncio.Event()
        """Set when the server no longer accepts calls unasked: the process is of no use any more."""

    async def start(self, server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Listen. The port; RuntimeError when the address cannot be used."""
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        self._server = server
        await server.start()
        self._set_listening(to=True)
        return port

    async def stop(self, grace: float | None) -> None:
        """Stop listening. Calls in flight get `grace` seconds; None: they are cancelled."""
        self._set_listening(to=False)
        if self._server is not None:
            await self._server.stop(grace)

    def on_unknown(self, peer: str) -> None:
        """A caller at this address called a method that nobody serves."""
        self._telemetry.unknown_method()
        # Without the method: it may be any bytes of a stranger.
        log.warning("a call of a method that does not exist was refused", peer=peer)

    def on_end(self, error: BaseException) -> None:
        """The server no longer accepts the calls of some method."""
        # Its type only: the text may quote a stranger's bytes.
        log.critical("the gRPC server ended unasked", error=type(error).__name__)
        self._set_listening(to=False)
        self.lost.set()

    def _set_listening(self, *, to: bool) -> None:
        self.listening = to
        self._telemetry.listening(to)
