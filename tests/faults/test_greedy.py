"""Fairness with a noisy neighbour: one caller of ten offers fifty times the load of the others (A21)."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from tests.faults.gateway_process import BUCKET, GatewayProcess
from tests.faults.test_overload import DEADLINE, GATEWAY_CPU, HOST_LIMITER, OTHERS_CPU, ROOT, cloud
from tests.integration.identity import Policy, bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

USUAL = 5.0
"""Calls a second of each honest caller; together a quarter of the cloud's capacity."""

GREED = 50 * USUAL
RATE = {"per_second": 20, "burst": 20}
_IDS = itertools.count(1)


class Honest:
    """Nine callers at their usual rate; `times` are the latencies of all calls, `failures` the errors."""

    def __init__(self, address: str, policy: Policy) -> None:
        self._address = address
        self._callers = [bearer(token) for name, token in policy.tokens.items() if name != "greedy"]
        self.times: list[float] = []
        self.failures: list[str] = []

    async def call_for(self, seconds: float) -> None:
        self.times, self.failures = [], []
        async with asyncio.TaskGroup() as group:
            for number, metadata in enumerate(self._callers):
                group.create_task(self._one(metadata, number / len(self._callers) / USUAL, seconds))

    async def _one(self, metadata: Any, offset: float, seconds: float) -> None:
        async with grpc.aio.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = PreviewJobServiceStub(channel)
            async with asyncio.TaskGroup() as group:
                for number in range(int(seconds * USUAL)):
                    group.create_task(self._call(stub, metadata, offset + number / USUAL))

    async def _call(self, stub: Any, metadata: Any, delay: float) -> None:
        await asyncio.sleep(delay)
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            request = GetPreviewJobRequest(bucket=BUCKET, job_id=f"d{next(_IDS):031x}")
            await stub.GetPreviewJob(request, timeout=float(DEADLINE), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            self.failures.append(f"{error.code().name} {error.details()}")
        self.times.append(clock() - begun)

    @property
    def p99(self) -> float:
        """99th percentile of the latencies, in milliseconds."""
        return 1000 * sorted(self.times)[int(0.99 * len(self.times))]


@asynccontextmanager
async def greedy(port: int, token: str, seconds: float) -> AsyncIterator[dict[str, Any]]:
    """Run the tenth caller's load generator; the dictionary has its report when the block has ended."""
    arguments = ("-m", "tests.faults.open_loop", OTHERS_CPU, str(port), str(GREED), str(seconds), DEADLINE)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=ROOT,
        env=os.environ | {"OPEN_LOOP_TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
    )
    report: dict[str, Any] = {}
    try:
        yield report
    finally:
        output, _ = await process.communicate()
        report |= json.loads(output)


@pytest.mark.alone
@pytest.mark.timeout(240)
@pytest.mark.parametrize("limits", [pytest.param({"rate": RATE}, id="rates"), pytest.param({}, id="weights")])
@pytest.mark.parametrize("seconds", [6.0, pytest.param(60.0, marks=pytest.mark.soak)])
async def test_one_greedy_caller_of_ten_does_not_make_the_others_fail(
    tmp_path: Path, limits: dict[str, Any], seconds: float
) -> None:
    """Rate limits or fair queueing by weight protect the nine others when the cloud is too slow for all."""
    policy = Policy(tmp_path / "policy.yaml")
    for name in ("greedy", *(f"caller-{number}" for number in range(9))):
        policy.add(name, **limits)
    policy.write()
    async with cloud() as port:
        gateway = GatewayProcess(tmp_path, port, HOST_LIMITER | {"policy": {"file": str(policy.path)}})
        gateway.prefix = ("taskset", "-c", GATEWAY_CPU)
        async with gateway:
            honest = Honest(gateway.address, policy)
            await honest.call_for(seconds / 2)
            alone = honest.p99
            if honest.failures or alone > 500:
                pytest.skip(f"the machine is too busy to measure on: p99 {alone:.0f} ms, {honest.failures[:3]}")
            async with greedy(gateway.port, policy.tokens["greedy"], seconds + 2) as offered:
                await asyncio.sleep(1)
                await honest.call_for(seconds)
    report = f"{len(honest.times)} calls, p99 {honest.p99:.0f} ms, alone {alone:.0f} ms; greedy {offered}"
    print(f"\n{report}")  # noqa: T201 - the figures
    outcomes = offered["outcomes"]
    assert outcomes["refused"] > outcomes["OK"] if limits else outcomes["OK"], report
    assert len(honest.failures) <= 0.001 * len(honest.times), (report, honest.failures)
