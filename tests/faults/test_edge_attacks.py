"""What one stranger without a token can do to a gateway, bare and behind the edge. An honest caller is the judge.

Both are real processes. The honest caller calls without a pause on a connection of its own, and makes a new connection
when it loses that.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import grpc
import pytest
import yaml

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from tests.edge_process import PATIENCE, EdgeProcess, edge_settings
from tests.faults import http2
from tests.faults.gateway_process import BUCKET, GatewayProcess
from tests.faults.open_loop import PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.alone

OUTAGE = 3.0
"""Seconds without a served call: a bare gateway may take one to serve again, and a busy machine some more."""

SLOW = 1.0
"""Median latency in seconds that no attack may bring about; a quiet gateway takes a few milliseconds."""

BODY = GetPreviewJobRequest(bucket=BUCKET, job_id="d" + "0" * 32).SerializeToString()
HALF = http2.message(BODY)[:-10]


class Target:
    """The port that strangers reach, with the connections of one of them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return reader, writer

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()


class Call(NamedTuple):
    """When a call ended, how many seconds it took, and what was wrong with its answer."""

    at: float
    seconds: float
    problem: str | None


class Honest:
    """An honest caller and its calls."""

    def __init__(self, port: int) -> None:
        options = (
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 100),
        )
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
        self.calls: list[Call] = []

    async def call(self) -> bool:
        """Whether the gateway has answered."""
        begin = time.monotonic()
        job = GetPreviewJobRequest(bucket=BUCKET, job_id="d" + "1" * 32)
        call = PreviewJobServiceStub(self._channel).GetPreviewJob(job, timeout=10)
        # The job does not exist, and only the gateway can say so.
        served = await call.code() == grpc.StatusCode.NOT_FOUND
        problem = None if served else f"{await call.code()} {await call.details()}"
        now = time.monotonic()
        self.calls.append(Call(now, now - begin, problem))
        return problem is None

    async def for_ever(self) -> None:
        while True:
            await self.call()
            await asyncio.sleep(0.02)

    async def more(self, count: int = 20) -> None:
        """Wait until it has made so many more calls."""
        wanted = len(self.calls) + count
        while len(self.calls) < wanted:  # noqa: ASYNC110 - its calls are counted, not announced
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self._channel.close()

    @property
    def problems(self) -> list[str]:
        """Those of the calls that were not answered."""
        return [call.problem for call in self.calls if call.problem is not None]

    @property
    def outage(self) -> float:
        """The longest time without an answered call, in seconds."""
        times = [call.at for call in self.calls if call.problem is None]
        return max((later - sooner for sooner, later in pairwise(times)), default=float("inf"))

    @property
    def median(self) -> float:
        """Median latency of the answered calls, in seconds."""
        return statistics.median(call.seconds for call in self.calls if call.problem is None)


@asynccontextmanager
async def honest_caller(port: int) -> AsyncIterator[Honest]:
    """An honest caller who calls until the end of the block."""
    honest = Honest(port)
    assert await honest.call()
    task = asyncio.create_task(honest.for_ever())
    try:
        yield honest
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await honest.close()


@asynccontextmanager
async def target_of(kind: str, folder: Path) -> AsyncIterator[Target]:
    """A gateway, bare or behind the edge."""
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator())
        changes = {"edge": edge_settings()} if kind == "edge" else {}
        gateway = GatewayProcess(folder, emulator.port, changes)
        port = gateway.port
        if kind == "edge":
            edge = await stack.enter_async_context(EdgeProcess(folder / "gateway.yaml", folder / "edge"))
            port = edge.port
        await stack.enter_async_context(gateway)
        target = Target(port)
        stack.callback(target.close)
        yield target


async def read_to_end(reader: asyncio.StreamReader, seconds: float = PATIENCE) -> bool:
    """Whether the connection is closed within `seconds`; received data is discarded."""
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(seconds):
            while await reader.read(65536):
                pass
        return True
    return reader.at_eof() or reader.exception() is not None


async def paths_that_are_not_text(target: Target) -> None:
    """Bytes that are no UTF-8, as an unknown path and behind a known one."""
    for path in (b"/x/\xff", f"{PATH}?".encode() + b"\xff", b"\xff", f"{PATH}/".encode() + b"\xc3\x28"):
        # A server that has just ended comes back.
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(ConnectionError):
                    reader, writer = await target.connect()
                    break
                await asyncio.sleep(0.05)
        writer.write(http2.HELLO + http2.call(1, http2.request_headers(path), BODY))
        await read_to_end(reader, 1.0)


async def headers_that_are_not_text(target: Target) -> None:
    """Bytes that are no UTF-8, and control characters, in every header that a call may have."""
    names = [b":authority", b":scheme", b":method", b"authorization", b"x-request-id", b"traceparent", b"cache-control"]
    names += [b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"content-type", b"te", b"user-agent"]
    for name in (*names, b"x-forwarded-client-cert", b"x-a-bin", b"x-\xff"):
        for value in (b"\xff", b"a\xc3\x28", b"\x01", b"", b"x" * 5000):
            reader, writer = await target.connect()
            block = http2.request_headers(PATH, extra=[(name, value)])
            writer.write(http2.HELLO + http2.call(1, block, BODY))
            await read_to_end(reader, 0.02)
            writer.close()


