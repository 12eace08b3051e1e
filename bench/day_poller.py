"""A service of the realistic day that polls: by the vendor's SDK, or by the blocking stub of a gRPC service.

`sdk` or `grpc` and the port are the arguments. Lines of standard input: `make NUMBER`, answered with `made ID`, and
`follow ID SECONDS`: ask for the job after so many seconds and then every two, answered with `ended ID`. One thread
calls, which is the cheapest way with either. Ends with its standard input.
"""

from __future__ import annotations

import heapq
import queue
import sys
import threading
import time
import uuid
from typing import TYPE_CHECKING, Protocol

import grpc

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from sdk_caller import BUCKET, client

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = 30
EVERY_SECONDS = 2.0
CALL_SECONDS = 30.0


class Jobs(Protocol):
    """The way to the jobs."""

    def make(self, number: str) -> str:
        """Make a job of document `number`. Returns its id."""
        ...

    def pages(self, job_id: str) -> int:
        """The pages of a job that has ended well, 0 of any other."""
        ...


class SdkJobs:
    """By the vendor's SDK."""

    def __init__(self, port: int) -> None:
        self._cloud = client(port, 1)

    def make(self, number: str) -> str:
        reply = self._cloud.ci_create_doc_job(
            Bucket=BUCKET,
            InputObject=f"in/{number}.pptx",
            OutputBucket=BUCKET,
            OutputRegion="ap-chongqing",
            OutputObject=f"out/{number}/${{Number}}.jpg",
        )
        job_id: str = reply["JobsDetail"]["JobId"]
        return job_id

    def pages(self, job_id: str) -> int:
        (job,) = self._cloud.ci_get_doc_job(Bucket=BUCKET, JobID=job_id)["JobsDetail"]
        return len(job["Operation"]["DocProcessResult"]["PageInfo"]) if job["State"] == "Success" else 0


class GrpcJobs:
    """By the stub of a gRPC service."""

    def __init__(self, port: int) -> None:
        self._stub = PreviewJobServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}"))

    def make(self, number: str) -> str:
        job: PreviewJob = self._stub.CreatePreviewJob(create_request(number), timeout=CALL_SECONDS)
        return job.job_id

    def pages(self, job_id: str) -> int:
        request = GetPreviewJobRequest(bucket=BUCKET, job_id=job_id)
        return pages(self._stub.GetPreviewJob(request, timeout=CALL_SECONDS))


def create_request(number: str) -> CreatePreviewJobRequest:
    """As the clients make it: one that may be repeated."""
    request = CreatePreviewJobRequest(bucket=BUCKET, input_object=f"in/{number}.pptx", request_id=str(uuid.uuid4()))
    request.output.object = f"out/{number}/${{Number}}.jpg"
    return request


def pages(job: PreviewJob) -> int:
    """The pages of a job that has ended well, 0 of any other."""
    return len(job.result.pages) if job.state == PreviewJob.STATE_SUCCESS else 0


def serve(jobs: Jobs, lines: queue.SimpleQueue[str]) -> None:
    """Do what the lines of standard input say, and poll meanwhile; an empty line is the end."""
    due: list[tuple[float, str]] = []
    while True:
        try:
            line = lines.get(timeout=max(0.0, due[0][0] - time.monotonic()) if due else None)
        except queue.Empty:
            at, job_id = heapq.heappop(due)
            if not (number := jobs.pages(job_id)):
                heapq.heappush(due, (at + EVERY_SECONDS, job_id))
                continue
            assert number == PAGES, number
            print(f"ended {job_id}", flush=True)
            continue
        match line.split():
            case ["make", number_of_document]:
                print(f"made {jobs.make(number_of_document)}", flush=True)
            case ["follow", job_id, seconds]:
                heapq.heappush(due, (time.monotonic() + float(seconds), job_id))
            case _:
                return


WAYS: dict[str, Callable[[int], Jobs]] = {"sdk": SdkJobs, "grpc": GrpcJobs}


def main(way: str, port: int) -> None:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    service = threading.Thread(target=serve, args=(WAYS[way](port), lines), daemon=True)
    service.start()
    print("ready", flush=True)
    for line in sys.stdin:
        lines.put(line)
    lines.put("")
    service.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
