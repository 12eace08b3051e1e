"""Callers that cancel at any moment: afterwards no permit, task, descriptor or memory is leaked."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import sys
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from docpreview.v1.preview_job_service_pb2 import (
    GetPreviewJobRequest,
    WaitPreviewJobRequest,
    WatchPreviewJobRequest,
)
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from docpreview_emulator import Settings as EmulatorSettings
from docpreview_gateway.settings.upstream import ConcurrencySettings
from docpreview_gateway.upstream.http_pool import MAX_CONNECTIONS
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub

CONNECTIONS = 4
CALLERS = 60
PATIENCE_SECONDS = 0.06
"""Upper bound of the random time until most callers cancel; the cloud answers within half of it."""

WHOLE_POOL = ConcurrencySettings(initial=MAX_CONNECTIONS, lowest=MAX_CONNECTIONS, highest=MAX_CONNECTIONS)
"""Size of the pool: as many concurrent cloud calls as connections, however the cloud answers."""

RECONCILE_SECONDS = 20.0
SLOW_ANSWER_SECONDS = 1.0


@dataclass
class Leftovers:
    """Resources that the process holds when no call is in flight."""

    tasks: int
    descriptors: int
    resident_mib: float


@dataclass
class Scene:
    """A slow cloud without jobs, so that each read of a new id reaches it, and connections to a gateway."""

    emulator: Emulator
    stubs: list[PreviewJobServiceAsyncStub]
    ids: itertools.count[int]
    cancelled: int = 0
    answered: int = 0

    def cloud_answers_after(self, seconds: float) -> None:
        self.emulator.clear_faults()
        self.emulator.add_fault("latency", "get", times=None, seconds=seconds)

    async def get(self) -> grpc.StatusCode:
        """The status of reading a job that does not exist."""
        number = next(self.ids)
        request = GetPreviewJobRequest(bucket=BUCKET, job_id=f"d{number:032x}")
        try:
            await self.stubs[number % CONNECTIONS].GetPreviewJob(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def use_every_connection_of_the_pool(self) -> None:
        """Assert that as many reads as the pool has connections can be in flight."""
        self.cloud_answers_after(SLOW_ANSWER_SECONDS)
        loop = asyncio.get_running_loop()
        for _ in range(5):
            begin = loop.time()
            codes = await asyncio.gather(*(self.get() for _ in range(MAX_CONNECTIONS)))
            # Right after many cancellations gRPC itself refuses some streams (UNAVAILABLE) until it has cleaned up.
            if set(codes) == {grpc.StatusCode.NOT_FOUND} and loop.time() - begin < 2 * SLOW_ANSWER_SECONDS:
                return
        pytest.fail(f"connections of the pool are lost: {Counter(codes)} after {loop.time() - begin:.1f} s")

    async def churn(self, seconds: float, seed: int) -> None:
        """Run callers that read, wait and watch, and cancel at random moments."""
        self.cloud_answers_after(PATIENCE_SECONDS / 2)
        end = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(self._caller(random.Random(seed + number), end) for number in range(CALLERS)))  # noqa: S311 - a repeatable choice of moments

    async def _caller(self, rng: random.Random, end: float) -> None:
        kinds: tuple[Callable[[PreviewJobServiceAsyncStub, str], object], ...] = (_read, _wait, _watch)
        while asyncio.get_running_loop().time() < end:
            number = next(self.ids)
            # Half of the jobs have several callers, so that they share pollers and leave them one by one.
            job_id = f"d{number if rng.random() < 0.5 else number // 8:032x}"
            call = asyncio.ensure_future(rng.choice(kinds)(self.stubs[number % CONNECTIONS], job_id))  # type: ignore[call-overload]
            # One in ten waits longer, so that some are answered on a busy machine, too.
            patience = 1.0 if rng.random() < 0.1 else rng.random() * PATIENCE_SECONDS
            await asyncio.wait((call,), timeout=patience)
            self.cancelled += call.cancel()
            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await call
            self.answered += not call.cancelled()

    async def leftovers(self, at_most: Leftovers | None = None) -> Leftovers:
        """The resources once they are no more than `at_most`, or after a time-out."""
        loop = asyncio.get_running_loop()
        end = loop.time() + RECONCILE_SECONDS
        while True:
            found = Leftovers(len(asyncio.all_tasks()), _descriptors(), _resident_mib())
            enough = at_most is None or (found.tasks <= at_most.tasks and found.descriptors <= at_most.descriptors)
            if enough or loop.time() > end:
                return found
            await asyncio.sleep(0.1)


async def _read(stub: PreviewJobServiceAsyncStub, job_id: str) -> None:
    await stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id=job_id), timeout=30)


async def _wait(stub: PreviewJobServiceAsyncStub, job_id: str) -> None:
    await stub.WaitPreviewJob(WaitPreviewJobRequest(bucket=BUCKET, job_id=job_id), timeout=30)


async def _watch(stub: PreviewJobServiceAsyncStub, job_id: str) -> None:
    async for _ in stub.WatchPreviewJob(WatchPreviewJobRequest(bucket=BUCKET, job_id=job_id), timeout=30):
        pass


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _resident_mib(process: int | str = "self") -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


@asynccontextmanager
async def slow_cloud() -> AsyncIterator[Emulator]:
    async with Emulator(settings=EmulatorSettings(record_limit=100)) as emulator:
        yield emulator


@asynccontextmanager
async def scene(emulator: Emulator, port: int) -> AsyncIterator[Scene]:
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with AsyncExitStack() as stack:
        channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(CONNECTIONS)]
        stubs = [PreviewJobServiceStub(await stack.enter_async_context(channel)) for channel in channels]
        yield Scene(emulator, stubs, itertools.count(1))


@pytest.mark.alone
@pytest.mark.parametrize(
    "seconds", [pytest.param(5, id="briefly"), pytest.param(60, id="for-a-minute", marks=pytest.mark.long)]
)
async def test_random_cancellations_leave_no_tasks_descriptors_or_pollers_behind(seconds: float) -> None:
    """Afterwards the gateway can use its whole pool."""
    async with (
        slow_cloud() as emulator,
        Gateway(settings(emulator, concurrency=WHOLE_POOL)) as gateway,
        scene(emulator, gateway.port) as stage,
    ):
        await stage.churn(1, seed=0)  # code, pools of memory and connections as they are under load
        await stage.use_every_connection_of_the_pool()
        before = await stage.leftovers()
        stage.cancelled = stage.answered = 0

        await stage.churn(seconds, seed=1)
        assert stage.cancelled > 20 * seconds
        assert stage.answered > 0
        await stage.use_every_connection_of_the_pool()

        after = await stage.leftovers(at_most=before)
        assert after.tasks <= before.tasks
        assert after.descriptors <= before.descriptors
        assert gateway.registry.get_sample_value("docpreview_pollers") == 0
        assert gateway.registry.get_sample_value("docpreview_watchers") == 0
        sys.stderr.write(f"{stage.cancelled} cancelled, {stage.answered} answered; {before} -> {after}\n")


@pytest.mark.long
async def test_cancelled_calls_leave_no_memory_behind_in_the_command(tmp_path: Path) -> None:
    """Resident memory after a minute of cancelled calls is that after ten seconds of them.

    The gateway is a process of its own, because gRPC's client leaks memory per cancelled call (grpc issue 43462).
    """
    async with slow_cloud() as emulator, command(emulator, tmp_path) as (process, port), scene(emulator, port) as stage:
        await stage.churn(10, seed=0)
        before, cancelled = _resident_mib(process), stage.cancelled
        await stage.churn(50, seed=1)
        grown = _resident_mib(process) - before
        calls = stage.cancelled - cancelled
        sys.stderr.write(f"{grown:.1f} MiB more than {before:.1f} after {calls} cancelled calls\n")
        assert grown < 12


@asynccontextmanager
async def command(emulator: Emulator, directory: Path) -> AsyncIterator[tuple[int, int]]:
    """`docpreview-gateway serve`: the id of its process and its gRPC port."""
    config = directory / "gateway.yaml"
    given = settings(emulator, concurrency=WHOLE_POOL).model_dump(mode="json", exclude={"credentials"})
    keys = {"secret_id": "example-secret-id", "secret_key": "EXAMPLEsecretKEY00000000000000000"}
    config.write_text(json.dumps({**given, "credentials": {"main": keys}, "logging": {"format": "json"}}))
    program = Path(sys.executable).with_name("docpreview-gateway")
    process = await asyncio.create_subprocess_exec(program, "serve", "--config", config, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        first = await asyncio.wait_for(process.stderr.readline(), 30)
        yield process.pid, int(json.loads(first)["grpc_port"])
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), 30)
