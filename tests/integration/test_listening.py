"""What a stranger's request does to the listening of the real command: nothing that honest callers notice for long."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from docpreview.v1.preview_job_service_pb2 import WatchPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from tests.faults import http2
from tests.faults.honest import HonestCaller
from tests.integration.conftest import BUCKET, REGION, until
from tests.integration.gateway_processes import Running, configuration, page, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NO_TEXT = b"/x/\xff"
"""A `:path` that is not UTF-8."""


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as started:
        started.put_object(BUCKET, REGION, "a.pdf", b"%PDF-1.4")
        started.hold_jobs()
        yield started


async def attack(gateway: Running) -> None:
    """One unauthenticated request; returns when the gateway has closed the connection, or asked for it."""
    with suppress(ConnectionError, TimeoutError):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        headers = http2.request_headers(NO_TEXT)
        writer.write(http2.HELLO + http2.frame(http2.HEADERS, http2.END_HEADERS, 1, headers))
        buffer = bytearray()
        async with asyncio.timeout(5):
            while data := await reader.read(65536):
                buffer += data
                if any(frame.kind == http2.GOAWAY for frame in http2.frames(buffer)):
                    break
        writer.close()


async def metric(gateway: Running, name: str) -> float:
    """The sum of the samples of this name."""
    _, text = await page(gateway.admin_port, "/metrics")
    return sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))
    )


def log_of(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("gateway-*.log"))


@pytest.mark.alone
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_path_that_is_no_text_keeps_honest_callers_waiting_for_less_than_a_second(
    emulator: Emulator, tmp_path: Path, workers: int
) -> None:
    """Thirty times; a metric and a log line tell, and the process stays healthy."""
    async with running(configuration(emulator, tmp_path), "--workers", str(workers)) as gateway:
        async with HonestCaller(gateway.address, BUCKET) as caller:
            await asyncio.sleep(0.5)
            for _ in range(30):
                await attack(gateway)
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
        assert await page(gateway.admin_port, "/healthz") == (200, "ok\n")
        assert await page(gateway.admin_port, "/readyz") == (200, "ready\n")
        assert await metric(gateway, "docpreview_grpc_server_replacements_total") == 30
        assert await metric(gateway, "docpreview_grpc_listening") == workers
    assert caller.longest < 1
    # What is in flight at an attack may fail once; gRPC tells some of it as CANCELLED (grpc issue 41785).
    assert caller.failed <= 2 * 30
    assert caller.codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert "the gRPC server ended unasked and is replaced" in log_of(tmp_path)
    assert all(line.startswith("{") for line in log_of(tmp_path).splitlines())


async def test_an_attack_is_one_line_of_the_log_without_the_strangers_text(emulator: Emulator, tmp_path: Path) -> None:
    """Neither gRPC nor asyncio adds lines or tracebacks of its own."""
    async with running(configuration(emulator, tmp_path)) as gateway:
        for number in range(1, 4):
            await attack(gateway)
            await until(lambda: log_of(tmp_path).count("is replaced") == number)  # noqa: B023 - awaited in the round
        gateway.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(gateway.process.wait(), 60) == 0
    lines = [json.loads(line) for line in log_of(tmp_path).splitlines()]
    errors = [line for line in lines if line["level"] not in {"info", "warning"}]
    assert [(line["event"], line["error"]) for line in errors] == [
        ("the gRPC server ended unasked and is replaced", "UnicodeDecodeError")
    ] * 3
    assert not [word for word in ("codec", "xff", "Traceback") if word in log_of(tmp_path)]


async def test_a_watch_goes_on_through_an_attack(emulator: Emulator, tmp_path: Path) -> None:
    """It gets the end of its job, and the gateway still stops when it is asked to."""
    async with running(configuration(emulator, tmp_path)) as gateway:
        async with DocPreviewClient(gateway.address) as client:
            job = await client.create(BUCKET, "a.pdf", output_object="out/p-${Page}.jpg")
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            stub = PreviewJobServiceStub(channel)
            watch = stub.WatchPreviewJob(WatchPreviewJobRequest(bucket=BUCKET, job_id=job.job_id), timeout=60)
            states: list[int] = []
            async for reply in watch:
                if not states:
                    await attack(gateway)
                    emulator.release_jobs()
                if reply.HasField("job"):
                    states.append(reply.job.state)
            assert len(states) > 1
        gateway.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(gateway.process.wait(), 60) == 0


@asynccontextmanager
async def no_more_files(pid: int) -> AsyncIterator[None]:
    """The process cannot open a file or socket, nor accept a connection."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def connections(gateway: Running, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connections whose other end has said hello."""
    opened = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(count)]
    for reader, writer in opened:
        writer.write(http2.HELLO)
        assert await reader.read(1)
    return opened


@pytest.mark.alone
async def test_a_process_that_cannot_listen_again_is_unhealthy_and_then_exits_with_an_error(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Here because it may open no more files."""
    async with running(configuration(emulator, tmp_path)) as gateway:
        ((_, writer),) = await connections(gateway, 1)
        probes = [await asyncio.open_connection("127.0.0.1", gateway.admin_port) for _ in range(2)]
        # Connections are accepted in their order: after this answer the two are.
        assert await page(gateway.admin_port, "/healthz") == (200, "ok\n")
        async with no_more_files(gateway.process.pid):
            writer.write(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.request_headers(NO_TEXT)))
            await until(lambda: "is replaced" in log_of(tmp_path))
            for (reader, probe), path in zip(probes, ("/healthz", "/readyz"), strict=True):
                probe.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                answer = await asyncio.wait_for(reader.read(), 5)
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert answer.endswith(b"the gRPC port is not listening\n")
                probe.close()
            await until(lambda: "the gRPC port cannot be bound again" in log_of(tmp_path))
        assert await asyncio.wait_for(gateway.process.wait(), 60) == 1
        writer.close()


@pytest.mark.alone
async def test_a_worker_that_cannot_listen_again_is_started_anew_while_others_serve(
    emulator: Emulator, tmp_path: Path
) -> None:
    """The gateway is healthy as long as one of its workers listens."""
    async with running(configuration(emulator, tmp_path), "--workers", "2") as gateway:
        first, _ = await workers(gateway)
        opened = await connections(gateway, 20)
        async with no_more_files(first):
            for _, writer in opened:
                writer.write(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.request_headers(NO_TEXT)))
            await until(lambda: "the gRPC port cannot be bound again" in log_of(tmp_path))
            assert await page(gateway.admin_port, "/healthz") == (200, "ok\n")
        async with asyncio.timeout(60):
            while not await metric(gateway, "docpreview_worker_restarts_total"):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        async with HonestCaller(gateway.address, BUCKET) as caller:
            await until(lambda: caller.served > 10)
        for _, writer in opened:
            writer.close()


async def workers(gateway: Running) -> list[int]:
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    return [int(word) for word in (await asyncio.to_thread(children.read_text)).split()]
