"""A service of the realistic day that calls a gRPC service by its stub: it makes jobs, and polls or watches them.

The service's port and `poll` or `watch` are the arguments. Lines of standard input as of `day_sdk.py`; one that watches
begins at once, and answers with how many messages came.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from typing import TYPE_CHECKING

import grpc

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import (
    CreatePreviewJobRequest,
    GetPreviewJobRequest,
    WatchPreviewJobRequest,
)
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub as Stub

BUCKET = "docs-1250000000"
PAGES = 30
EVERY_SECONDS = 2.0
CALL_SECONDS = 30.0


def is_whole(job: PreviewJob) -> bool:
    """Whether the job has ended, and with all of its pages."""
    if job.state != PreviewJob.STATE_SUCCESS:
        return False
    assert len(job.result.pages) == PAGES
    return True


async def make(stub: Stub, number: str) -> None:
    request = CreatePreviewJobRequest(bucket=BUCKET, input_object=f"in/{number}.pptx", request_id=str(uuid.uuid4()))
    request.output.object = f"out/{number}/${{Number}}.jpg"
    job: PreviewJob = await stub.CreatePreviewJob(request, timeout=CALL_SECONDS)
    print(f"made {job.job_id}", flush=True)


async def poll(stub: Stub, job_id: str, seconds: float) -> int:
    loop = asyncio.get_running_loop()
    request, due, polls = GetPreviewJobRequest(bucket=BUCKET, job_id=job_id), loop.time() + seconds, 0
    while True:
        await asyncio.sleep(due - loop.time())
        polls += 1
        if is_whole(await stub.GetPreviewJob(request, timeout=CALL_SECONDS)):
            return polls
        due += EVERY_SECONDS


async def watch(stub: Stub, job_id: str, _seconds: float) -> int:
    request, messages = WatchPreviewJobRequest(bucket=BUCKET, job_id=job_id), 0
    async for message in stub.WatchPreviewJob(request):
        messages += 1
        if is_whole(message.job):
            return messages
    raise SystemExit(f"bench: the watch of {job_id} ended before its job")


async def follow(way: Callable[[Stub, str, float], Awaitable[int]], stub: Stub, job_id: str, seconds: str) -> None:
    print(f"ended {job_id} {await way(stub, job_id, float(seconds))}", flush=True)


async def main(port: str, way: str) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.TaskGroup() as tasks:
        stub: Stub = PreviewJobServiceStub(channel)
        print("ready", flush=True)
        async for line in lines:
            word, *rest = line.decode().split()
            doing = make(stub, *rest) if word == "make" else follow({"poll": poll, "watch": watch}[way], stub, *rest)
            tasks.create_task(doing)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
