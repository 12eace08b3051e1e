"""What a watch keeps in Python while nothing happens, without gRPC's own part."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import WatchPreviewJobRequest, WatchPreviewJobResponse
from docpreview_gateway.model.call import Method
from docpreview_gateway.rpc.handlers import Handlers, Route
from docpreview_gateway.rpc.streams import Streams
from tests.fakes.telemetry import FakeTelemetry
from tests.unit.conftest import BUCKET, QUICK, Office
from tests.unit.rpc.conftest import SERVICE

_MESSAGES = WatchPreviewJobRequest, WatchPreviewJobResponse
WATCHES = 200
MOST_BYTES = 5 * 1024
"""Of a watch. It was 3.8 KiB when this was written, and 5 KiB more with a generator for each layer."""

JOB = "d1"
REQUEST = WatchPreviewJobRequest(bucket=BUCKET.name, job_id=JOB).SerializeToString()


class Context:
    """What is used of gRPC's context. `told` is released with each message that is sent."""

    def __init__(self, told: asyncio.Semaphore) -> None:
        self._told = told

    async def read(self) -> bytes:
        return REQUEST

    async def write(self, _message: bytes) -> None:
        self._told.release()

    async def send_initial_metadata(self, _metadata: object) -> None:
        pass

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("user-agent", "grpc-python-asyncio/1.85.1"),)

    def time_remaining(self) -> float:
        return 300.0


async def opened(handler: Any, count: int) -> list[asyncio.Task[None]]:
    """So many watches that have told the job's state and wait for another one."""
    told = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(handler(None, Context(told))) for _ in range(count)]
    for _ in tasks:
        await told.acquire()
    await asyncio.sleep(0.01)
    return tasks


async def test_a_watch_keeps_a_few_kib_and_one_task() -> None:
    """Neither a generator for each layer, nor its request, nor the last message."""
    office = Office(QUICK)
    office.upstream.add_job(BUCKET.name, JOB, PreviewJob.STATE_RUNNING)
    method = Method(SERVICE, "WatchPreviewJob", "server_stream")
    route: Route[Any] = Route(method, WatchPreviewJobRequest, office.jobs.watch, 300.0, waits=True)
    handler = Streams().guarded(Handlers(FakeTelemetry()).handler(route)).stream_stream
    tasks = await opened(handler, 20)
    before = len(asyncio.all_tasks())
    gc.collect()
    others = {id(found) for found in gc.get_objects() if isinstance(found, _MESSAGES)}  # of tests before this one
    tracemalloc.start()
    try:
        tasks += await opened(handler, WATCHES)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(asyncio.all_tasks()) - before == WATCHES
    kept = [found for found in gc.get_objects() if isinstance(found, _MESSAGES) and id(found) not in others]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await office.watching.close()
    assert held / WATCHES < MOST_BYTES
    assert kept == []
