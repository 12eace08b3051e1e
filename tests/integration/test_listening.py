"""What a stranger's request does to the listening of the real command: nothing that honest callers notice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

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
    """One unauthenticated request; returns when it has been answered, or the connection is closed."""
    with suppress(ConnectionError, TimeoutError):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        headers = http2.request_headers(NO_TEXT)
        writer.write(http2.HELLO + http2.frame(http2.HEADERS, http2.END_HEADERS, 1, headers))
        buffer = bytearray()
        async with asyncio.timeout(5):
            while data := await reader.read(65536):
                buffer += data
                if any(frame.kind in {http2.HEADERS, http2.RST_STREAM} for frame in http2.frames(buffer)):
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
async def test_no_honest_call_fails_while_strangers_send_paths_that_are_no_text(
    emulator: Emulator, tmp_path: Path, workers: int
) -> None:
    """Three hundred, as fast as they are answered; a metric tells, and the process stays healthy."""
    async with running(configuration(emulator, tmp_path), "--workers", str(workers)) as gateway:
        async with HonestCaller(gateway.address, BUCKET) as caller:
            await until(lambda: caller.served > 10)
            for _ in range(30):
                await asyncio.gather(*(attack(gateway) for _ in range(10)))
            await until(lambda: caller.served > 100)
        assert await page(gateway.admin_port, "/healthz") == (200, "ok\n")
        assert await page(gateway.admin_port, "/readyz") == (200, "ready\n")
        assert await metric(gateway, "docpreview_grpc_unknown_methods_total") == 300
        assert await metric(gateway, "docpreview_grpc_listening") == workers
    assert (caller.failed, caller.codes) == (0, set())
    assert caller.longest < 1


async def test_paths_of_a_stranger_are_lines_of_the_log_without_the_strangers_text(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Neither gRPC nor asyncio adds lines or tracebacks of its own."""
    async with running(configuration(emulator, tmp_path)) as gateway:
        for _ in range(3):
            await attack(gateway)
        gateway.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(gateway.process.wait(), 60) == 0
    lines = [json.loads(line) for line in log_of(tmp_path).splitlines()]
    found = [line for line in lines if line["level"] != "info"]
    assert [line["event"] for line in found] == ["a call of a method that does not exist was refused"] * 3
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") for line in found)
    assert not [word for word in ("codec", "xff", "/x/", "Traceback") if word in log_of(tmp_path)]


ENDING = {"PYTHONPATH": os.pathsep.join([str(Path("tests/ending_server_site").absolute()), *sys.path])}
"""Of a gateway whose server ends at a call of an unknown method."""


async def test_a_process_whose_server_has_ended_is_unhealthy_and_exits_with_an_error(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Calls in progress get their time, as in every drain."""
    path = configuration(emulator, tmp_path, drain={"delay_seconds": 0, "grace_seconds": 60})
    async with running(path, variables=ENDING) as gateway, grpc.aio.insecure_channel(gateway.address) as channel:
        watch = HealthStub(channel).Watch(HealthCheckRequest())
        assert (await watch.read()).status == HealthCheckResponse.SERVING
        await attack(gateway)
        await until(lambda: "the gRPC server ended unasked" in log_of(tmp_path))
        for name in ("/healthz", "/readyz"):
            assert (await page(gateway.admin_port, name))[0] == 503
        assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
        watch.cancel()
        assert await asyncio.wait_for(gateway.process.wait(), 60) == 1


async def test_a_worker_whose_server_has_ended_is_started_anew_while_others_serve(
    emulator: Emulator, tmp_path: Path
) -> None:
    """The gateway is healthy as long as one of its workers listens."""
    async with running(configuration(emulator, tmp_path), "--workers", "2", variables=ENDING) as gateway:
        await attack(gateway)
        await until(lambda: "the gRPC server ended unasked" in log_of(tmp_path))
        assert await page(gateway.admin_port, "/healthz") == (200, "ok\n")
        async with asyncio.timeout(60):
            while not await metric(gateway, "docpreview_worker_restarts_total"):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        async with HonestCaller(gateway.address, BUCKET) as caller:
            await until(lambda: caller.served > 10)
