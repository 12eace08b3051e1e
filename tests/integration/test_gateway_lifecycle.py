"""Start, readiness, drain and stop of the gateway, as a library and as the deployed command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from docpreview.v1.preview_job_service_pb2 import (
    GetPreviewJobRequest,
    WaitPreviewJobRequest,
    WatchPreviewJobRequest,
    WatchPreviewJobResponse,
)
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_client import ClientOptions, DocPreviewClient
from docpreview_client.channel import service_config
from docpreview_emulator import Emulator
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.settings.sections import DrainSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.deployments import deployed
from tests.integration.conftest import BUCKET, REGION, World, settings
from tests.integration.gateway_processes import page
from tests.unit.rpc.conftest import error_info, rich

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

JOB_SERVICE = "docpreview.v1.PreviewJobService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def stopping(admin_port: int) -> None:
    """Until the gateway has noticed that it is to stop."""
    async with asyncio.timeout(10):
        while await page(admin_port, "/readyz") != (503, "stopping\n"):  # noqa: ASYNC110 - a process of its own
            await asyncio.sleep(0.02)


async def held_job(emulator: Emulator, client: DocPreviewClient) -> str:
    """A job that stays Running until it is released."""
    emulator.put_object(BUCKET, REGION, "a.pdf", b"%PDF-1.4")
    emulator.hold_jobs()
    return (await client.create(BUCKET, "a.pdf", output_object="out/p-${Page}.jpg")).job_id


class TestAdmin:
    async def test_calls_attempts_pollers_and_the_process_are_in_the_metrics(self, world: World) -> None:
        """One create, and the metrics that it changes."""
        job_id = await held_job(world.emulator, world.client)
        await world.client.wait(BUCKET, job_id, timeout=timedelta(0))
        status, text = await page(world.gateway.admin_port, "/metrics")
        assert status == 200
        labels = f'grpc_method="CreatePreviewJob",grpc_service="{JOB_SERVICE}",grpc_type="unary"'
        assert f'grpc_server_handled_total{{grpc_code="OK",{labels}}} 1.0' in text
        assert f"grpc_server_msg_sent_total{{{labels}}} 1.0" in text
        labels = f'bucket="{BUCKET}",operation="create",outcome="OK"'
        assert f"docpreview_upstream_requests_total{{{labels}}} 1.0" in text
        assert "docpreview_pollers 0.0" in text
        assert "process_resident_memory_bytes" in text
        assert job_id not in text

    async def test_a_gateway_that_serves_is_alive_ready_and_serving_by_every_name(self, world: World) -> None:
        """`/healthz`, `/readyz` and the health service agree."""
        assert await page(world.gateway.admin_port, "/healthz") == (200, "ok\n")
        assert await page(world.gateway.admin_port, "/readyz") == (200, "ready\n")
        assert (await page(world.gateway.admin_port, "/nothing"))[0] == 404
        async with grpc.aio.insecure_channel(f"127.0.0.1:{world.gateway.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for name in ("", JOB_SERVICE):
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == SERVING


class TestDrain:
    async def test_a_draining_gateway_is_not_ready_but_still_answers_during_the_delay(self) -> None:
        """Balancers need the delay to notice NOT_SERVING."""
        async with Emulator() as emulator:
            values = settings(emulator, drain=DrainSettings(delay_seconds=1, grace_seconds=5))
            gateway = Gateway(values)
            await gateway.__aenter__()
            options = ClientOptions(health_checking=False)
            async with DocPreviewClient(f"127.0.0.1:{gateway.port}", options=options) as client:
                leaving = asyncio.ensure_future(gateway.__aexit__(None, None, None))
                await stopping(gateway.admin_port)
                assert await page(gateway.admin_port, "/healthz") == (200, "ok\n")
                assert [queue async for queue in client.list_queues(BUCKET)]
                await leaving

    async def test_a_drain_ends_watches_and_waits_immediately_with_shutting_down(self, world: World) -> None:
        """UNAVAILABLE with a retry delay."""
        job_id = await held_job(world.emulator, world.client)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{world.gateway.port}") as channel:
            stub = PreviewJobServiceStub(channel)
            stream = stub.WatchPreviewJob(WatchPreviewJobRequest(bucket=BUCKET, job_id=job_id))
            assert isinstance(await stream.read(), WatchPreviewJobResponse)
            waiting = stub.WaitPreviewJob(WaitPreviewJobRequest(bucket=BUCKET, job_id=job_id))
            await asyncio.sleep(0.1)
            loop = asyncio.get_running_loop()
            begin = loop.time()
            await world.gateway.__aexit__(None, None, None)
            assert loop.time() - begin < 2
            for ending in (to_the_end(stream), waiting):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ending
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
                assert error_info(caught.value).reason == "SHUTTING_DOWN"
                assert any(detail.type_url.endswith("RetryInfo") for detail in rich(caught.value).details)


class TestStart:
    @pytest.mark.parametrize("key", ["listen", "admin_listen"])
    async def test_a_taken_port_fails_the_start_and_names_its_setting(self, key: str) -> None:
        """Components that were started before are stopped again."""
        async with Emulator() as emulator:
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                address = f"127.0.0.1:{taken.getsockname()[1]}"
                gateway = Gateway(settings(emulator, **{key: address}))
                with pytest.raises(StartError, match=f"^{key} {address}: "):
                    await gateway.__aenter__()
        if gateway.admin_port:
            with pytest.raises(httpx.ConnectError):
                await page(gateway.admin_port, "/healthz")

    async def test_two_gateways_in_one_process_have_separate_metrics(self) -> None:
        """Gateways share no state."""
        async with Emulator() as emulator, Gateway(settings(emulator)) as one, Gateway(settings(emulator)) as other:
            async with DocPreviewClient(f"127.0.0.1:{one.port}") as client:
                assert [queue async for queue in client.list_queues(BUCKET)]
            labels = f'bucket="{BUCKET}",operation="list_queues",outcome="OK"'
            line = f"docpreview_upstream_requests_total{{{labels}}} 1.0"
            assert line in (await page(one.admin_port, "/metrics"))[1]
            assert line not in (await page(other.admin_port, "/metrics"))[1]

    async def test_reflection_is_served_when_it_is_enabled(self) -> None:
        """`reflection` is off by default."""
        async with (
            Emulator() as emulator,
            Gateway(settings(emulator, reflection=True)) as gateway,
            grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
        ):
            path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
            answer = await method(iter([b"\x3a\x00"])).read()
            assert JOB_SERVICE.encode() in answer  # type: ignore[operator]


@dataclass
class Command:
    """A gateway process."""

    process: asyncio.subprocess.Process
    port: int
    admin_port: int

    async def log(self) -> list[dict[str, Any]]:
        """The remaining log lines, once the process has ended."""
        _, errors = await asyncio.wait_for(self.process.communicate(), 30)
        return [json.loads(line) for line in errors.splitlines()]


def configuration(emulator: Emulator, folder: Path, **changes: object) -> Path:
    values: dict[str, object] = {
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "state_dir": str(folder),
        "buckets": [{"name": BUCKET, "region": REGION, "credentials": "main"}],
        "credentials": {"main": {"secret_id": "example-secret-id", "secret_key": "EXAMPLEsecretKEY00000000000000000"}},
        "upstream": {"endpoint": emulator.url},
        "watch": {"poll_floor_seconds": 0.05, "poll_cap_seconds": 0.2},
        "drain": {"delay_seconds": 0.5, "grace_seconds": 20},
        "logging": {"format": "json"},
    }
    path = folder / "gateway.yaml"
    path.write_text(json.dumps(deployed(values | changes)))
    return path


async def start(path: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "docpreview_gateway", "serve", "--config", str(path)),
        env={name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")},
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Command]:
    process = await start(path)
    try:
        assert process.stderr is not None
        line = await asyncio.wait_for(process.stderr.readline(), 30)
        entry = json.loads(line)
        assert entry["event"] == "serving"
        yield Command(process, entry["grpc_port"], entry["admin_port"])
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


class TestCommand:
    async def test_sigterm_finishes_calls_ends_watches_and_exits_with_0(self, tmp_path: Path) -> None:
        """Readiness goes first; the log has no warnings."""
        drain = {"delay_seconds": 2, "grace_seconds": 20}
        async with Emulator() as emulator, running(configuration(emulator, tmp_path, drain=drain)) as command:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{command.port}") as channel:
                stub = PreviewJobServiceStub(channel)
                async with DocPreviewClient(f"127.0.0.1:{command.port}") as client:
                    job_id = await held_job(emulator, client)
                stream = stub.WatchPreviewJob(WatchPreviewJobRequest(bucket=BUCKET, job_id=job_id))
                assert isinstance(await stream.read(), WatchPreviewJobResponse)
                emulator.add_fault("latency", "get", seconds=4.0, times=None)
                slow = asyncio.ensure_future(in_flight(stub, job_id))
                await asyncio.sleep(0.2)
                command.process.send_signal(signal.SIGTERM)
                await stopping(command.admin_port)
                request = health_pb2.HealthCheckRequest(service=JOB_SERVICE)
                assert (await health_pb2_grpc.HealthStub(channel).Check(request)).status == NOT_SERVING
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await to_the_end(stream)
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
                assert error_info(caught.value).reason == "SHUTTING_DOWN"
                assert any(detail.type_url.endswith("RetryInfo") for detail in rich(caught.value).details)
                assert await slow == job_id
            log = await command.log()
        assert command.process.returncode == 0
        own = [(entry["level"], entry["event"]) for entry in log if entry["event"] not in {"call", "create"}]
        assert own == [("info", "stopping"), ("info", "stopped")]
        ends = [(entry["method"], entry["reason"]) for entry in log if entry["event"] == "call"]
        assert {("WatchPreviewJob", "SHUTTING_DOWN"), ("GetPreviewJob", "")} <= set(ends)

    async def test_a_second_signal_does_not_wait_for_running_calls(self, tmp_path: Path) -> None:
        """The second signal comes during the drain delay."""
        drain = {"delay_seconds": 30, "grace_seconds": 30}
        async with Emulator() as emulator, running(configuration(emulator, tmp_path, drain=drain)) as command:
            command.process.send_signal(signal.SIGTERM)
            await stopping(command.admin_port)
            assert command.process.returncode is None
            command.process.send_signal(signal.SIGINT)
            loop = asyncio.get_running_loop()
            begin = loop.time()
            log = await command.log()
            assert loop.time() - begin < 10
        assert command.process.returncode == 0
        assert [entry["event"] for entry in log] == [
            "stopping",
            "stopping before the calls have ended",
            "stopped",
        ]

    async def test_a_second_signal_during_the_grace_period_does_not_wait_either(self, tmp_path: Path) -> None:
        """The grace period for calls has begun."""
        drain = {"delay_seconds": 0, "grace_seconds": 60}
        async with Emulator() as emulator, running(configuration(emulator, tmp_path, drain=drain)) as command:
            emulator.add_fault("latency", "get", seconds=20.0, times=None)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{command.port}") as channel:
                slow = asyncio.ensure_future(in_flight(PreviewJobServiceStub(channel), "d1"))
                await asyncio.sleep(0.3)
                command.process.send_signal(signal.SIGTERM)
                await stopping(command.admin_port)
                command.process.send_signal(signal.SIGTERM)
                loop = asyncio.get_running_loop()
                begin = loop.time()
                await command.log()
                assert loop.time() - begin < 10
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await slow
            assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert command.process.returncode == 0

    @pytest.mark.parametrize("key", ["listen", "admin_listen"])
    async def test_the_command_on_a_taken_port_exits_with_1_and_one_line(self, tmp_path: Path, key: str) -> None:
        """The line names the setting; there is no traceback."""
        async with Emulator() as emulator:
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                address = f"127.0.0.1:{taken.getsockname()[1]}"
                process = await start(configuration(emulator, tmp_path, **{key: address}))
                _, errors = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 1
        ours = [line for line in errors.decode().splitlines() if line.startswith("error: ")]
        assert len(ours) == 1
        assert ours[0].startswith(f"error: {key} {address}: ")
        assert "Traceback" not in errors.decode()


async def in_flight(stub: Any, job_id: str) -> str:
    """The job id of a slow call."""
    job = await stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id=job_id), timeout=30)
    return str(job.job_id)


async def to_the_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


def test_the_clients_service_config_checks_a_health_name_that_the_gateway_serves() -> None:
    """Clients avoid gateways that are NOT_SERVING."""
    config = service_config(health_checking=True)
    assert config["healthCheckConfig"] == {"serviceName": JOB_SERVICE}
