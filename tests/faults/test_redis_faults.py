"""Faults of Redis behind a proxy: no read fails or waits for long, no create is made without a record.

C1 of reliability's table: replies that are late, slow, wrong or missing. The server behind the proxy is real.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Literal, Self

import grpc
import pytest

from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from docpreview_gateway.settings.sections import SharedStateSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, REGION, settings
from tests.integration.test_shared_state import BRIEF, Replica, reads
from tests.unit.rpc.conftest import error_info

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from tests.redis_server import RedisServer

RedisFault = Literal[
    "none", "refused", "silent", "late", "slow", "reset", "loading", "readonly", "full", "garbage", "wrong"
]

REPLIES: dict[str, bytes] = {
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "readonly": b"-READONLY You can't write against a read only replica.\r\n",
    "full": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "garbage": b"\x00\xffHTTP/1.1 200 OK\r\n\r\n",
    "wrong": b"*2\r\n:1\r\n$3\r\nabc\r\n",
}


class FaultyProxy:
    """A proxy to a Redis server; `fault` applies to every reply from now on."""

    def __init__(self, target: int) -> None:
        self.fault: RedisFault = "none"
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._talk(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            while self.fault != "refused" and (request := await reader.read(65536)):
                back.write(request)
                if not await self._answer(await there.read(65536), writer):
                    return
        finally:
            back.close()

    async def _answer(self, answer: bytes, writer: asyncio.StreamWriter) -> bool:
        """Pass a reply on, changed by the fault; False closes the connection."""
        fault = self.fault
        if fault in {"refused", "reset"}:
            writer.write(answer[: len(answer) // 2])
            writer.transport.abort()
            return False
        if fault == "silent":
            await asyncio.sleep(60)
        elif fault == "late":
            await asyncio.sleep(0.5)
        if fault == "slow":
            for at in range(len(answer)):
                writer.write(answer[at : at + 1])
                await asyncio.sleep(0.001)
        else:
            writer.write(REPLIES.get(fault, answer))
        return True


@asynccontextmanager
async def behind(server: RedisServer) -> AsyncIterator[tuple[FaultyProxy, Emulator, Replica]]:
    async with Emulator() as emulator, FaultyProxy(server.port) as proxy:
        emulator.put_object(BUCKET, REGION, "a.pdf", b"%PDF-1.4")
        emulator.hold_jobs()
        state = SharedStateSettings.model_validate({"url": f"redis://127.0.0.1:{proxy.port}/0"})
        async with (
            Gateway(settings(emulator, cache=BRIEF, shared_state=state)) as gateway,
            grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}", options=[("grpc.enable_retries", 0)]) as channel,
        ):
            yield proxy, emulator, Replica(gateway, PreviewJobServiceStub(channel))


@pytest.mark.alone
@pytest.mark.parametrize(
    "fault", ["refused", "silent", "late", "slow", "reset", "loading", "readonly", "full", "garbage", "wrong"]
)
async def test_reads_succeed_and_creates_are_recorded_or_refused_during_a_redis_fault(
    redis_server: RedisServer, fault: RedisFault
) -> None:
    """Reads hardly wait longer; a create with `request_id` is recorded, or refused with LEDGER_UNAVAILABLE."""
    async with behind(redis_server) as (proxy, emulator, replica):
        job_id = await replica.create()
        usual = sorted(await reads(replica, job_id, 60))
        proxy.fault = fault
        times = sorted(await reads(replica, job_id, 200))
        median, worst = times[100] - usual[30], times[197] - usual[58]
        print(f"\n{fault}: reads p50 {1000 * median:+.1f} ms, p99 {1000 * worst:+.1f} ms")  # noqa: T201 - the figures
        assert median < 0.06
        # The gateway's time limit for the cache is 50 ms; the rest allows for a busy machine.
        assert worst < 0.25
        before = emulator.accepted_jobs
        try:
            await replica.create(str(uuid.uuid4()))
        except grpc.aio.AioRpcError as error:
            assert error_info(error).reason == "LEDGER_UNAVAILABLE"  # noqa: PT017 - either is right
            assert emulator.accepted_jobs == before
        else:
            assert fault in {"late", "slow"}
        proxy.fault = "none"
        async with asyncio.timeout(5):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    await replica.create(str(uuid.uuid4()))
                    break
                await asyncio.sleep(0.1)
