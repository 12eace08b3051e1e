"""`serve --workers N`: processes that share one port, restarted when they crash, and counted as one gateway."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import uuid
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from docpreview.v1.preview_job_pb2 import ObjectLocation
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from tests.integration.conftest import BUCKET, REGION
from tests.integration.gateway_processes import Running, configuration, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
TWO = ("--workers", "2")
CONNECTIONS = 16
"""So many that by chance each of two workers has one: all with the same worker is one in 32,768."""


@asynccontextmanager
async def cloud() -> AsyncIterator[Emulator]:
    """A cloud whose jobs run until they are released."""
    async with Emulator() as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", DOCUMENT.read_bytes())
        emulator.hold_jobs()
        yield emulator


@asynccontextmanager
async def connections(address: str, count: int = CONNECTIONS) -> AsyncIterator[list[PreviewJobServiceAsyncStub]]:
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options)) for _ in range(count)
        ]
        yield [PreviewJobServiceStub(channel) for channel in channels]


def create(request_id: str = "") -> CreatePreviewJobRequest:
    output = ObjectLocation(object="p-${Page}.jpg")
    return CreatePreviewJobRequest(bucket=BUCKET, input_object="a.pdf", output=output, request_id=request_id)


async def page(gateway: Running, path: str) -> tuple[int, str]:
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(f"http://127.0.0.1:{gateway.admin_port}{path}")
        return answer.status_code, answer.text


async def metrics(gateway: Running) -> Counter[str]:
    """Sums of the samples of each name over their labels."""
    sums: Counter[str] = Counter()
    for family in text_string_to_metric_families((await page(gateway, "/metrics"))[1]):
        for sample in family.samples:
            sums[sample.name] += sample.value  # type: ignore[assignment]
    return sums


async def worker_pids(gateway: Running) -> list[int]:
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    return [int(word) for word in (await asyncio.to_thread(children.read_text)).split()]


class TestMetrics:
    async def test_calls_at_all_workers(self, tmp_path: Path) -> None:
        """One page has their sums; what belongs to a process has the worker's number; nothing stands there twice."""
        async with cloud() as emulator, running(configuration(emulator, tmp_path), *TWO) as gateway:
            async with connections(gateway.address) as stubs:
                job_id = (await stubs[0].CreatePreviewJob(create())).job_id
                request = GetPreviewJobRequest(bucket=BUCKET, job_id=job_id)
                for _ in range(10):
                    await asyncio.gather(*(stub.GetPreviewJob(request) for stub in stubs))
            _, text = await page(gateway, "/metrics")
            sums = await metrics(gateway)
            assert sums["grpc_server_handled_total"] == 10 * CONNECTIONS + 1
            assert sums["grpc_server_handling_seconds_count"] == 10 * CONNECTIONS + 1
            assert sums["docpreview_upstream_requests_total"] == len(emulator.requests)
            assert sums["docpreview_workers"] == 2
            assert sums["docpreview_pollers"] == 0
            assert set(re.findall(r'process_resident_memory_bytes{worker="(\d)"}', text)) == {"0", "1"}
            types = re.findall(r"^# TYPE (\S+)", text, flags=re.MULTILINE)
            assert len(types) == len(set(types))

    async def test_the_gateway_is_ready_only_while_its_workers_serve(self, tmp_path: Path) -> None:
        """Ready when the workers serve, not ready as soon as they stop."""
        drain = {"delay_seconds": 1, "grace_seconds": 5}
        async with cloud() as emulator, running(configuration(emulator, tmp_path, drain=drain), *TWO) as gateway:
            assert await page(gateway, "/readyz") == (200, "ready\n")
            gateway.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                while await page(gateway, "/readyz") != (503, "stopping\n"):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.02)
            assert await page(gateway, "/healthz") == (200, "ok\n")
            assert await asyncio.wait_for(gateway.process.wait(), 20) == 0


class TestCreate:
    async def test_same_request_id_at_all_workers(self, tmp_path: Path) -> None:
        """They share the ledger in `state_dir`: one job, one POST."""
        async with cloud() as emulator, running(configuration(emulator, tmp_path), *TWO) as gateway:
            async with connections(gateway.address) as stubs:
                for _ in range(5):
                    request = create(str(uuid.uuid4()))
                    jobs = await asyncio.gather(*(stub.CreatePreviewJob(request) for stub in stubs))
                    assert len({job.job_id for job in jobs}) == 1
            assert emulator.accepted_jobs == 5


class TestLimits:
    async def test_rate_of_a_caller(self, tmp_path: Path) -> None:
        """Without shared state each worker lets its half pass, so that together they keep the limit."""
        limits = {"anonymous": {"rate": {"per_second": 0.001, "burst": 8}}}
        async with cloud() as emulator, running(configuration(emulator, tmp_path, limits=limits), *TWO) as gateway:
            async with connections(gateway.address) as stubs:
                request = GetPreviewJobRequest(bucket=BUCKET, job_id="d1")
                calls = [stub.GetPreviewJob(request) for stub in stubs for _ in range(4)]
                codes = Counter([(await call.code()).name for call in calls])
            assert codes == {"NOT_FOUND": 8, "RESOURCE_EXHAUSTED": 4 * CONNECTIONS - 8}


