"""`serve --workers N`: worker processes that share a port, are restarted after a crash, and have common metrics."""

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
import pytest
from prometheus_client.parser import text_string_to_metric_families

from docpreview.v1.preview_job_pb2 import ObjectLocation
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from tests.integration.conftest import BUCKET, REGION, until
from tests.integration.gateway_processes import Running, configuration, page, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
TWO = ("--workers", "2")
CONNECTIONS = 16
"""Enough connections for each of two workers to get one: the probability of all at the same one is 1 in 32,768."""


@asynccontextmanager
async def cloud() -> AsyncIterator[Emulator]:
    """A cloud whose jobs stay Running until they are released."""
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


async def metrics(gateway: Running) -> Counter[str]:
    """Sums of the samples of each name over their labels."""
    sums: Counter[str] = Counter()
    for family in text_string_to_metric_families((await page(gateway.admin_port, "/metrics"))[1]):
        for sample in family.samples:
            sums[sample.name] += sample.value  # type: ignore[assignment]
    return sums


async def worker_pids(gateway: Running) -> list[int]:
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    return [int(word) for word in (await asyncio.to_thread(children.read_text)).split()]


class TestMetrics:
    async def test_the_metrics_page_sums_all_workers_without_duplicates(self, tmp_path: Path) -> None:
        """Metrics of a process are labelled with the worker's number."""
        async with cloud() as emulator, running(configuration(emulator, tmp_path), *TWO) as gateway:
            async with connections(gateway.address) as stubs:
                job_id = (await stubs[0].CreatePreviewJob(create())).job_id
                request = GetPreviewJobRequest(bucket=BUCKET, job_id=job_id)
                for _ in range(10):
                    await asyncio.gather(*(stub.GetPreviewJob(request) for stub in stubs))
                assert (await metrics(gateway))["docpreview_grpc_connections"] == CONNECTIONS
            _, text = await page(gateway.admin_port, "/metrics")
            sums = await metrics(gateway)
            assert sums["grpc_server_handled_total"] == 10 * CONNECTIONS + 1
            assert sums["grpc_server_handling_seconds_count"] == 10 * CONNECTIONS + 1
            assert sums["docpreview_upstream_requests_total"] == len(emulator.requests)
            assert sums["docpreview_workers"] == 2
            assert sums["docpreview_grpc_connections_limit"] == 2 * 1000
            assert sums["docpreview_pollers"] == 0
            assert set(re.findall(r'process_resident_memory_bytes{worker="(\d)"}', text)) == {"0", "1"}
            types = re.findall(r"^# TYPE (\S+)", text, flags=re.MULTILINE)
            assert len(types) == len(set(types))

    async def test_the_operator_page_finds_calls_of_all_workers(self, tmp_path: Path) -> None:
        """It asks them; a worker by itself has no page."""
        async with cloud() as emulator, running(configuration(emulator, tmp_path), *TWO) as gateway:
            async with connections(gateway.address) as stubs:
                made = await asyncio.gather(*(stub.CreatePreviewJob(create()) for stub in stubs))
                for number, (stub, job) in enumerate(zip(stubs, made, strict=True)):
                    request = GetPreviewJobRequest(bucket=BUCKET, job_id=job.job_id)
                    await stub.GetPreviewJob(request, metadata=(("x-request-id", f"call-{number}"),))
            for number, job in enumerate(made):
                status, text = await page(gateway.admin_port, f"/calls?id=call-{number}")
                assert (status, text.count("<article ")) == (200, 1)
                assert job.job_id in text
                _, text = await page(gateway.admin_port, f"/calls?id={job.job_id}")
                assert re.findall(r"<h3>(\w+)", text) == ["GetPreviewJob", "CreatePreviewJob"]
            assert f"are {2 * CONNECTIONS} calls" in text
            _, text = await page(gateway.admin_port, "/")
            assert f"0 of {CONNECTIONS}" in text
            assert (await page(gateway.admin_port, "/runbooks/workers-restarting.md"))[0] == 200
            assert (await page(gateway.admin_port, "/recent"))[0] == 404
            assert (await page(gateway.admin_port, "/debug"))[0] == 404

    async def test_with_admin_debug_the_stacks_of_all_processes_are_shown(self, tmp_path: Path) -> None:
        """Of the supervisor and both workers."""
        async with (
            cloud() as emulator,
            running(configuration(emulator, tmp_path, admin_debug=True), *TWO) as gateway,
        ):
            status, text = await page(gateway.admin_port, "/debug")
        assert (status, re.findall("^== (.*)$", text, re.MULTILINE)) == (200, ["supervisor", "worker 0", "worker 1"])
        assert "Supervisor._keep" in text
        assert "thread MainThread" in text
        assert "docpreview_gateway/wiring/gateway.py" in text.partition("== worker 0")[2]
        assert "EXAMPLEsecretKEY" not in text

    async def test_the_gateway_is_ready_only_while_its_workers_serve(self, tmp_path: Path) -> None:
        """Not ready as soon as they stop."""
        drain = {"delay_seconds": 1, "grace_seconds": 5}
        async with cloud() as emulator, running(configuration(emulator, tmp_path, drain=drain), *TWO) as gateway:
            assert await page(gateway.admin_port, "/readyz") == (200, "ready\n")
            gateway.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                while await page(gateway.admin_port, "/readyz") != (503, "stopping\n"):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.02)
            assert await page(gateway.admin_port, "/healthz") == (200, "ok\n")
            assert await asyncio.wait_for(gateway.process.wait(), 20) == 0


