"""A gRPC server that ends unasked is replaced on its port."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from docpreview_gateway.rpc.listener import Listener
from docpreview_gateway.rpc.server import Health, enable_reflection, grpc_server
from docpreview_gateway.rpc.streams import Streams
from tests.fakes.telemetry import FakeTelemetry
from tests.faults import http2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Create = Callable[[], grpc.aio.Server]

PATHS = [b"/x/\xff", b"/\xc3\x28", b"\xff" * 1000]


class Scene:
    """A listener of servers that answer health checks, and what it reports."""

    def __init__(self, create: Create | None = None, *, rebind: float = 10.0) -> None:
        self.health, self.streams = Health(), Streams()
        self.created = 0
        self.telemetry = FakeTelemetry()
        self._create = create or (lambda: grpc_server(shares_port=True))
        self.listener = Listener(self._server, "127.0.0.1:0", None, self.telemetry, grace=5, rebind=rebind)
        self.port = 0

    def _server(self) -> grpc.aio.Server:
        self.created += 1
        server = self._create()
        self.health.register(server, self.streams)
        enable_reflection(server, self.streams)
        return server

    @asynccontextmanager
    async def listens(self) -> AsyncIterator[None]:
        self.port = await self.listener.start()
        await self.health.serving()
        try:
            yield
        finally:
            await self.listener.stop(None)

    async def attack(self, path: bytes) -> None:
        """One request of a stranger; returns when the server has closed its connection, or asked to."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(http2.HELLO + http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.request_headers(path)))
        buffer = bytearray()
        async with asyncio.timeout(10):
            while data := await reader.read(65536):
                buffer += data
                if any(frame.kind == http2.GOAWAY for frame in http2.frames(buffer)):
                    break
        writer.close()

    async def asked(self) -> bool:
        """Whether a new caller is served, at its second attempt at the latest: what is on its way may fail once."""
        try:
            return await self._ask()
        except grpc.aio.AioRpcError as error:
            assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}  # noqa: PT017
            return await self._ask()

    async def _ask(self) -> bool:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options) as channel:
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.parametrize("path", PATHS)
async def test_a_path_that_is_no_text_costs_a_server_and_the_next_caller_is_served(path: bytes) -> None:
    """It is told once, and the process says that it listens."""
    scene = Scene()
    async with scene.listens():
        assert await scene.asked()
        await scene.attack(path)
        assert await scene.asked()
        assert (scene.telemetry.replaced_servers, scene.created) == (1, 2)
        assert scene.telemetry.listened == [True, False, True]
        assert scene.listener.listening
    assert not scene.listener.listening


async def test_a_stream_that_is_open_while_the_server_is_replaced_goes_on() -> None:
    """It was opened on the old server."""
    scene = Scene()
    async with scene.listens(), grpc.aio.insecure_channel(f"127.0.0.1:{scene.port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await scene.attack(PATHS[0])
        assert await scene.asked()
        await scene.health.leaving()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_each_of_many_attacks_costs_one_server_and_no_port() -> None:
    """The next caller after each of them is served."""
    scene = Scene()
    async with scene.listens():
        for _ in range(20):
            await scene.attack(PATHS[0])
            assert await scene.asked()
    assert scene.telemetry.replaced_servers == 20


@pytest.mark.parametrize("serve", [lambda server, streams: Health().register(server, streams), enable_reflection])
def test_no_method_is_registered_with_the_library(serve: Callable[[grpc.aio.Server, Streams], None]) -> None:
    """For registered ones grpc.aio frees memory that the library writes to when a server ends unasked."""

    class Server:
        generic, registered = 0, 0

        def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
            self.generic += len(handlers)

        def add_registered_method_handlers(self, _name: str, handlers: dict[str, object]) -> None:
            self.registered += len(handlers)

    server = Server()
    serve(cast("grpc.aio.Server", server), Streams())
    assert (server.generic, server.registered) == (1, 0)


async def test_where_sockets_cannot_share_a_port_the_server_is_replaced_when_the_old_one_has_closed_its_own() -> None:
    """A caller may be refused meanwhile."""
    scene = Scene(grpc_server)
    async with scene.listens():
        await scene.attack(PATHS[0])
        async with asyncio.timeout(10):
            while scene.telemetry.listened[-1:] != [True] or scene.telemetry.replaced_servers != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await scene.asked()


async def test_a_port_that_cannot_be_bound_again_is_lost() -> None:
    """Whoever waits for that is told; nothing listens."""
    servers = iter([grpc_server(shares_port=True)])

    def once() -> grpc.aio.Server:
        server = next(servers, None)
        if server is None:
            raise RuntimeError("no such port any more")
        return server

    scene = Scene(once, rebind=0.2)
    async with scene.listens():
        await scene.attack(PATHS[0])
        await asyncio.wait_for(scene.listener.lost.wait(), 10)
        assert not scene.listener.listening
        assert scene.telemetry.listened == [True, False]


async def test_a_listener_that_stops_no_longer_tries_to_bind_its_port() -> None:
    """Nothing of it goes on."""
    servers = iter([grpc_server(shares_port=True)])

    def once() -> grpc.aio.Server:
        server = next(servers, None)
        if server is None:
            raise RuntimeError("no such port any more")
        return server

    scene = Scene(once, rebind=60)
    async with scene.listens():
        await scene.attack(PATHS[0])
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "replace the gRPC server"]


async def test_a_server_that_is_asked_to_stop_is_not_replaced() -> None:
    """Nothing is counted."""
    scene = Scene()
    async with scene.listens():
        pass
    assert (scene.created, scene.telemetry.replaced_servers) == (1, 0)
