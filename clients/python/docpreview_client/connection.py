"""Connection: an open channel with stubs, call metadata and typed errors."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, TypeVar

import grpc

from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview.v1.preview_queue_service_pb2_grpc import PreviewQueueServiceStub
from docpreview.v1.upload_service_pb2_grpc import UploadServiceStub
from docpreview.v1.usage_service_pb2_grpc import UsageServiceStub
from docpreview_client.call import Call
from docpreview_client.decoding import errors_of_reads
from docpreview_client.errors import DeadlineExceeded, Unavailable, is_drain
from docpreview_client.retries import Pauses
from docpreview_client.tokens import TokenSource, asked

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_LONGEST_PAUSE_OF_DRAINS: Final = 1.0


class Connection:
    """A connection; it owns and closes the channel."""

    def __init__(
        self, channel: grpc.aio.Channel, *, token: TokenSource | None, metadata: Callable[[], Mapping[str, str]]
    ) -> None:
        self._channel = channel
        self._token = token
        self._metadata = metadata
        self.jobs = PreviewJobServiceStub(channel)
        self.queues = PreviewQueueServiceStub(channel)
        self.uploads = UploadServiceStub(channel)
        self.usage = UsageServiceStub(channel)

    async def close(self) -> None:
        """Cancels calls in flight and closes the channel."""
        await self._channel.close()

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        call: Call,
        *,
        errors: Callable[[], AbstractContextManager[None]] = errors_of_reads,
    ) -> _Response:
        """Makes one call. While every address drains it waits, as nothing was sent and another replica comes soon."""
        pauses = Pauses(longest=_LONGEST_PAUSE_OF_DRAINS)
        drain: Unavailable | None = None
        while True:
            try:
                with errors():
                    return await self._attempt(method, request, call)
            except Unavailable as error:
                pause = pauses.after()
                if not is_drain(error) or pause >= call.deadline.remaining():
                    raise
                drain = error
            except DeadlineExceeded as error:
                raise (error if error.reason else drain or error) from error.__cause__
            await asyncio.sleep(pause)

    async def metadata(self, call: Call) -> tuple[tuple[str, str], ...]:
        """The metadata of the next attempt of a call.

        Raises:
            DeadlineExceeded: The deadline has passed meanwhile; nothing was sent.
        """
        pairs = {**self._metadata(), **call.metadata}
        if self._token is not None:
            async with call.deadline.bounding():
                pairs["authorization"] = f"Bearer {await asked(self._token)}"
            call.deadline.check()
        return tuple(pairs.items())

    async def _attempt(
        self, method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, call: Call
    ) -> _Response:
        metadata = await self.metadata(call)
        rpc = method(request, timeout=call.deadline.remaining(), metadata=metadata)
        try:
            reply = await rpc
        except grpc.aio.AioRpcError as error:
            call.received(error.initial_metadata(), error.trailing_metadata())
            raise
        if call.reply_metadata is not None:
            call.received(await rpc.initial_metadata(), await rpc.trailing_metadata())
        return reply
