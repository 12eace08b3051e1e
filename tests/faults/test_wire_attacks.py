"""Attacks on the HTTP/2 layer: the process survives, its memory is bounded, and honest callers are served.

The numbers are those of reliability's table A. The gateway is a real process, so that its own memory is measured.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from tests.faults import http2
from tests.faults.gateway_process import BUCKET, GatewayProcess
from tests.faults.open_loop import PATH
from tests.faults.test_overload import resident_mib

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = int(os.environ.get("FAULTS_ATTACKS", "1"))
"""Factor on the size of each attack; the table's size is 10."""

BODY = GetPreviewJobRequest(bucket=BUCKET, job_id="d" + "0" * 32).SerializeToString()


class Target:
    """A gateway under attack, and an honest caller beside the attacker."""

    def __init__(self, gateway: GatewayProcess, channel: grpc.aio.Channel) -> None:
        self.gateway = gateway
        self._channel = channel
        self._pid = gateway.pid
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        self._writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def probe(self) -> grpc.StatusCode:
        """The status of an honest call; NOT_FOUND is the healthy answer."""
        stub = PreviewJobServiceStub(self._channel)
        try:
            await stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id="d" + "1" * 32), timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def probes(self, count: int = 20) -> set[grpc.StatusCode]:
        return {await self.probe() for _ in range(count)}

    def memory(self) -> float:
        """Resident memory in MiB, of the process that was running at the start."""
        assert self.gateway.pid == self._pid
        return resident_mib(self._pid)


HONEST = {grpc.StatusCode.NOT_FOUND}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    async with (
        Emulator() as emulator,
        GatewayProcess(tmp_path_factory.mktemp("attacked"), emulator.port) as gateway,
        grpc.aio.insecure_channel(gateway.address) as channel,
    ):
        target = Target(gateway, channel)
        assert await target.probes() == HONEST
        yield target
        await target.close()


@asynccontextmanager
async def honest_caller(target: Target) -> AsyncIterator[set[grpc.StatusCode]]:
    """An honest caller that calls continuously; the set has the statuses of its calls."""
    statuses: set[grpc.StatusCode] = set()

    async def call() -> None:
        while True:
            statuses.add(await target.probe())
            await asyncio.sleep(0.02)

    task = asyncio.create_task(call())
    try:
        yield statuses
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def closed(reader: asyncio.StreamReader, seconds: float = 20.0) -> bool:
    """Whether the gateway closes the connection within `seconds`; received data is discarded."""
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(seconds):
            while await reader.read(65536):
                pass
            return True
    return reader.at_eof() or reader.exception() is not None


async def test_garbage_on_many_connections_does_not_reach_honest_callers(target: Target) -> None:
    """A1: random bytes, on half of the connections after a valid preface."""
    rng = random.Random(1)  # noqa: S311 - repeatable
    before = target.memory()

    async def attack(number: int) -> None:
        reader, writer = await target.connect()
        with suppress(ConnectionError):
            writer.write((http2.PREFACE if number % 2 else b"") + rng.randbytes(rng.randrange(1, 300)))
            await writer.drain()
            writer.write_eof()
            await closed(reader, 0.2)
        writer.close()

    async with honest_caller(target) as statuses:
        for begin in range(0, 1000 * SIZE, 50):
            await asyncio.gather(*(attack(begin + number) for number in range(50)))
    assert statuses | await target.probes() == HONEST
    assert target.memory() - before < 30


async def test_a_rapid_reset_is_bounded_in_memory_and_honest_callers_are_served(target: Target) -> None:
    """A3: streams that are reset immediately; gRPC starts few handlers for them."""
    before, headers = target.memory(), http2.request_headers(PATH)
    reader, writer = await target.connect()
    writer.write(http2.HELLO)
    drop = asyncio.create_task(closed(reader, 120))
    async with honest_caller(target) as statuses:
        for stream in range(1, 2 * 10_000 * SIZE, 2):
            writer.write(http2.call(stream, headers, BODY) + http2.frame(http2.RST_STREAM, 0, stream, http2.CANCEL))
            if stream % 100 == 1:
                with suppress(ConnectionError):
                    await writer.drain()
                await asyncio.sleep(0.01)
    writer.close()
    drop.cancel()
    await asyncio.gather(drop, return_exceptions=True)
    assert statuses | await target.probes() == HONEST
    assert target.memory() - before < 100


async def test_a_flood_of_pings_closes_the_connection(target: Target) -> None:
    """A4: GOAWAY by gRPC itself; other connections are served."""
    reader, writer = await target.connect()
    writer.write(http2.HELLO)
    with suppress(ConnectionError):
        for _ in range(1000):
            writer.write(http2.frame(http2.PING, payload=b"x" * 8))
            await writer.drain()
    assert await closed(reader)
    writer.close()
    assert await target.probes() == HONEST