async def silent_connections(target: Target) -> None:
    """A thousand connections with the preface of HTTP/2 and nothing else."""
    for _ in range(10):
        for _, writer in await asyncio.gather(*(target.connect() for _ in range(100))):
            writer.write(http2.HELLO)
    await asyncio.sleep(1)


async def streams_without_message(target: Target) -> None:
    """Calls whose message never comes."""
    await unfinished(target, b"")


async def half_messages(target: Target) -> None:
    """Calls whose message never ends."""
    await unfinished(target, HALF)


async def unfinished(target: Target, body: bytes) -> None:
    headers = http2.request_headers(PATH)
    for _ in range(20):
        _, writer = await target.connect()
        writer.write(http2.HELLO)
        for stream in range(1, 200, 2):
            writer.write(http2.frame(http2.HEADERS, http2.END_HEADERS, stream, headers))
            if body:
                writer.write(http2.frame(http2.DATA, 0, stream, body))
        with suppress(ConnectionError):
            await writer.drain()
    await asyncio.sleep(2)


async def rapid_resets(target: Target) -> None:
    """Ten thousand calls, each reset at once; the stranger comes back when he is thrown out."""
    headers = http2.request_headers(PATH)
    for _ in range(10):
        reader, writer = await target.connect()
        writer.write(http2.HELLO)
        drop = asyncio.create_task(read_to_end(reader))
        with suppress(ConnectionError):
            for stream in range(1, 2000, 2):
                writer.write(http2.call(stream, headers, BODY) + http2.frame(http2.RST_STREAM, 0, stream, http2.CANCEL))
                if stream % 100 == 1:
                    await writer.drain()
                    await asyncio.sleep(0.01)
        writer.close()
        await drop


async def floods_of_pings(target: Target) -> None:
    """Five connections, ten thousand pings each."""

    async def flood() -> None:
        reader, writer = await target.connect()
        writer.write(http2.HELLO)
        drop = asyncio.create_task(read_to_end(reader))
        with suppress(ConnectionError):
            for _ in range(100):
                writer.write(http2.frame(http2.PING, payload=b"x" * 8) * 100)
                await writer.drain()
        writer.close()
        await drop

    await asyncio.gather(*(flood() for _ in range(5)))


async def endless_headers(target: Target) -> None:
    """Ten MB of headers of one call."""
    reader, writer = await target.connect()
    writer.write(http2.HELLO + http2.frame(http2.HEADERS, 0, 1, http2.request_headers(PATH)))
    block = http2.header_block([(b"x-filler", b"x" * 8000)]) * 2
    drop = asyncio.create_task(read_to_end(reader))
    with suppress(ConnectionError):
        for _ in range(600):
            writer.write(http2.frame(http2.CONTINUATION, 0, 1, block))
            await writer.drain()
    writer.close()
    await drop


async def replies_that_nobody_reads(target: Target) -> None:
    """A hundred calls on each of twenty connections with a flow-control window of 0."""
    headers = http2.request_headers(PATH, deadline="5S")
    for _ in range(20):
        _, writer = await target.connect()
        writer.write(http2.PREFACE + http2.settings({http2.INITIAL_WINDOW_SIZE: 0}))
        writer.write(b"".join(http2.call(stream, headers, BODY) for stream in range(1, 200, 2)))
        with suppress(ConnectionError):
            await writer.drain()
        await asyncio.sleep(0.05)


