"""Overload: goodput stays at its best, and the calls beyond the capacity are refused quickly.

Load generator and cloud share one processor, the gateway has the other one (`taskset`).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.faults.gateway_process import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
GATEWAY_CPU, OTHERS_CPU = "0", "1"
CLOUD_SECONDS, PERMITS = "0.1", 20
"""The cloud answers 200 reads a second; the gateway's own capacity is about a thousand."""

DEADLINE = "2"
"""Deadline of a call in seconds."""

HOST_LIMITER = {"concurrency": {"initial": PERMITS, "lowest": PERMITS, "highest": PERMITS}, "breaker": {}}

RUNS = [
    pytest.param((1, 10), 4.0, 0.7, 2000, 0.25, id="briefly"),
    pytest.param((1, 2, 5, 10), 30.0, 0.9, 50, 0.05, id="long", marks=pytest.mark.soak),
]
"""Loads as multiples of the capacity, seconds of each, the least share of the best goodput at the last one, and upper
bounds of the refusals' p99 in milliseconds and of the share of calls that miss their deadline. Without the bound on
waiting calls the share of goodput is 0.4; without the early refusal the p99 is 0.6 s. The brief run allows for a slow
machine, whose core cannot read 2,000 calls a second: one call of nine was late on one."""


@asynccontextmanager
async def cloud() -> AsyncIterator[int]:
    """The port of a cloud that takes `CLOUD_SECONDS` for each answer, in a process of its own."""
    arguments = ("taskset", "-c", OTHERS_CPU, sys.executable, "bench/canned_upstream.py", CLOUD_SECONDS)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.stdin.close()
        await process.wait()


async def offered(port: int, rate: float, seconds: float) -> dict[str, Any]:
    """The report of an open loop at `rate` calls a second; 0: of 50 callers in closed loop."""
    arguments = ("-m", "tests.faults.open_loop", OTHERS_CPU, str(port), str(rate), str(seconds), DEADLINE)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    found: dict[str, Any] = json.loads(output)
    return found


class Health:
    """Polls `/healthz` and `/readyz` ten times a second, with Kubernetes' default timeout of a second."""

    def __init__(self, admin_port: int) -> None:
        self._address = f"http://127.0.0.1:{admin_port}"
        self.answers = 0
        self.bad: list[str] = []

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._ask())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _ask(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=1.0) as browser:
            while True:
                for path in ("/healthz", "/readyz"):
                    try:
                        answer = await browser.get(self._address + path)
                    except httpx.HTTPError as error:
                        self.bad.append(f"{path}: {error!r}")
                    else:
                        self.answers += answer.status_code == 200
                        self.bad += [f"{path}: {answer.text}"] if answer.status_code != 200 else []
                await asyncio.sleep(0.1)


def resident_mib(pid: int) -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


@pytest.mark.alone
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("factors", "seconds", "share", "refused_ms", "late"), RUNS)
async def test_goodput_at_ten_times_the_capacity_stays_at_its_best_and_refusals_are_quick(  # noqa: PLR0917 - of RUNS
    tmp_path: Path, factors: tuple[int, ...], seconds: float, share: float, refused_ms: float, late: float
) -> None:
    """Few calls miss their deadline, the health endpoints answer 200, and memory stays flat."""
    async with cloud() as port:
        gateway = GatewayProcess(tmp_path, port, HOST_LIMITER)
        gateway.prefix = ("taskset", "-c", GATEWAY_CPU)
        async with gateway:
            capacity = (await offered(gateway.port, 0, min(seconds, 5.0)))["goodput"]
            if capacity < 100:
                pytest.skip(f"the machine is too busy to measure on: {capacity:.0f} of 200 calls a second")
            await offered(gateway.port, 10 * capacity, 2.0)
            before, health, results = resident_mib(gateway.pid), Health(gateway.admin_port), {}
            async with health.watched():
                for factor in factors:
                    results[factor] = await offered(gateway.port, factor * capacity, seconds)
            grown = resident_mib(gateway.pid) - before
    lines = [f"{factor}x: {result}" for factor, result in results.items()]
    report = "\n".join([f"capacity {capacity:.0f}/s, {grown:+.1f} MiB, {health.answers} healthy probes", *lines])
    print(f"\n{report}")  # noqa: T201 - the figures
    assert health.bad == [], report
    goodput = [result["goodput"] for result in results.values()]
    assert goodput[-1] >= share * max(capacity, *goodput), report
    assert results[10]["outcomes"].get("late", 0) <= late * results[10]["made"], report
    assert max(result["refused p99 ms"] for result in results.values()) < refused_ms, report
    assert grown < 30, report
