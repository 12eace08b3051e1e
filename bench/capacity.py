"""Benchmark of watches: the gateway's memory, CPU of idle watches, and requests to the cloud.

The gateway is a process of its own in front of the emulator, which holds every job in Running. First all watches are of
one job, then ten of each, then streams of many jobs follow one job for each; `docs/capacity.md` has the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from docpreview.v1.preview_job_service_pb2 import (
    CreatePreviewJobRequest,
    WatchPreviewJobRequest,
    WatchPreviewJobsRequest,
)
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Credential, Emulator

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub as Stub

BUCKET, REGION = "docs-1250000000", "ap-chongqing"
STREAMS_OF_A_CONNECTION = 90
MOST_JOBS = 1000
"""Jobs of a stream."""
IDLE_SECONDS = 20.0
MEBIBYTE = 2**20


def memory(pid: int) -> float:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def watch(stub: Stub, job_id: str, opening: asyncio.Semaphore, seen: asyncio.Semaphore) -> None:
    await opening.acquire()
    request = WatchPreviewJobRequest(bucket=BUCKET, job_id=job_id)
    first = True
    async for _ in stub.WatchPreviewJob(request, timeout=600):
        if first:
            first = False
            opening.release()
            seen.release()


async def watch_many(stub: Stub, job_ids: list[str], seen: asyncio.Semaphore) -> None:
    request = WatchPreviewJobsRequest(bucket=BUCKET, job_ids=job_ids)
    told = set()
    async for event in stub.WatchPreviewJobs(request, timeout=600):
        if event.HasField("job") and event.job.job_id not in told:
            told.add(event.job.job_id)
            seen.release()


async def measure(  # noqa: PLR0913 - what is measured
    emulator: Emulator, pid: int, port: int, *, watches: int, jobs: int, many: bool = False
) -> None:
    async with AsyncExitStack() as stack:
        stubs = []
        for _ in range(-(-watches // STREAMS_OF_A_CONNECTION)):
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=(("grpc.use_local_subchannel_pool", 1),))
            stubs.append(PreviewJobServiceStub(await stack.enter_async_context(channel)))
        ids = [await create(stubs[0]) for _ in range(jobs)]
        before = memory(pid)
        opening, seen = asyncio.Semaphore(100), asyncio.Semaphore(0)
        if many:
            parts = [ids[at : at + MOST_JOBS] for at in range(0, jobs, MOST_JOBS)]
            tasks = [asyncio.create_task(watch_many(stubs[0], part, seen)) for part in parts]
        else:
            tasks = [
                asyncio.create_task(watch(stubs[n % len(stubs)], ids[n % jobs], opening, seen)) for n in range(watches)
            ]
        for _ in range(watches):
            await seen.acquire()
        asked, cpu, begin = len(emulator.requests), cpu_seconds(pid), time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        seconds = time.monotonic() - begin
        polls = (len(emulator.requests) - asked) / seconds
        used = (cpu_seconds(pid) - cpu) / seconds
        grown = memory(pid) - before
        print(
            f"{watches:>8}{jobs:>8}{grown:>10.1f}{1000 * grown / watches:>14.1f}{100 * used:>12.1f}{polls:>14.1f}",
            flush=True,
        )
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def create(stub: Stub) -> str:
    request = CreatePreviewJobRequest(bucket=BUCKET, input_object="seven.pdf")
    request.output.object = "out/p-${Number}.jpg"
    job: PreviewJob = await stub.CreatePreviewJob(request, timeout=30)
    return job.job_id


async def main(watches: int) -> None:
    document = Path(__file__).parents[1] / "examples" / "seven-pages.pdf"
    async with Emulator(credentials=[Credential("example-id", "example-key")]) as emulator:
        emulator.put_object(BUCKET, REGION, "seven.pdf", document.read_bytes())
        emulator.hold_jobs()
        server = [sys.executable, str(Path(__file__).parent / "gateway_server.py"), str(emulator.port)]
        with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
            server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            print(f"idle: {memory(process.pid):.1f} MiB")
            print(" watches    jobs  MiB more  KiB a watch  CPU per cent  requests a s")
            try:
                await measure(emulator, process.pid, port, watches=watches, jobs=1)
                await measure(emulator, process.pid, port, watches=watches, jobs=watches // 10)
                await measure(emulator, process.pid, port, watches=watches, jobs=watches, many=True)
            finally:
                process.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watches", type=int, default=1000)
    asyncio.run(main(parser.parse_args().watches))