ATTACKS = [
    headers_that_are_not_text,
    silent_connections,
    streams_without_message,
    half_messages,
    rapid_resets,
    floods_of_pings,
    endless_headers,
    replies_that_nobody_reads,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("kind", ["bare", "edge"])
async def test_an_honest_caller_is_served_without_delay_while_a_stranger_attacks(
    kind: str, attack: Callable[[Target], Awaitable[None]], tmp_path: Path
) -> None:
    """On the connection that the honest caller has. Behind the edge hardly a call fails, of a bare gateway few."""
    async with target_of(kind, tmp_path / "gateway") as target, honest_caller(target.port) as honest:
        await attack(target)
        await honest.more()
    if kind == "edge":
        assert len(honest.problems) <= 0.01 * len(honest.calls), honest.problems
    # gRPC resets calls beyond those that wait for their messages, whoever sent them.
    assert len(honest.problems) <= 0.1 * len(honest.calls), honest.problems
    assert honest.outage < OUTAGE
    assert honest.median < SLOW


@pytest.mark.parametrize("kind", ["bare", "edge"])
async def test_honest_callers_are_served_again_at_once_after_paths_that_are_not_text(kind: str, tmp_path: Path) -> None:
    """Four such paths. Behind the edge nobody notices; a bare gateway loses what was in flight."""
    async with target_of(kind, tmp_path / "gateway") as target, honest_caller(target.port) as honest:
        await paths_that_are_not_text(target)
        async with asyncio.timeout(PATIENCE):
            while not await honest.call():
                pass
    assert honest.median < SLOW
    if kind == "edge":
        assert honest.problems == []
    else:
        assert honest.outage < OUTAGE


async def test_streams_of_strangers_who_leave_at_once_do_not_have_those_of_others_refused(tmp_path: Path) -> None:
    """Envoy sends the calls of all on few connections, on which the gateway has room for streams that have ended."""
    calls = b"".join(http2.call(stream, http2.request_headers(PATH), BODY) for stream in range(1, 181, 2))
    async with target_of("edge", tmp_path / "gateway") as target, honest_caller(target.port) as honest:
        for _ in range(100):
            _, writer = await target.connect()
            writer.write(http2.HELLO + calls)
            with suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(0.03)
            target.close()
        await honest.more()
    assert not [problem for problem in honest.problems if "refused" in str(problem)]
    assert len(honest.problems) <= 0.05 * len(honest.calls), honest.problems


@pytest.mark.parametrize("body", [b"", HALF], ids=["no message", "half a message"])
async def test_the_edge_ends_every_call_whose_message_never_comes(body: bytes, tmp_path: Path) -> None:
    """After ten seconds, a hundred of a hundred; the connection may go on."""
    headers = http2.request_headers(PATH)
    async with target_of("edge", tmp_path / "gateway") as target:
        reader, writer = await target.connect()
        writer.write(http2.HELLO)
        streams = set(range(1, 200, 2))
        for stream in streams:
            writer.write(http2.frame(http2.HEADERS, http2.END_HEADERS, stream, headers))
            if body:
                writer.write(http2.frame(http2.DATA, 0, stream, body))
        buffer = bytearray()
        async with asyncio.timeout(PATIENCE):
            while streams and (data := await reader.read(65536)):
                buffer += data
                for frame in http2.frames(buffer):
                    if frame.kind == http2.RST_STREAM or frame.flags & http2.END_STREAM:
                        streams.discard(frame.stream)
    assert streams == set()


async def answer_pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Nothing else, until the connection ends."""
    buffer = bytearray()
    with suppress(ConnectionError):
        writer.write(http2.HELLO)
        while data := await reader.read(65536):
            buffer += data
            for frame in http2.frames(buffer):
                if frame.kind == http2.PING and not frame.flags & http2.ACK:
                    writer.write(http2.frame(http2.PING, http2.ACK, payload=frame.payload))


async def until_served(port: int) -> int:
    """The number of calls without an answer before a new caller is served."""
    new = Honest(port)
    async with asyncio.timeout(PATIENCE):
        while not await new.call():
            pass
    await new.close()
    return len(new.problems)


async def test_a_new_caller_is_served_in_seconds_while_one_address_takes_all_connections(tmp_path: Path) -> None:
    """Connections that answer pings and make no call make room; those beyond are refused and counted."""
    async with (
        target_of("edge", tmp_path / "gateway") as target,
        honest_caller(target.port) as honest,
        asyncio.TaskGroup() as strangers,
    ):
        for _ in range(12):
            for streams in await asyncio.gather(*(target.connect() for _ in range(100))):
                strangers.create_task(answer_pings(*streams))
        begin = time.monotonic()
        refused = await asyncio.gather(*(until_served(target.port) for _ in range(5)))
        assert time.monotonic() - begin < 10
        assert any(refused), "all connections were taken"
        target.close()
    assert honest.problems == []


async def test_the_edge_ends_connections_that_answer_no_ping(tmp_path: Path) -> None:
    """Fewer than make others give way. Its times are shorter here."""
    async with Emulator() as emulator:
        gateway = GatewayProcess(tmp_path / "gateway", emulator.port, {"edge": edge_settings()})
        config = tmp_path / "gateway" / "gateway.yaml"

        class Impatient(EdgeProcess):
            def configured(self, bootstrap: str) -> str:
                values = yaml.safe_load(bootstrap)
                manager = values["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
                kept = manager["http2_protocol_options"]["connection_keepalive"]
                assert kept == {"interval": "60s", "timeout": "20s"}
                kept |= {"interval": "3s", "timeout": "3s"}
                return json.dumps(values)

        async with Impatient(config, tmp_path / "edge") as edge, gateway, honest_caller(edge.port) as honest:
            target = Target(edge.port)
            for _ in range(5):
                for _, writer in await asyncio.gather(*(target.connect() for _ in range(100))):
                    writer.write(http2.HELLO)
            active = "envoy_http_downstream_cx_active"
            async with asyncio.timeout(PATIENCE):
                while await edge.count(active, envoy_http_conn_manager_prefix="callers") < 500:
                    pass
                while await edge.count(active, envoy_http_conn_manager_prefix="callers") > 1:
                    await honest.more(5)
            target.close()
    assert honest.problems == []
