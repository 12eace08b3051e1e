"""A gateway that answers what a test tells it to, and records what it was asked.

It is gRPC's threaded server on purpose: the client under test has the only event loop of the process.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import (
    BatchGetPreviewJobsRequest,
    BatchGetPreviewJobsResponse,
    CreatePreviewJobRequest,
    GetPreviewJobRequest,
    ListPreviewJobsRequest,
    ListPreviewJobsResponse,
    WaitPreviewJobRequest,
    WatchPreviewJobRequest,
    WatchPreviewJobResponse,
    WatchPreviewJobsRequest,
    WatchPreviewJobsResponse,
)
from docpreview.v1.preview_job_service_pb2_grpc import (
    PreviewJobServiceServicer,
    add_PreviewJobServiceServicer_to_server,
)
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, ListPreviewQueuesResponse
from docpreview.v1.preview_queue_service_pb2_grpc import (
    PreviewQueueServiceServicer,
    add_PreviewQueueServiceServicer_to_server,
)
from docpreview.v1.upload_service_pb2 import (
    AbortUploadRequest,
    AbortUploadResponse,
    CompleteUploadRequest,
    CreateUploadRequest,
    Upload,
    UploadedObject,
)
from docpreview.v1.upload_service_pb2_grpc import UploadServiceServicer, add_UploadServiceServicer_to_server
from docpreview.v1.usage_service_pb2 import GetUsageRequest, Usage
from docpreview.v1.usage_service_pb2_grpc import UsageServiceServicer, add_UsageServiceServicer_to_server

SERVICE = "docpreview.v1.PreviewJobService"
PATIENCE = 10.0


@dataclass(frozen=True)
class Failure:
    """An answer that is an error."""

    code: grpc.StatusCode
    message: str = "scripted"
    details: tuple[Message, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()


class Silence:
    """An answer that never comes: the call stays open until the client lets go of it."""


@dataclass
class Call:
    """What the gateway was asked."""

    method: str
    request: Any
    metadata: dict[str, str]
    seconds: float
    ended: threading.Event = field(default_factory=threading.Event)


class FakeGateway(PreviewJobServiceServicer, PreviewQueueServiceServicer, UploadServiceServicer, UsageServiceServicer):
    """Give it answers with `will`; the last answer of a method is repeated. A watch's answer is a list of steps.

    An answer that is a function is called with the request. Replies carry `reply_metadata`.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.reply_metadata: tuple[tuple[str, str], ...] = ()
        self._answers: dict[str, list[Any]] = defaultdict(list)
        self._lock = threading.Lock()
        self._called = threading.Condition(self._lock)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0), ("grpc.max_metadata_size", 65536)]
        )
        add_PreviewJobServiceServicer_to_server(self, self._server)
        add_PreviewQueueServiceServicer_to_server(self, self._server)
        add_UploadServiceServicer_to_server(self, self._server)
        add_UsageServiceServicer_to_server(self, self._server)
        self.health = health.HealthServicer()
        self.health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.target = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Cuts all calls off and frees the port."""
        self._server.stop(0).wait(PATIENCE)

    def will(self, method: str, *answers: Any) -> None:
        """Scripts the answers of a method, in their order."""
        self._answers[method] = list(answers)

    def asked(self, method: str) -> list[Any]:
        """The requests of a method so far."""
        return [call.request for call in self.calls if call.method == method]

    def call(self, method: str, number: int = 1) -> Call:
        """The n-th call of a method, waited for."""
        with self._called:
            self._called.wait_for(lambda: len(self._of(method)) >= number, PATIENCE)
            return self._of(method)[number - 1]

    def _of(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    def _begin(self, method: str, request: Any, context: Any) -> tuple[Call, Any]:
        metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        call = Call(method, request, metadata, context.time_remaining())
        context.add_callback(call.ended.set)
        with self._called:
            self.calls.append(call)
            answers = self._answers[method]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            self._called.notify_all()
        return call, answer

    def _unary(self, method: str, request: Any, context: Any) -> Any:
        call, answer = self._begin(method, request, context)
        if self.reply_metadata:  # after it gRPC repeats no call
            context.send_initial_metadata(self.reply_metadata)
        return self._perform(call, answer, context)

    def _perform(self, call: Call, answer: Any, context: Any) -> Any:
        if isinstance(answer, Failure):
            _fail(answer, context)
        if callable(answer):
            return self._perform(call, answer(call.request), context)
        if isinstance(answer, Silence):
            call.ended.wait(PATIENCE)
            context.abort(grpc.StatusCode.INTERNAL, "the client has gone")
        return answer

    def CreatePreviewJob(self, request: CreatePreviewJobRequest, context: Any) -> PreviewJob:  # noqa: N802
        job: PreviewJob = self._unary("CreatePreviewJob", request, context)
        return job

    def GetPreviewJob(self, request: GetPreviewJobRequest, context: Any) -> PreviewJob:  # noqa: N802
        job: PreviewJob = self._unary("GetPreviewJob", request, context)
        return job

    def BatchGetPreviewJobs(  # noqa: N802
        self, request: BatchGetPreviewJobsRequest, context: Any
    ) -> BatchGetPreviewJobsResponse:
        response: BatchGetPreviewJobsResponse = self._unary("BatchGetPreviewJobs", request, context)
        return response

    def ListPreviewJobs(self, request: ListPreviewJobsRequest, context: Any) -> ListPreviewJobsResponse:  # noqa: N802
        response: ListPreviewJobsResponse = self._unary("ListPreviewJobs", request, context)
        return response

    def WaitPreviewJob(self, request: WaitPreviewJobRequest, context: Any) -> PreviewJob:  # noqa: N802
        job: PreviewJob = self._unary("WaitPreviewJob", request, context)
        return job

    def WatchPreviewJob(  # noqa: N802
        self, request: WatchPreviewJobRequest, context: Any
    ) -> Iterator[WatchPreviewJobResponse]:
        call, steps = self._begin("WatchPreviewJob", request, context)
        for step in steps:
            answer = self._perform(call, step, context)
            yield WatchPreviewJobResponse(job=answer) if isinstance(answer, PreviewJob) else answer

    def WatchPreviewJobs(  # noqa: N802
        self, request: WatchPreviewJobsRequest, context: Any
    ) -> Iterator[WatchPreviewJobsResponse]:
        call, steps = self._begin("WatchPreviewJobs", request, context)
        for step in steps:
            answer = self._perform(call, step, context)
            yield WatchPreviewJobsResponse(job=answer) if isinstance(answer, PreviewJob) else answer

    def CreateUpload(self, request: CreateUploadRequest, context: Any) -> Upload:  # noqa: N802
        upload: Upload = self._unary("CreateUpload", request, context)
        return upload

    def CompleteUpload(self, request: CompleteUploadRequest, context: Any) -> UploadedObject:  # noqa: N802
        uploaded: UploadedObject = self._unary("CompleteUpload", request, context)
        return uploaded

    def AbortUpload(self, request: AbortUploadRequest, context: Any) -> AbortUploadResponse:  # noqa: N802
        response: AbortUploadResponse = self._unary("AbortUpload", request, context)
        return response

    def ListPreviewQueues(  # noqa: N802
        self, request: ListPreviewQueuesRequest, context: Any
    ) -> ListPreviewQueuesResponse:
        response: ListPreviewQueuesResponse = self._unary("ListPreviewQueues", request, context)
        return response

    def GetUsage(self, request: GetUsageRequest, context: Any) -> Usage:  # noqa: N802
        usage: Usage = self._unary("GetUsage", request, context)
        return usage


def _fail(failure: Failure, context: Any) -> None:
    status = status_pb2.Status(code=failure.code.value[0], message=failure.message)
    for detail in failure.details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    details = (("grpc-status-details-bin", status.SerializeToString()),) if failure.details else ()
    context.set_trailing_metadata((*details, *failure.metadata))
    context.abort(failure.code, failure.message)