def family(pid: int) -> list[int]:
    """A process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def log_of(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("gateway-*.log"))


@pytest.mark.parametrize("workers", [(), TWO], ids=["one", "two"])
async def test_sighup_is_logged_and_changes_nothing(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """To the command, and to its workers: files are reloaded without it."""
    async with cloud() as emulator, running(configuration(emulator, tmp_path), *workers) as gateway:
        processes = family(gateway.process.pid)
        assert len(processes) == (3 if workers else 1)
        for process in processes:
            os.kill(process, signal.SIGHUP)
        await until(lambda: log_of(tmp_path).count("SIGHUP is ignored") == len(processes))
        assert await page(gateway.admin_port, "/readyz") == (200, "ready\n")
        gateway.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(gateway.process.wait(), 60) == 0


class TestCreate:
    async def test_a_request_id_at_all_workers_makes_one_job(self, tmp_path: Path) -> None:
        """Workers share the ledger in `state_dir`."""
        async with cloud() as emulator, running(configuration(emulator, tmp_path), *TWO) as gateway:
            async with connections(gateway.address) as stubs:
                for _ in range(5):
                    request = create(str(uuid.uuid4()))
                    jobs = await asyncio.gather(*(stub.CreatePreviewJob(request) for stub in stubs))
                    assert len({job.job_id for job in jobs}) == 1
            assert emulator.accepted_jobs == 5


class TestLimits:
    async def test_workers_keep_a_callers_rate_together(self, tmp_path: Path) -> None:
        """Without shared state each of two workers admits half of the rate."""
        limits = {"anonymous": {"rate": {"per_second": 0.001, "burst": 8}}}
        async with cloud() as emulator, running(configuration(emulator, tmp_path, limits=limits), *TWO) as gateway:
            async with connections(gateway.address) as stubs:
                request = GetPreviewJobRequest(bucket=BUCKET, job_id="d1")
                calls = [stub.GetPreviewJob(request) for stub in stubs for _ in range(4)]
                codes = Counter([(await call.code()).name for call in calls])
            assert codes == {"NOT_FOUND": 8, "RESOURCE_EXHAUSTED": 4 * CONNECTIONS - 8}


class TestCrash:
    @pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.long)])
    async def test_a_worker_killed_under_load_fails_no_read_and_is_restarted(self, tmp_path: Path, kills: int) -> None:
        """The reads are the shipped client's; no counter decreases."""
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
                assert await page(gateway.admin_port, "/readyz") == (200, "ready\n")
            over.set()
            await asyncio.gather(*reading)
            assert reads > 100

    async def test_workers_drain_and_end_when_their_supervisor_is_killed(self, tmp_path: Path) -> None:
        """The port is free for the next supervisor."""
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
    async def test_a_call_in_flight_succeeds_during_a_drain_and_all_workers_end(self, tmp_path: Path) -> None:
        """The exit code is 0."""
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
        """The supervisor forwards the signal."""
        drain = {"delay_seconds": 60, "grace_seconds": 60}
        async with cloud() as emulator, running(configuration(emulator, tmp_path, drain=drain), *TWO) as gateway:
            gateway.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            gateway.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(gateway.process.wait(), 20) == 0


async def refused(path: Path) -> list[str]:
    """The error lines of a command that does not start."""
    with pytest.raises(AssertionError) as caught:
        async with running(path, *TWO):
            pass
    text = str(caught.value)
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("error: ")]


class TestStart:
    @pytest.mark.parametrize("shares", [False, True])
    @pytest.mark.parametrize("key", ["listen", "admin_listen"])
    async def test_a_port_taken_by_another_server_fails_the_start_and_names_the_setting(
        self,
        tmp_path: Path,
        key: str,
        shares: bool,  # noqa: FBT001
    ) -> None:
        """Also when that server listens with SO_REUSEPORT."""
        async with cloud() as emulator:
            with socket.socket() as taken:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                address = f"127.0.0.1:{taken.getsockname()[1]}"
                (error,) = await refused(configuration(emulator, tmp_path, **{key: address}))
        assert error.startswith(f"error: {key} {address}: ")

    async def test_two_gateways_with_workers_cannot_share_a_port(self, tmp_path: Path) -> None:
        """Only the workers of one gateway share it."""
        async with cloud() as emulator, running(configuration(emulator, tmp_path), *TWO) as gateway:
            (error,) = await refused(configuration(emulator, tmp_path, listen=gateway.address))
        assert error.startswith(f"error: listen {gateway.address}: ")

    async def test_workers_that_cannot_start_end_the_command_with_one_error(self, tmp_path: Path) -> None:
        """The supervisor does not restart them."""
        (tmp_path / "file").write_text("")
        async with cloud() as emulator:
            (error,) = await refused(configuration(emulator, tmp_path, state_dir=str(tmp_path / "file")))
        assert error.startswith("error: state_dir: ")

    async def test_a_workers_log_lines_have_its_number_and_serving_is_logged_once(self, tmp_path: Path) -> None:
        """`serving` comes once all workers serve."""
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
    """Wait until the metric is higher than before."""
    async with asyncio.timeout(30):
        while (await metrics(gateway))[name] <= before[name]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
