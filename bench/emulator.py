"""Start-up and memory of the emulator, and how long `/_emulator/health` takes while hostile documents are converted.

The documents are those of tests/unit/emulator/hostile_files.py, all at once, in four buckets, with the default workers
and short bounds. The emulator is a process of its own; the documents' processes share the machine with it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

import aiohttp
from tests.unit.emulator.cloud_client import REGION, XML, Cloud, create_body
from tests.unit.emulator.hostile_files import Machine, calling, exploding, lying, slow_pdf, zip_bomb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BOUNDS = ("--max-cpu-time", "10", "--max-files", "200")
SERVE = (sys.executable, "-m", "docpreview_emulator", "serve", "--port", "0", *BOUNDS)
STARTS = 5
BUCKETS = 4
PAUSE = 0.02


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, int, float]]:
    """An emulator: its address, process id, and the seconds until it listened."""
    began, pipe = time.monotonic(), asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*SERVE, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().split()[-1]
        yield url, process.pid, time.monotonic() - began
    finally:
        process.terminate()
        await process.communicate()


def mebibytes(pid: int, name: str) -> float:
    """A line of the kernel's status of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


async def convert(cloud: Cloud, bucket: str, name: str, data: bytes) -> str:
    """The state in which the job of a document ends."""
    host = f"{bucket}.cos.{REGION}.myqcloud.com"
    async with cloud.session.put(f"{cloud.url}/_emulator/upload/{host}/{name}", data=data) as reply:
        reply.raise_for_status()
    host = host.replace(".cos.", ".ci.")
    body = create_body(name, "o/${SheetID}/${Number}")
    made = await cloud.send("POST", "/doc_jobs", host=host, headers={"content-type": XML}, body=body)
    path = f"/doc_jobs/{made.text('JobsDetail/JobId')}"
    while True:
        state = (await cloud.send("GET", path, host=host)).text("JobsDetail/State")
        if state not in {"Submitted", "Running"}:
            return state
        await asyncio.sleep(1)


async def health_times(url: str, working: asyncio.Future[list[str]]) -> list[float]:
    """Milliseconds of each answer of `health` until the work is done."""
    found = []
    async with aiohttp.ClientSession() as session:
        while not working.done():
            began = time.perf_counter()
            async with session.get(f"{url}/_emulator/health") as reply:
                await reply.read()
            found.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(PAUSE)
    return found


async def main() -> None:
    starts = []
    for _ in range(STARTS):
        async with serving() as (_, _, seconds):
            starts.append(seconds)
    print(f"start-up   {median(starts) * 1000:.0f} ms until it listens (median of {STARTS})")
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine.of(Path(folder), "http://127.0.0.1:9")
        documents = {**calling(machine), **exploding(), **lying(), "slow.pdf": slow_pdf(), "bomb.docx": zip_bomb(1200)}
    async with serving() as (url, pid, _), Cloud(url) as cloud:
        async with cloud.session.get(f"{url}/_emulator/health") as reply:
            isolation = (await reply.json())["isolation"]
        print(f"memory     {mebibytes(pid, 'VmRSS'):.0f} MiB before the first document (isolation: {isolation})")
        began = time.monotonic()
        jobs = [convert(cloud, f"bucket{n % BUCKETS}-1250000000", *each) for n, each in enumerate(documents.items())]
        working = asyncio.ensure_future(asyncio.gather(*jobs))
        times = await health_times(url, working)
        states = ", ".join(f"{count} {state}" for state, count in Counter(working.result()).items())
        print(f"documents  {len(documents)} in {time.monotonic() - began:.0f} s: {states}")
        print(f"memory     {mebibytes(pid, 'VmHWM'):.0f} MiB at most, documents' processes not counted")
    late = quantiles(times, n=100)[98]
    figures = f"median {median(times):.1f} ms, p99 {late:.1f} ms, longest {max(times):.1f} ms"
    print(f"health     {len(times)} answers: {figures}")


if __name__ == "__main__":
    asyncio.run(main())
