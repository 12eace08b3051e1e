"""Calls that their callers break off: they cost the server no memory, and their handlers end."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from docpreview_gateway.rpc.accepting import Server
from tests.faults import http2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CALLS, LOT = 4000, 50
LEAKED = 80
"""Bytes that grpc.aio's own server loses with each step that fails or is cancelled (grpc issue 43360)."""


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", *"bcdefg", "uordblks", "fordblks", "keepcost")]


def bytes_in_use() -> int:
    """Bytes of the process that malloc has given away, as glibc counts them."""
    gc.collect()
    count = ctypes.CDLL(None).mallinfo2
    count.restype = _Mallinfo2
    return int(count().uordblks)


class Methods:
    """`/t.T/Answer` answers at once, `/t.T/Read` after its message, `/t.T/Wait` and `/t.T/Stream` never."""

    def __init__(self) -> None:
        self.running = 0

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return {
            "Answer": grpc.unary_unary_rpc_method_handler(self._answer),
            "Read": grpc.stream_unary_rpc_method_handler(self._read),
            "Wait": grpc.unary_unary_rpc_method_handler(self._wait),
            "Stream": grpc.unary_stream_rpc_method_handler(self._stream),
        }

    async def _answer(self, request: bytes, _context: object) -> bytes:
        return request

    async def _read(self, _messages: object, context: Any) -> bytes:
        message = await context.read()
        return b"" if message is grpc.aio.EOF else bytes(message)

    async def _wait(self, _request: bytes, _context: object) -> bytes:
        self.running += 1
        try:
            await asyncio.get_running_loop().create_future()
            return b""
        finally:
            self.running -= 1

    async def _stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("a", "b"),))
        yield request
        yield await self._wait(request, context)


class Caller:
    """One connection that breaks calls off, and at the end of each lot makes one that is answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._stream = 1
        self._buffer = bytearray()

    async def breaks_off(self, calls: int, begun: Callable[[int], bytes], running: Callable[[], int] | None) -> None:
        """Calls that are broken off when `running` of them run; None: at once. Returns when all have ended."""
        tasks = len(asyncio.all_tasks())
        for _ in range(0, calls, LOT):
            lot = range(self._stream, self._stream + 2 * LOT, 2)
            self._stream = lot.stop
            resets = [http2.frame(http2.RST_STREAM, 0, stream, http2.CANCEL) for stream in lot]
            if running is None:
                self._writer.writelines(begun(stream) + reset for stream, reset in zip(lot, resets, strict=True))
            else:
                self._writer.writelines(map(begun, lot))
                while running() < LOT:  # noqa: ASYNC110 - handlers begin, and tell nobody
                    await asyncio.sleep(0.001)
                self._writer.writelines(resets)
            await self._answered()
        while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110 - gRPC ends calls, and tells nobody
            await asyncio.sleep(0.01)
        # gRPC's threads free what is theirs a little later, in any case before they have served two more.
        await self._answered()
        await self._answered()

    async def _answered(self) -> None:
        self._writer.write(http2.call(self._stream, http2.request_headers("/t.T/Answer"), b"x"))
        while True:
            data = await self._reader.read(65536)
            assert data, "the server has closed the connection"
            self._buffer += data
            for frame in http2.frames(self._buffer):
                if frame.kind == http2.PING and not frame.flags & http2.ACK:
                    self._writer.write(http2.frame(http2.PING, http2.ACK, 0, frame.payload))
                if frame.kind == http2.HEADERS and frame.stream == self._stream and frame.flags & http2.END_STREAM:
                    self._stream += 2
                    return


@asynccontextmanager
async def serving(methods: Methods) -> AsyncIterator[Caller]:
    ends: list[BaseException] = []
    server = Server((), (), on_unknown=lambda _peer: None, on_end=ends.append)
    server.add_registered_method_handlers("t.T", methods.handlers())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(http2.HELLO)
    try:
        async with asyncio.timeout(60):
            yield Caller(reader, writer)
    finally:
        writer.close()
        await server.stop(0)
    assert not ends


def started(method: str) -> Callable[[int], bytes]:
    """Headers without a message."""
    headers = http2.request_headers(f"/t.T/{method}")
    return lambda stream: http2.frame(http2.HEADERS, http2.END_HEADERS, stream, headers)


def whole(method: str) -> Callable[[int], bytes]:
    headers = http2.request_headers(f"/t.T/{method}")
    return lambda stream: http2.call(stream, headers, b"x")


@pytest.mark.parametrize(
    ("begun", "waits"),
    [
        (started("Read"), False),
        (started("Answer"), False),
        (whole("Answer"), False),
        (whole("Read"), False),
        (whole("No"), False),
        (whole("Wait"), True),
        (whole("Stream"), True),
    ],
    ids=[
        "before the message that the handler reads",
        "before the message that gRPC reads",
        "before the answer",
        "while the message is read",
        "of no method",
        "while the handler waits",
        "while a stream waits",
    ],
)
async def test_calls_that_are_broken_off_keep_no_memory_and_no_handler(
    begun: Callable[[int], bytes], *, waits: bool
) -> None:
    """grpc.aio's own server keeps 80 bytes for each operation that fails or is cancelled."""
    methods = Methods()
    running = (lambda: methods.running) if waits else None
    async with serving(methods) as caller:
        await caller.breaks_off(CALLS // 2, begun, running)
        before = bytes_in_use()
        await caller.breaks_off(CALLS, begun, running)
        grown = bytes_in_use() - before
    assert methods.running == 0
    assert grown < CALLS * LEAKED / 4


async def test_calls_that_are_cancelled_while_the_library_has_a_step_of_theirs_do_not_crash_the_process() -> None:
    """The library has a pointer to each such call, which nothing else may hold any more."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.unit.rpc.cancelled_calls",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await child.communicate()
    assert child.returncode == 0, output[-2000:].decode()
