"""A service of the realistic day that watches, by the asyncio stub of a gRPC service.

The port is the argument; the lines of standard input are those of `day_poller.py`, but a watch begins at once.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import grpc

from day_poller import CALL_SECONDS, PAGES, create_request, pages
from docpreview.v1.preview_job_service_pb2 import WatchPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from sdk_caller import BUCKET

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub as Stub


async def make(stub: Stub, number: str) -> None:
    job: PreviewJob = await stub.CreatePreviewJob(create_request(number), timeout=CALL_SECONDS)
    print(f"made {job.job_id}", flush=True)


async def watch(stub: Stub, job_id: str) -> None:
    async for message in stub.WatchPreviewJob(WatchPreviewJobRequest(bucket=BUCKET, job_id=job_id)):
        if number := pages(message.job):
            assert number == PAGES, number
            print(f"ended {job_id}", flush=True)
            return
    raise SystemExit(f"bench: the watch of {job_id} ended before its job")


async def main(port: str) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.TaskGroup() as tasks:
        stub: Stub = PreviewJobServiceStub(channel)
        print("ready", flush=True)
        async for line in lines:
            word, subject, *_ = line.decode().split()
            tasks.create_task(make(stub, subject) if word == "make" else watch(stub, subject))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
