"""Callers that connect, or begin a call, and then say nothing: the process ends them, and honest callers are served.

The gateway is a real process with its own limits: 1,000 connections, and 10 seconds for a message.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from tests.faults import http2
from tests.faults.gateway_process import BUCKET, GatewayProcess
from tests.faults.open_loop import PATH
from tests.faults.test_overload import resident_mib
from tests.integration.gateway_processes import page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

REQUEST = GetPreviewJobRequest(bucket=BUCKET, job_id="d" + "0" * 32)
HALF = http2.message(REQUEST.SerializeToString())[:20]
WATCH = PATH.replace("Get", "Watch")
HEALTH, REFLECTION = "/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("silence")
    async with Emulator() as emulator, GatewayProcess(folder, emulator.port, {"reflection": True}) as gateway:
        yield gateway


class Stranger(asyncio.Protocol):
    """A connection that sends `greeting`; it keeps the settings and pings of HTTP/2 alive if it `answers`."""

    def __init__(self, greeting: bytes, news: asyncio.Event, *, answers: bool) -> None:
        self._greeting, self._answers = greeting, answers
        self._news = news
        self._buffer = bytearray()
        self.open_streams = 0
        self.statuses: set[int | None] = set()
        self.is_open = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.is_open = transport, True
        transport.write(self._greeting)

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_open = False
        self._news.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._news.set()
        for frame in http2.frames(self._buffer):
            # gRPC resets a stream after its status, because the caller has not ended it.
            if frame.kind == http2.HEADERS and frame.flags & http2.END_STREAM:
                self.open_streams -= 1
                self.statuses.add(http2.status(frame.payload))
            if self._answers and frame.kind in (http2.SETTINGS, http2.PING) and not frame.flags & http2.ACK:
                payload = frame.payload if frame.kind == http2.PING else b""
                self.transport.write(http2.frame(frame.kind, http2.ACK, payload=payload))

    def begin(self, path: str, count: int, begun: bytes | None) -> None:
        """Open streams with headers and the bytes `begun` of their message; None: without any message."""
        headers = http2.request_headers(path)
        flags = http2.END_HEADERS | (http2.END_STREAM if begun is None else 0)
        for stream in range(1, 2 * count, 2):
            self.transport.write(http2.frame(http2.HEADERS, flags, stream, headers))
            if begun:
                self.transport.write(http2.frame(http2.DATA, 0, stream, begun))
        self.open_streams += count


class Strangers:
    """Strangers that are all alike."""

    def __init__(self) -> None:
        self.each: list[Stranger] = []
        self.news = asyncio.Event()

    @property
    def open(self) -> int:
        """Number of open connections."""
        return sum(stranger.is_open for stranger in self.each)

    @property
    def open_streams(self) -> int:
        return sum(stranger.open_streams for stranger in self.each)

    async def until(self, condition: Callable[[], bool], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def strangers(port: int, count: int, greeting: bytes, *, answers: bool) -> AsyncIterator[Strangers]:
    loop, found = asyncio.get_running_loop(), Strangers()
    try:
        for _ in range(count):
            with suppress(ConnectionError):
                _, stranger = await loop.create_connection(
                    lambda: Stranger(greeting, found.news, answers=answers), "127.0.0.1", port
                )
                found.each.append(stranger)
        yield found
    finally:
        for stranger in found.each:
            stranger.transport.abort()


@asynccontextmanager
async def honest_calls(channel: grpc.aio.Channel) -> AsyncIterator[Counter[grpc.StatusCode]]:
    """Calls one after the other; the statuses of those that have ended."""
    statuses: Counter[grpc.StatusCode] = Counter()

    async def call() -> None:
        while True:
            statuses[await status(channel)] += 1
            await asyncio.sleep(0.2)

    task = asyncio.create_task(call())
    try:
        yield statuses
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def caller(gateway: GatewayProcess) -> AsyncIterator[grpc.aio.Channel]:
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.max_reconnect_backoff_ms", 500),
    )
    async with grpc.aio.insecure_channel(gateway.address, options=options) as channel:
        yield channel


async def status(channel: grpc.aio.Channel) -> grpc.StatusCode:
    """The status of an honest call; NOT_FOUND is the healthy answer."""
    try:
        await PreviewJobServiceStub(channel).GetPreviewJob(REQUEST, timeout=5)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def served_within(gateway: GatewayProcess, seconds: float) -> bool:
    """Whether a caller that has no connection yet is served within this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        async with caller(gateway) as channel:
            if await status(channel) == grpc.StatusCode.NOT_FOUND:
                return True
        await asyncio.sleep(0.2)
    return False


async def metric(gateway: GatewayProcess, name: str, **labels: str) -> float:
    _, text = await page(gateway.admin_port, "/metrics")
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(found.value for found in samples if found.name == name and labels.items() <= found.labels.items())


async def ended(gateway: GatewayProcess) -> float:
    reasons = ("no_message", "crowded")
    return sum([await metric(gateway, "docpreview_grpc_ended_total", reason=reason) for reason in reasons])