class TestCrash:
    @pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.long)])
    async def test_worker_that_is_killed_under_load(self, tmp_path: Path, kills: int) -> None:
        """No read of the shipped client fails, the worker is back soon, and no count goes down."""
        async with AsyncExitStack() as stack:
            emulator = await stack.enter_async_context(cloud())
            gateway = await stack.enter_async_context(running(configuration(emulator, tmp_path), *TWO))
            clients = [await stack.enter_async_context(DocPreviewClient(gateway.address)) for _ in range(4)]
            job_id = (await clients[0].create(BUCKET, "a.pdf", output_object="p-${Page}.jpg")).job_id
            over, reads = asyncio.Event(), 0

            async def read(client: DocPreviewClient) -> None:
                nonlocal reads
                while not over.is_set():
                    assert (await client.get(BUCKET, job_id)).job_id == job_id
                    reads += 1

            reading = [asyncio.create_task(read(client)) for client in clients * 2]
            for _ in range(kills):
                before = await metrics(gateway)
                victim = (await worker_pids(gateway))[0]
                os.kill(victim, signal.SIGKILL)
                await _until_metric(gateway, "docpreview_worker_restarts_total", before)
                await _until_metric(gateway, "docpreview_workers", Counter(docpreview_workers=1))
                after = await metrics(gateway)
                assert after["grpc_server_handled_total"] >= before["grpc_server_handled_total"]
                assert await page(gateway, "/readyz") == (200, "ready\n")
            over.set()
            await asyncio.gather(*reading)
            assert reads > 100

    async def test_supervisor_that_is_killed(self, tmp_path: Path) -> None:
        """The workers drain and end, too: the port is free for the next one."""
        async with cloud() as emulator, running(configuration(emulator, tmp_path), *TWO) as gateway:
            pids = await worker_pids(gateway)
            assert len(pids) == 2
            await gateway.kill()
            async with asyncio.timeout(20):
                while any(Path(f"/proc/{pid}").exists() for pid in pids):  # noqa: ASYNC110, ASYNC240
                    await asyncio.sleep(0.05)
            with socket.socket() as taken:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken.bind(("127.0.0.1", gateway.port))


class TestDrain:
    async def test_call_under_way(self, tmp_path: Path) -> None:
        """It ends well; then all workers end, with exit code 0."""
        async with cloud() as emulator, running(configuration(emulator, tmp_path), *TWO) as gateway:
            async with connections(gateway.address) as stubs:
                job_id = (await stubs[0].CreatePreviewJob(create())).job_id
                emulator.add_fault("latency", "get", seconds=2.0, times=None)
                request = GetPreviewJobRequest(bucket=BUCKET, job_id=job_id)
                slow = [asyncio.ensure_future(in_flight(stub, request)) for stub in stubs]
                await asyncio.sleep(0.5)
                gateway.process.send_signal(signal.SIGTERM)
                assert set(await asyncio.gather(*slow)) == {job_id}
            assert await asyncio.wait_for(gateway.process.wait(), 20) == 0

    async def test_a_second_signal_stops_all_workers_without_waiting(self, tmp_path: Path) -> None:
        """It reaches all workers, which do not wait any longer."""
        drain = {"delay_seconds": 60, "grace_seconds": 60}
        async with cloud() as emulator, running(configuration(emulator, tmp_path, drain=drain), *TWO) as gateway:
            gateway.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            gateway.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(gateway.process.wait(), 20) == 0


async def refused(path: Path) -> list[str]:
    """The errors of a command that does not start."""
    with pytest.raises(AssertionError) as caught:
        async with running(path, *TWO):
            pass
    text = str(caught.value)
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("error: ")]


class TestStart:
    @pytest.mark.parametrize("shares", [False, True])
    @pytest.mark.parametrize("key", ["listen", "admin_listen"])
    async def test_port_of_a_foreign_server(self, tmp_path: Path, key: str, shares: bool) -> None:  # noqa: FBT001
        """The error names the setting, also when that server would share its port."""
        async with cloud() as emulator:
            with socket.socket() as taken:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                address = f"127.0.0.1:{taken.getsockname()[1]}"
                (error,) = await refused(configuration(emulator, tmp_path, **{key: address}))
        assert error.startswith(f"error: {key} {address}: ")

    async def test_port_of_another_gateway(self, tmp_path: Path) -> None:
        """Two gateways do not share a port, though the workers of each do."""
        async with cloud() as emulator, running(configuration(emulator, tmp_path), *TWO) as gateway:
            (error,) = await refused(configuration(emulator, tmp_path, listen=gateway.address))
        assert error.startswith(f"error: listen {gateway.address}: ")

    async def test_workers_that_cannot_start(self, tmp_path: Path) -> None:
        """What is wrong is said once, and nothing is tried again."""
        (tmp_path / "file").write_text("")
        async with cloud() as emulator:
            (error,) = await refused(configuration(emulator, tmp_path, state_dir=str(tmp_path / "file")))
        assert error.startswith("error: state_dir: ")

    async def test_a_workers_log_lines_have_its_number_and_serving_is_logged_once(self, tmp_path: Path) -> None:
        """Lines of a worker have its number; the one that says where to call comes once, when all serve."""
        async with cloud() as emulator, running(configuration(emulator, tmp_path), *TWO):
            lines = _log(tmp_path)
        assert [(line["event"], line.get("worker")) for line in lines[:2]] == [
            ("worker serves", 0),
            ("worker serves", 1),
        ]
        assert [line["workers"] for line in lines if line["event"] == "serving"] == [2]


def _log(folder: Path) -> list[dict[str, object]]:
    (found,) = folder.glob("gateway-*.log")
    return [json.loads(line) for line in found.read_text().splitlines()]


async def in_flight(stub: PreviewJobServiceAsyncStub, request: GetPreviewJobRequest) -> str:
    return str((await stub.GetPreviewJob(request, timeout=30)).job_id)


async def _until_metric(gateway: Running, name: str, before: Counter[str]) -> None:
    """Wait until it is more than before."""
    async with asyncio.timeout(30):
        while (await metrics(gateway))[name] <= before[name]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
