"""Resident memory stays bounded under many distinct jobs, cancelled watches and calls to a hanging cloud."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc
import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation
from docpreview.v1.preview_job_service_pb2 import (
    CreatePreviewJobRequest,
    GetPreviewJobRequest,
    WatchPreviewJobRequest,
)
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from tests.faults.gateway_process import BUCKET, REGION, GatewayProcess
from tests.faults.test_overload import resident_mib

ROOT = Path(__file__).parents[2]


@pytest.mark.alone
@pytest.mark.timeout(600)
@pytest.mark.parametrize("jobs", [100_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
async def test_distinct_jobs_through_the_cache_stay_within_its_bound(jobs: int) -> None:
    """The process grows by at most 1.2 times `cache.max_bytes`."""
    bound = 32 * 1024 * 1024
    arguments = ("-m", "tests.faults.many_jobs", str(jobs), str(bound))
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    grown = int(output)
    print(f"\n{jobs} jobs: {grown / bound:.2f} of the bound")  # noqa: T201 - the figures
    assert 0.5 * bound < grown <= 1.2 * bound


@pytest.mark.alone
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cycles", [1000, pytest.param(20_000, marks=pytest.mark.soak)])
async def test_cancelled_watches_leave_no_memory_behind(tmp_path: Path, cycles: int) -> None:
    """Each watch is cancelled after its first state; the gateway is as large as after the first thousand."""
    async with Emulator() as emulator, GatewayProcess(tmp_path, emulator.port) as gateway:
        emulator.hold_jobs()
        emulator.put_object(BUCKET, REGION, "a.pdf", b"%PDF-1.4")
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            stub = PreviewJobServiceStub(channel)
            output = ObjectLocation(object="out/p-${Page}.jpg")
            job = await stub.CreatePreviewJob(
                CreatePreviewJobRequest(bucket=BUCKET, input_object="a.pdf", output=output), timeout=20
            )

            async def watch(count: int) -> None:
                for _ in range(count):
                    call = stub.WatchPreviewJob(WatchPreviewJobRequest(bucket=BUCKET, job_id=job.job_id), timeout=60)
                    await call.read()
                    call.cancel()

            await asyncio.gather(*(watch(100) for _ in range(10)))
            before = resident_mib(gateway.pid)
            await asyncio.gather(*(watch(cycles // 10) for _ in range(10)))
            grown = resident_mib(gateway.pid) - before
    print(f"\n{cycles} watches cancelled: {grown:+.1f} MiB on {before:.1f}")  # noqa: T201 - the figures
    assert grown < 8


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize("calls", [300, pytest.param(3000, marks=pytest.mark.soak)])
async def test_a_hanging_cloud_costs_callers_their_deadline_and_the_gateway_no_memory(
    tmp_path: Path, calls: int
) -> None:
    """Every call ends by its deadline, and reads succeed again within five seconds of the cloud's recovery."""
    async with (
        Emulator() as emulator,
        GatewayProcess(tmp_path, emulator.port, {"breaker": {}, "cache": {"missing_seconds": 0}}) as gateway,
        grpc.aio.insecure_channel(gateway.address) as channel,
    ):
        stub, clock = PreviewJobServiceStub(channel), asyncio.get_running_loop().time

        async def read(number: int) -> tuple[grpc.StatusCode, float]:
            begun = clock()
            request = GetPreviewJobRequest(bucket=BUCKET, job_id=f"d{number:032x}")
            code = await stub.GetPreviewJob(request, timeout=1.0).code()
            return code, clock() - begun

        for number in range(200):
            assert (await read(number))[0] == grpc.StatusCode.NOT_FOUND
        before = resident_mib(gateway.pid)
        emulator.add_fault("latency", "get", seconds=60, times=None)
        longest = 0.0
        for begin in range(1000, 1000 + calls, 50):
            ended = await asyncio.gather(*(read(begin + number) for number in range(50)))
            assert {code for code, _ in ended} <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
            longest = max(longest, *(took for _, took in ended))
        emulator.clear_faults()
        back = clock()
        while (await read(1))[0] != grpc.StatusCode.NOT_FOUND:
            assert clock() - back < 6
            await asyncio.sleep(0.1)
        recovered = clock() - back
        assert {code for code, _ in [await read(number) for number in range(20)]} == {grpc.StatusCode.NOT_FOUND}
        grown = resident_mib(gateway.pid) - before
    figures = f"longest {longest:.2f} s, recovered after {recovered:.2f} s, {grown:+.1f} MiB"
    print(f"\n{calls} calls to a hanging cloud: {figures}")  # noqa: T201
    assert longest < 2
    assert grown < 12
