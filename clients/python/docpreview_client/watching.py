"""Watch of one job over as many streams as necessary.

A stream ends for reasons that have nothing to do with the job: the gateway is stopping, the stream has been open for
long, the connection broke. Since every stream begins with the present state, opening another loses nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, TypeAlias

import grpc

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import WatchPreviewJobRequest, WatchPreviewJobResponse
from docpreview_client.deadline import Deadline
from docpreview_client.decoding import errors_of_reads
from docpreview_client.errors import Unavailable
from docpreview_client.options import Patience
from docpreview_client.reconnecting import Reconnecting

Stream: TypeAlias = "grpc.aio.UnaryStreamCall[WatchPreviewJobRequest, WatchPreviewJobResponse]"

TERMINAL_STATES: Final = frozenset({PreviewJob.STATE_SUCCESS, PreviewJob.STATE_FAILED, PreviewJob.STATE_CANCELLED})
# After the terminal state nothing but the end of the stream can come.
_END_OF_STREAM_WITHIN: Final = 1.0


class Watch:
    """A watch of one job until its terminal state."""

    def __init__(self, open_stream: Callable[[float], Stream], *, deadline: Deadline, patience: Patience) -> None:
        """`open_stream` opens a stream with a deadline in seconds."""
        self._open_stream = open_stream
        self._deadline = deadline
        self._patience = patience
        self._reconnecting = Reconnecting(deadline, patience=patience.unreachable)
        self._last = PreviewJob()

    async def jobs(self) -> AsyncGenerator[PreviewJob, None]:
        """Yields the job's current state and then each different one."""
        while True:
            try:
                async with aclosing(self._messages()) as messages:
                    async for message in messages:
                        if message.HasField("job") and message.job != self._last:
                            self._last = message.job
                            yield message.job
            except Unavailable as error:
                if self._is_over():
                    return
                await self._reconnecting.pause_after(error)
            else:
                return

    async def _messages(self) -> AsyncGenerator[WatchPreviewJobResponse, None]:
        """One stream's messages, heartbeats included. Cancels the call, since gRPC never frees an abandoned one."""
        stream = self._open_stream(self._deadline.remaining())
        try:
            while (message := await self._next(stream)) is not None:
                self._reconnecting.message_received()
                yield message
        finally:
            stream.cancel()

    async def _next(self, stream: Stream) -> WatchPreviewJobResponse | None:
        idle = _END_OF_STREAM_WITHIN if self._is_over() else self._patience.idle.total_seconds()
        try:
            async with asyncio.timeout(idle):
                with errors_of_reads():
                    message = await stream.read()
        except TimeoutError:
            raise Unavailable(
                f"No message from the gateway for {idle:g} seconds.", code=grpc.StatusCode.UNAVAILABLE
            ) from None
        return message if isinstance(message, WatchPreviewJobResponse) else None

    def _is_over(self) -> bool:
        return self._last.state in TERMINAL_STATES
