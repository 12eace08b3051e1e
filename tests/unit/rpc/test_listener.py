"""A gRPC server that no bytes of strangers end, and what is told when it ends unasked all the same."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from docpreview_gateway.rpc.listener import Listener
from docpreview_gateway.rpc.server import Health, enable_reflection, grpc_server
from docpreview_gateway.rpc.streams import Streams
from tests.fakes.telemetry import FakeTelemetry
from tests.faults import http2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PATHS = [b"/x/\xff", b"/\xc3\x28", b"\xff" * 1000, b"", b"/docpreview.v1.Nothing/Get"]


class Scene:
    """A server that answers health checks, and what its listener reports; `on_unknown` in place of the listener's."""

    def __init__(self, on_unknown: Callable[[str], None] | None = None) -> None:
        self.health, streams = Health(), Streams()
        self.telemetry = FakeTelemetry()
        self.listener = Listener(self.telemetry)
        self.server = grpc_server(on_unknown=on_unknown or self.listener.on_unknown, on_end=self.listener.on_end)
        self.health.register(self.server, streams)
        enable_reflection(self.server, streams)
        self.port = 0

    @asynccontextmanager
    async def listens(self) -> AsyncIterator[None]:
        self.port = await self.listener.start(self.server, "127.0.0.1:0", None)
        await self.health.serving()
        try:
            yield
        finally:
            await self.listener.stop(None)

    async def attack(self, path: bytes) -> None:
        """One request of a stranger; returns when it has been answered or the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(http2.HELLO + http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.request_headers(path)))
        buffer = bytearray()
        async with asyncio.timeout(10):
            while data := await reader.read(65536):
                buffer += data
                if any(frame.kind in {http2.HEADERS, http2.RST_STREAM, http2.GOAWAY} for frame in http2.frames(buffer)):
                    break
        writer.close()

    async def asked(self) -> bool:
        """Whether a new caller is served at once."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options) as channel:
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.parametrize("path", PATHS)
async def test_a_path_that_is_no_method_is_refused_and_the_next_caller_is_served(path: bytes) -> None:
    """Also one that is not UTF-8, of which grpc.aio's own server would die."""
    scene = Scene()
    async with scene.listens():
        assert await scene.asked()
        for _ in range(20):
            await scene.attack(path)
            assert await scene.asked()
        assert scene.listener.listening
        assert not scene.listener.lost.is_set()
    assert scene.telemetry.listened == [True, False]
    assert not scene.listener.listening


async def test_calls_of_unknown_methods_are_counted_and_logged_without_what_they_called() -> None:
    """The address of the caller tells where they come from."""
    scene = Scene()
    with capture_logs() as lines:
        async with scene.listens():
            await scene.attack(PATHS[0])
            await scene.attack(PATHS[-1])
    assert scene.telemetry.unknown_methods == 2
    assert [line["event"] for line in lines] == ["a call of a method that does not exist was refused"] * 2
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") for line in lines)
    assert not [line for line in lines if "xff" in str(line) or "Nothing" in str(line)]


async def test_a_stream_that_is_open_while_strangers_send_goes_on() -> None:
    """On the same server."""
    scene = Scene()
    async with scene.listens(), grpc.aio.insecure_channel(f"127.0.0.1:{scene.port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await scene.attack(PATHS[0])
        await scene.health.leaving()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_a_server_that_ends_unasked_is_lost_and_its_other_calls_go_on() -> None:
    """Whoever waits for that is told the type of the error, without its text."""

    def fail(_peer: str) -> None:
        raise OSError("\xff")

    scene = Scene(fail)
    with capture_logs() as lines:
        async with scene.listens():
            await scene.attack(PATHS[0])
            await asyncio.wait_for(scene.listener.lost.wait(), 10)
            assert not scene.listener.listening
            assert await scene.asked()
            assert scene.telemetry.listened == [True, False]
    (line,) = lines
    assert (line["event"], line["error"]) == ("the gRPC server ended unasked", "OSError")


async def test_a_server_that_is_asked_to_stop_is_not_lost() -> None:
    """Nor does a call that is made meanwhile change that."""
    scene = Scene()
    async with scene.listens():
        assert await scene.asked()
    assert not scene.listener.lost.is_set()
    assert scene.telemetry.listened == [True, False]