async def test_a_continuation_flood_is_bounded_in_memory_and_honest_callers_are_served(target: Target) -> None:
    """A6: 10 MB of headers of one stream cost less than 100 MiB."""
    before = target.memory()
    reader, writer = await target.connect()
    writer.write(http2.HELLO + http2.frame(http2.HEADERS, 0, 1, http2.request_headers(PATH)))
    block = http2.header_block([(b"x-filler", b"x" * 8000)]) * 2
    drop = asyncio.create_task(closed(reader, 120))
    async with honest_caller(target) as statuses:
        with suppress(ConnectionError):
            for _ in range(600 * SIZE):
                writer.write(http2.frame(http2.CONTINUATION, 0, 1, block))
                await writer.drain()
    writer.close()
    drop.cancel()
    await asyncio.gather(drop, return_exceptions=True)
    assert statuses | await target.probes() == HONEST
    assert target.memory() - before < 100


async def test_idle_connections_beyond_the_limit_are_closed_and_honest_callers_are_served(target: Target) -> None:
    """A7: 1,200 idle connections, of which the gateway accepts at most a thousand."""
    connections = [await target.connect() for _ in range(1200)]
    ended = await asyncio.gather(*(closed(reader, 3) for reader, _ in connections))
    assert 200 <= sum(ended) < 1200
    assert await target.probes() == HONEST
    for _, writer in connections:
        writer.close()


async def test_callers_that_do_not_read_their_replies_do_not_block_others(target: Target) -> None:
    """A9: a hundred calls on each of twenty connections with a flow-control window of 0."""
    before, headers = target.memory(), http2.request_headers(PATH, deadline="5S")
    connections = [await target.connect() for _ in range(20)]
    for _, writer in connections:
        writer.write(http2.PREFACE + http2.settings({http2.INITIAL_WINDOW_SIZE: 0}))
        writer.write(b"".join(http2.call(stream, headers, BODY) for stream in range(1, 200, 2)))
        with suppress(ConnectionError):
            await writer.drain()
        # Fewer calls at a time than may wait for the server's event loop, since honest calls wait there too.
        assert await target.probe() == grpc.StatusCode.NOT_FOUND
    assert await target.probes() == HONEST
    assert target.memory() - before < 100
    for _, writer in connections:
        writer.close()


@pytest.mark.parametrize(
    "metadata",
    [
        (("x-filler", "x" * 12_000),),
        tuple((f"x-key-{number}", "1") for number in range(200)),
        (("x-forwarded-for", "10.0.0.1"), ("x-forwarded-client-cert", "Hash=1"), ("x-real-ip", "::1")),
        (("x-binary-bin", os.urandom(2000)),),
        (("x-request-id", "'\"><script>"), ("x-cache", "hit"), ("cache-control", "no-store, no-cache")),
        (("grpc-retry-pushback-ms", "-1"), ("grpc-previous-rpc-attempts", "999")),
    ],
    ids=["large", "many", "forged", "binary", "hostile", "of gRPC"],
)
async def test_unknown_metadata_is_ignored_and_not_echoed(
    target: Target, metadata: tuple[tuple[str, str | bytes], ...]
) -> None:
    """A11: large, numerous, forged and malformed metadata."""
    async with grpc.aio.insecure_channel(target.gateway.address) as channel:
        call = PreviewJobServiceStub(channel).GetPreviewJob(
            GetPreviewJobRequest(bucket=BUCKET, job_id="d1"), metadata=metadata, timeout=10
        )
        assert await call.code() == grpc.StatusCode.NOT_FOUND
        trailers = dict(await call.trailing_metadata() or ())
    assert "script" not in str(trailers["x-request-id"])


@pytest.mark.parametrize(
    ("deadline", "status"),
    [("1n", 4), ("0m", 4), ("1m", 4), ("", 5), ("87600H", 5), ("99999999H", 5), ("5S", 5)],
)
async def test_a_past_deadline_is_exceeded_and_a_distant_or_absent_one_served(
    target: Target, deadline: str, status: int
) -> None:
    """A22: `deadline` is the value of `grpc-timeout`."""
    reader, writer = await target.connect()
    # Of a job that no earlier call has read: a cached one is answered within a millisecond.
    body = GetPreviewJobRequest(bucket=BUCKET, job_id=f"d{uuid.uuid4().hex}").SerializeToString()
    writer.write(http2.HELLO + http2.call(1, http2.request_headers(PATH, deadline=deadline), body))
    assert await ended_with(reader) in {status, None if status == 4 else status}
    writer.close()
    assert await target.probes(3) == HONEST


@pytest.mark.parametrize("deadline", ["x", "-1S", "1", "999999999S", "1.5S"])
async def test_a_malformed_deadline_does_not_hang_the_call_or_harm_the_process(target: Target, deadline: str) -> None:
    """A22: the call is answered or refused."""
    reader, writer = await target.connect()
    writer.write(http2.HELLO + http2.call(1, http2.request_headers(PATH, deadline=deadline), BODY))
    await ended_with(reader)
    writer.close()
    assert await target.probes(3) == HONEST


async def ended_with(reader: asyncio.StreamReader) -> int | None:
    """`grpc-status` of the only call of a connection; None when its stream was reset."""
    buffer = bytearray()
    async with asyncio.timeout(10):
        while data := await reader.read(65536):
            buffer += data
            for frame in http2.frames(buffer):
                if frame.kind == http2.RST_STREAM:
                    return None
                if frame.kind == http2.HEADERS and frame.flags & http2.END_STREAM:
                    return http2.status(frame.payload)
    return None
