"""An honest caller beside an attacker: whether it is served, and for how long it is not."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

import grpc

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub

if TYPE_CHECKING:
    from types import TracebackType

OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    # As the clients of this repository; but without their retries.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.enable_retries", 0),
]


class HonestCaller:
    """Calls all the time, on one connection and on new ones: `async with HonestCaller(address, bucket) as caller`."""

    def __init__(self, address: str, bucket: str, *, pause: float = 0.01) -> None:
        self._address, self._bucket, self._pause = address, bucket, pause
        self._tasks: list[asyncio.Task[None]] = []
        self.longest = 0.0
        """Most seconds between two calls that were served, on one connection or over new ones."""
        self.served = self.failed = 0
        self.codes: set[grpc.StatusCode] = set()
        """Of the calls that failed."""

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call(fresh=fresh)) for fresh in (False, True)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _call(self, *, fresh: bool) -> None:
        last = time.monotonic()
        channel = grpc.aio.insecure_channel(self._address, OPTIONS)
        try:
            while True:
                if fresh:
                    await channel.close()
                    channel = grpc.aio.insecure_channel(self._address, OPTIONS)
                code = await self._code(channel)
                # No such job: the answer of a healthy gateway.
                if code == grpc.StatusCode.NOT_FOUND:
                    self.longest, last = max(self.longest, time.monotonic() - last), time.monotonic()
                    self.served += 1
                else:
                    self.longest = max(self.longest, time.monotonic() - last)
                    self.failed += 1
                    self.codes.add(code)
                await asyncio.sleep(self._pause)
        finally:
            await channel.close()

    async def _code(self, channel: grpc.aio.Channel) -> grpc.StatusCode:
        request = GetPreviewJobRequest(bucket=self._bucket, job_id="d" + "1" * 32)
        return await PreviewJobServiceStub(channel).GetPreviewJob(request, timeout=10).code()
