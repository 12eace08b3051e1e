"""The readiness probe of containers, against the real admin port."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from docpreview_gateway.doctor.health_probe import probe
from docpreview_gateway.telemetry.admin_server import admin_server
from docpreview_gateway.telemetry.readiness import Dependency
from tests.fakes.raw_server import RawServer

if TYPE_CHECKING:
    from pathlib import Path


def _well() -> dict[str, Dependency]:
    """The dependencies of a gateway, all in order."""
    return {"cloud": Dependency(), "records": Dependency()}


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])  # noqa: S104 - as containers listen
async def test_a_probe_of_a_ready_gateway_reports_no_problem(host: str) -> None:
    """Also when the gateway listens on all interfaces."""
    async with admin_server(
        "127.0.0.1", 0, registry=CollectorRegistry(), dependencies=_well, unready=lambda: None
    ) as port:
        assert await asyncio.to_thread(probe, host, port, seconds=5) == (True, "ready")


async def test_a_probe_of_an_unready_gateway_reports_its_status_and_reason() -> None:
    async with admin_server(
        "127.0.0.1", 0, registry=CollectorRegistry(), dependencies=_well, unready=lambda: "stopping"
    ) as port:
        assert await asyncio.to_thread(probe, "127.0.0.1", port, seconds=5) == (False, "503: stopping")


async def test_a_probe_of_a_gateway_that_serves_without_a_dependency_says_what_fails() -> None:
    """Such as creates, while the store does not answer. A restart would not mend it."""
    failing = {"cloud": Dependency(), "records": Dependency("redis://x: no connection")}
    async with admin_server(
        "127.0.0.1", 0, registry=CollectorRegistry(), dependencies=lambda: failing, unready=lambda: None
    ) as port:
        health = await asyncio.to_thread(probe, "127.0.0.1", port, seconds=5)
    assert health == (True, "serving; records failing: redis://x: no connection")


def test_a_probe_without_an_answer_names_the_address_and_the_cause() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert probe("127.0.0.1", port, seconds=5).text.startswith(f"no answer from 127.0.0.1:{port}: ")


def test_a_gateway_that_does_not_answer_in_time_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        health = probe("127.0.0.1", silent.getsockname()[1], seconds=0.2)
        assert (health.serves, "timed out" in health.text) == (False, True)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n",
        b"HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\n" + bytes(1_000_000),
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_another_server_is_no_ready_gateway_whatever_it_answers(answer: bytes) -> None:
    async with RawServer(lambda exchange: exchange.send(answer)) as other:
        health = await asyncio.to_thread(probe, "127.0.0.1", other.port, seconds=5)
    assert not health.serves
    assert health.text.startswith(f"what answers on 127.0.0.1:{other.port} is no gateway")


@pytest.mark.parametrize(("unready", "code", "expected"), [(None, 0, b"ready\n"), ("starting", 1, b"")])
async def test_the_healthcheck_command_exits_with_0_only_when_ready(
    unready: str | None, code: int, expected: bytes, tmp_path: Path
) -> None:
    """`docpreview-gateway healthcheck` reads the admin port from the configuration; 1 when not ready."""
    async with admin_server(
        "127.0.0.1", 0, registry=CollectorRegistry(), dependencies=_well, unready=lambda: unready
    ) as port:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")}
        config = tmp_path / "gateway.yaml"
        config.write_text(
            f"admin_listen: 127.0.0.1:{port}\n"
            "buckets: [{name: a-1250000000, region: ap-guangzhou, credentials: main}]\n"
            "credentials: {main: {secret_id: a, secret_key: b}}\n"
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "docpreview_gateway", "healthcheck", "--config", str(config)),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
    assert (process.returncode, output) == (code, expected)
