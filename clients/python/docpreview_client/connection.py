"""Connection: an open channel with stubs, call metadata and typed errors."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypeVar

import grpc

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview.v1.preview_queue_service_pb2_grpc import PreviewQueueServiceStub
from docpreview.v1.usage_service_pb2_grpc import UsageServiceStub
from docpreview_client.decoding import errors_of_creates, errors_of_reads

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

Token = str | Callable[[], str] | None


class Connection:
    """A connection; it owns and closes the channel."""

    def __init__(
        self, channel: grpc.aio.Channel, *, token: Token = None, metadata: Callable[[], Mapping[str, str]]
    ) -> None:
        self._channel = channel
        self._token = token
        self._metadata = metadata
        self.jobs = PreviewJobServiceStub(channel)
        self.queues = PreviewQueueServiceStub(channel)
        self.usage = UsageServiceStub(channel)

    async def close(self) -> None:
        """Cancels calls in flight and closes the channel."""
        await self._channel.close()

    async def create(self, request: CreatePreviewJobRequest, seconds: float) -> PreviewJob:
        """Makes one attempt of a create, with the errors of creates."""
        with errors_of_creates():
            return await self.jobs.CreatePreviewJob(request, timeout=seconds, metadata=self.metadata())

    async def read(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        *,
        timeout: timedelta,  # noqa: ASYNC109 - the deadline has to reach the gateway
    ) -> _Response:
        """Makes one read, with the errors of reads."""
        with errors_of_reads():
            return await method(request, timeout=timeout.total_seconds(), metadata=self.metadata())

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of the next call."""
        pairs = dict(self._metadata())
        if self._token is not None:
            token = self._token if isinstance(self._token, str) else self._token()
            pairs["authorization"] = f"Bearer {token}"
        return tuple(pairs.items())