@pytest.mark.parametrize(
    ("greeting", "answers"),
    [
        pytest.param(b"", False, id="nothing"),
        pytest.param(http2.PREFACE, False, id="preface"),
        pytest.param(http2.HELLO, False, id="settings"),
        pytest.param(http2.HELLO, True, id="alive"),
    ],
)
async def test_as_many_silent_connections_as_the_limit_keep_a_new_caller_out_for_seconds_only(
    gateway: GatewayProcess, greeting: bytes, *, answers: bool
) -> None:
    """Of whatever kind; a caller with an open watch keeps its connection, and metrics tell."""
    before = await metric(gateway, "docpreview_grpc_ended_total", reason="silent_connection")
    async with caller(gateway) as old:
        assert await status(old) == grpc.StatusCode.NOT_FOUND
        async with strangers(gateway.port, 1200, greeting, answers=answers):
            # Long before gRPC's own limits, a minute without acknowledgement and minutes without calls, would help.
            assert await served_within(gateway, 25)
            assert await metric(gateway, "docpreview_grpc_connections") <= 1000
            assert await metric(gateway, "docpreview_grpc_connections_limit") == 1000
            assert await metric(gateway, "docpreview_grpc_ended_total", reason="silent_connection") > before
            assert "silent connections are shut down" in gateway.log
        assert await status(old) == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("paths", "begun"),
    [
        pytest.param([PATH], b"", id="headers only"),
        pytest.param([PATH], HALF, id="half a message"),
        pytest.param([WATCH, HEALTH + "Check", HEALTH + "Watch", REFLECTION], HALF, id="other methods"),
    ],
)
async def test_two_thousand_calls_without_their_message_are_ended_and_cost_little_memory(
    gateway: GatewayProcess, paths: list[str], begun: bytes
) -> None:
    """By the process, although the strangers keep their connections; an honest caller is served meanwhile."""
    before, ended_before = resident_mib(gateway.pid), await ended(gateway)
    async with caller(gateway) as honest, strangers(gateway.port, 20, http2.HELLO, answers=True) as found:
        for stranger, path in zip(found.each, cycle(paths), strict=False):
            stranger.begin(path, 100, begun)
            # Calls that begin faster than the process can take them are refused by gRPC at random, honest ones too.
            assert await status(honest) in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.CANCELLED}
        # Those of the last second may be read yet.
        assert await metric(gateway, "docpreview_grpc_streams", state="waiting") <= 1000
        async with asyncio.timeout(5):
            while await metric(gateway, "docpreview_grpc_streams", state="waiting") > 100:  # noqa: ASYNC110 - a process
                await asyncio.sleep(0.2)
        async with honest_calls(honest) as statuses:
            await found.until(lambda: not found.open_streams, 60)
        assert statuses.keys() == {grpc.StatusCode.NOT_FOUND}
        assert found.open == 20
        assert await ended(gateway) - ended_before > 100
    assert resident_mib(gateway.pid) - before < 60


async def test_calls_that_end_without_a_message_get_a_status(gateway: GatewayProcess) -> None:
    """INVALID_ARGUMENT at once, instead of no answer for ever."""
    async with strangers(gateway.port, 1, http2.HELLO, answers=True) as found:
        found.each[0].begin(PATH, 50, None)
        await found.until(lambda: not found.open_streams, 20)
        assert found.each[0].statuses == {3}


async def test_fifteen_hundred_unfinished_requests_leave_the_admin_port_to_probes(gateway: GatewayProcess) -> None:
    """A hundred stay open at most, and these for seconds only."""
    greeting = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Unfinished: "
    async with strangers(gateway.admin_port, 1500, greeting, answers=False) as silent:
        assert (await page(gateway.admin_port, "/healthz"))[0] == 200
        await silent.until(lambda: silent.open <= 100, 20)
        assert (await page(gateway.admin_port, "/readyz"))[0] == 200
        await silent.until(lambda: not silent.open, 30)


async def test_the_admin_port_is_not_served_under_a_name_of_strangers(gateway: GatewayProcess) -> None:
    """A browser may be led to it by a name that a stranger controls; the answer says what to do."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        address = f"http://127.0.0.1:{gateway.admin_port}/metrics"
        answer = await browser.get(address, headers={"Host": "attacker.example.com"})
        assert (answer.status_code, "admin_hosts" in answer.text) == (421, True)
        for host in ("localhost:9464", "10.0.0.7", "[::1]:9464", "gateway:9464"):
            assert (await browser.get(address, headers={"Host": host})).status_code == 200


async def test_a_service_that_may_open_few_files_raises_its_limit_and_serves_beside_silent_connections(
    tmp_path: Path,
) -> None:
    """Else it could accept nobody, nor reach the cloud, long before its limit of connections."""
    async with Emulator() as emulator:
        gateway = GatewayProcess(tmp_path, emulator.port)
        gateway.prefix = ("sh", "-c", 'ulimit -Sn 256 && exec "$@"', "sh")
        async with gateway, strangers(gateway.port, 400, http2.HELLO, answers=True) as silent:
            assert await served_within(gateway, 10)
            assert silent.open == 400
