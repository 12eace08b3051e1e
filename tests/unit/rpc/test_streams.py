"""The end of streams whose message does not come, over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.rpc.server import Health, enable_reflection, grpc_server
from docpreview_gateway.rpc.streams import MOST_YOUNG, YOUNG_SECONDS, Streams
from tests.unit.rpc.conftest import GET, REQUEST, SERVICE, error_info, serving
from tests.unit.rpc.test_handlers import error_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
ECHO, SERIES = f"/{SERVICE}/Echo", f"/{SERVICE}/Series"


class Scene:
    """A server whose methods wait for `go`, and calls whose message is sent when a test wants it."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.go = asyncio.Event()
        self.began = asyncio.Event()
        self.channel: grpc.aio.Channel

    async def echo(self, raw: bytes, _context: Any) -> bytes:
        self.began.set()
        await self.go.wait()
        return raw

    async def series(self, raw: bytes, context: Any) -> None:
        for _ in range(3):
            await context.write(raw)

    async def silent_call(self, method: str = ECHO) -> grpc.aio.StreamStreamCall[bytes, bytes]:
        """A call whose headers have arrived, without a message."""
        before = self.streams.waiting
        begin: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self.channel.stream_stream(method)
        call = begin()
        await self.until(before + 1)
        return call

    def call(self, method: str = ECHO) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        """A call with its message."""
        begin: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(method)
        return begin(REQUEST)

    async def until(self, waiting: int) -> None:
        async with asyncio.timeout(10):
            while self.streams.waiting != waiting:  # noqa: ASYNC110 - gRPC tells nobody
                await asyncio.sleep(0.005)


@asynccontextmanager
async def scene(**limits: Any) -> AsyncIterator[Scene]:
    found = Scene(Streams(**limits))
    server = grpc_server()
    methods = {
        "Echo": found.streams.guarded(grpc.unary_unary_rpc_method_handler(found.echo)),
        "Series": found.streams.guarded(grpc.unary_stream_rpc_method_handler(found.series)),
    }
    server.add_registered_method_handlers(SERVICE, methods)
    health = Health()
    health.register(server, found.streams)
    await health.serving()
    enable_reflection(server, found.streams)
    async with serving(server) as found.channel:
        yield found
        found.go.set()


async def refused(call: Any) -> tuple[grpc.StatusCode, int]:
    """Code and reason of an ended call."""
    error = await error_of(call.read())
    return error.code(), reasons.ErrorReason.Value(f"ERROR_REASON_{error_info(error).reason}")


@pytest.mark.parametrize("method", [ECHO, SERIES, "/grpc.health.v1.Health/Check", REFLECTION])
async def test_a_stream_whose_message_does_not_come_is_ended_when_patience_is_over(method: str) -> None:
    """Not before."""
    now = 100.0
    async with scene(patience=10, clock=lambda: now) as found:
        call = await found.silent_call(method)
        now += 9.9
        await found.streams.check()
        assert found.streams.waiting == 1
        now += 0.1
        await found.streams.check()
        assert await refused(call) == (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            reasons.ERROR_REASON_DEADLINE_EXCEEDED,
        )
        assert found.streams.waiting == 0
        assert found.streams.ended == {"no_message": 1, "crowded": 0}


async def test_a_message_that_comes_late_but_in_time_is_served() -> None:
    """And is no longer awaited then."""
    async with scene() as found:
        found.go.set()
        call = await found.silent_call()
        await call.write(REQUEST)
        await call.done_writing()
        assert await call.read() == REQUEST
        assert (found.streams.waiting, found.streams.ended) == (0, {"no_message": 0, "crowded": 0})


async def test_beyond_the_bound_the_stream_that_has_waited_longest_makes_room() -> None:
    """So that an honest call is never the one that is refused."""
    now = 100.0
    async with scene(most_waiting=2, clock=lambda: now) as found:
        found.go.set()
        first, second = await found.silent_call(), await found.silent_call()
        now += YOUNG_SECONDS
        assert await found.call() == REQUEST
        assert await refused(first) == (grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_OVERLOADED)
        assert (found.streams.waiting, found.streams.ended["crowded"]) == (1, 1)
        second.cancel()
        await found.until(0)


async def test_streams_of_the_last_second_are_left_alone_until_they_are_ten_times_as_many() -> None:
    """An honest call whose message is there may not have been read yet. The watchdog ends them once they are older."""
    now = 100.0
    async with scene(most_waiting=1, clock=lambda: now) as found:
        calls = [await found.silent_call() for _ in range(MOST_YOUNG)]
        assert found.streams.ended["crowded"] == 0
        begin: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = found.channel.stream_stream(ECHO)
        calls.append(begin())
        assert await refused(calls[0]) == (grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_OVERLOADED)
        assert (found.streams.waiting, found.streams.ended["crowded"]) == (MOST_YOUNG, 1)
        await found.streams.check()
        assert found.streams.waiting == MOST_YOUNG
        now += YOUNG_SECONDS
        await found.streams.check()
        assert (found.streams.waiting, found.streams.ended["crowded"]) == (1, MOST_YOUNG)
        calls[-1].cancel()
        await found.until(0)


async def test_a_call_that_its_caller_cancels_before_the_message_is_forgotten() -> None:
    """It is not counted as ended by the process."""
    async with scene() as found:
        call = await found.silent_call()
        call.cancel()
        await found.until(0)
        assert found.streams.ended == {"no_message": 0, "crowded": 0}


async def test_a_call_without_a_message_is_invalid() -> None:
    """The caller has ended its side of the stream."""
    async with scene() as found:
        call = await found.silent_call()
        await call.done_writing()
        assert await refused(call) == (grpc.StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_MALFORMED_MESSAGE)


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", REFLECTION])
async def test_a_message_of_health_or_reflection_that_cannot_be_read_is_invalid(method: str) -> None:
    """As one of the contract's methods. gRPC itself would answer UNKNOWN with the names of Python classes."""
    async with scene() as found:
        begin: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = found.channel.unary_stream(method)
        expected = grpc.StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_MALFORMED_MESSAGE
        assert await refused(begin(b"\xff" * 9)) == expected


async def test_a_call_that_is_served_counts_and_tells_its_peer_until_it_ends() -> None:
    """The peers' connections are in use."""
    async with scene() as found:
        call = found.call()
        await found.began.wait()
        (peer,) = found.streams.peers()
        assert peer.startswith("ipv4:127.0.0.1:")
        assert (found.streams.served, found.streams.waiting) == (1, 0)
        found.go.set()
        assert await call == REQUEST
        assert (found.streams.served, found.streams.peers()) == (0, set())


async def test_a_stream_of_replies_passes_whole() -> None:
    """As without the guard."""
    async with scene() as found:
        begin: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = found.channel.unary_stream(SERIES)
        replies = [reply async for reply in begin(REQUEST)]
        assert replies == [REQUEST] * 3


async def test_streams_of_health_are_bounded_and_do_not_keep_a_connection_in_use() -> None:
    """No limit of calls counts them."""
    async with scene(most_side=1) as found:
        stub = health_pb2_grpc.HealthStub(found.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert (found.streams.served, found.streams.peers()) == (1, set())
        error = await error_of(stub.Check(health_pb2.HealthCheckRequest()))
        assert (error.code(), error_info(error).reason) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
        watch.cancel()


async def test_other_methods_are_unimplemented() -> None:
    """A guard answers for its own methods only."""
    async with scene() as found:
        error = await error_of(found.call(GET))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED
