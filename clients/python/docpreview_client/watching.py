"""Watches of one job, or of many, over as many streams as necessary.

A stream ends for reasons that have nothing to do with the jobs: the gateway is stopping, the stream has been open for
long, the connection broke. Since every stream begins with the present states, opening another loses nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import (
    WatchPreviewJobRequest,
    WatchPreviewJobResponse,
    WatchPreviewJobsRequest,
    WatchPreviewJobsResponse,
)
from docpreview_client.call import Call
from docpreview_client.connection import Connection
from docpreview_client.decoding import errors_of_reads
from docpreview_client.errors import Unavailable
from docpreview_client.options import Patience
from docpreview_client.reconnecting import Reconnecting
from docpreview_client.stream_connections import StreamConnections

_Message = TypeVar("_Message")

TERMINAL_STATES: Final = frozenset({PreviewJob.STATE_SUCCESS, PreviewJob.STATE_FAILED, PreviewJob.STATE_CANCELLED})
MOST_JOBS: Final = 1000
"""Jobs of one stream, the gateway's maximum."""
# After the terminal state nothing but the end of the stream can come.
_END_OF_STREAM_WITHIN: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """A job of `watch_many` that is not followed any longer.

    Attributes:
        job_id: Id of the job.
        reason: Name of an `ErrorReason` without `ERROR_REASON_`, for example `JOB_NOT_FOUND`.
        message: The gateway's sentence.
    """

    job_id: str
    reason: str
    message: str


JobEvent: TypeAlias = PreviewJob | JobError


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """What all watches of a client need."""

    connections: StreamConnections
    patience: Patience
    call: Call


class _Streams(Generic[_Message]):
    """The messages of one stream after the other, heartbeats included, until `is_over` or a stream ends by itself."""

    def __init__(
        self,
        watching: Watching,
        method: Callable[[Connection], Any],
        *,
        request: Callable[[], Any],
        is_over: Callable[[], bool],
    ) -> None:
        """`method` is the streaming method of a connection; `request` is asked before each stream."""
        self._watching = watching
        self._method = method
        self._request = request
        self._is_over = is_over
        self._reconnecting = Reconnecting(watching.call.deadline, patience=watching.patience.unreachable)

    async def messages(self) -> AsyncGenerator[_Message, None]:
        while True:
            try:
                async with aclosing(self._of_one_stream()) as messages:
                    async for message in messages:
                        yield message
            except Unavailable as error:
                if self._is_over():
                    return
                await self._reconnecting.pause_after(error)
            else:
                return

    async def _of_one_stream(self) -> AsyncGenerator[_Message, None]:
        """Cancels the call at the end, since gRPC never frees an abandoned one."""
        call = self._watching.call
        with self._watching.connections.place() as connection:
            metadata = await connection.metadata(call)
            stream = self._method(connection)(self._request(), timeout=call.deadline.remaining(), metadata=metadata)
            try:
                while (message := await self._next(stream)) is not None:
                    self._reconnecting.message_received()
                    yield message
            finally:
                stream.cancel()

    async def _next(self, stream: Any) -> _Message | None:  # noqa: ANN401 - a call of gRPC, of either method
        idle = _END_OF_STREAM_WITHIN if self._is_over() else self._watching.patience.idle.total_seconds()
        try:
            async with asyncio.timeout(idle):
                with errors_of_reads():
                    message: _Message = await stream.read()
        except TimeoutError:
            raise Unavailable(
                f"No message from the gateway for {idle:g} seconds.", code=grpc.StatusCode.UNAVAILABLE
            ) from None
        if self._watching.call.reply_metadata is not None:
            self._watching.call.received(await stream.initial_metadata())
        return None if message is grpc.aio.EOF else message


async def watch(watching: Watching, request: WatchPreviewJobRequest) -> AsyncGenerator[PreviewJob, None]:
    """Yields the job's current state and then each different one."""
    last = PreviewJob()
    streams = _Streams[WatchPreviewJobResponse](
        watching,
        lambda connection: connection.jobs.WatchPreviewJob,
        request=lambda: request,
        is_over=lambda: last.state in TERMINAL_STATES,
    )
    async with aclosing(streams.messages()) as messages:
        async for message in messages:
            if message.HasField("job") and message.job != last:
                last = message.job
                yield last


async def watch_many(
    watching: Watching, bucket: str, job_ids: Sequence[str], *, page_url_ttl: Duration | None
) -> AsyncGenerator[JobEvent, None]:
    """Yields the events of all jobs; more than `MOST_JOBS` are split over several streams."""
    if isinstance(job_ids, str):
        raise TypeError("job_ids must be several ids, not a text")
    ids = list(dict.fromkeys(job_ids))
    requests = [
        WatchPreviewJobsRequest(bucket=bucket, job_ids=ids[begin : begin + MOST_JOBS], page_url_ttl=page_url_ttl)
        for begin in range(0, len(ids), MOST_JOBS)
    ]
    async with aclosing(_merged([_events(watching, request) for request in requests])) as events:
        async for event in events:
            yield event


async def _events(watching: Watching, request: WatchPreviewJobsRequest) -> AsyncGenerator[JobEvent, None]:
    """Yields the events of the jobs of one request. Later streams ask for those whose end has not come."""
    last: dict[str, PreviewJob] = {}
    left = dict.fromkeys(request.job_ids)

    def request_of_those_left() -> WatchPreviewJobsRequest:
        return WatchPreviewJobsRequest(bucket=request.bucket, job_ids=left, page_url_ttl=_ttl_of(request))

    streams = _Streams[WatchPreviewJobsResponse](
        watching,
        lambda connection: connection.jobs.WatchPreviewJobs,
        request=request_of_those_left,
        is_over=lambda: not left,
    )
    async with aclosing(streams.messages()) as messages:
        async for message in messages:
            if message.HasField("error") and message.error.job_id in left:
                del left[message.error.job_id]
                yield _error(message.error)
            elif message.HasField("job") and message.job.job_id in left:
                job = message.job
                if job.state in TERMINAL_STATES:
                    del left[job.job_id]
                if job != last.get(job.job_id):
                    last[job.job_id] = job
                    yield job


def _ttl_of(request: WatchPreviewJobsRequest) -> Duration | None:
    return request.page_url_ttl if request.HasField("page_url_ttl") else None


def _error(error: WatchPreviewJobsResponse.JobError) -> JobError:
    known = error.reason in ErrorReason.values()
    reason = ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_") if known else ""
    return JobError(job_id=error.job_id, reason=reason, message=error.message)


async def _merged(sources: Sequence[AsyncGenerator[JobEvent, None]]) -> AsyncGenerator[JobEvent, None]:
    """Yields what the sources yield. A source waits until its event is taken, so that no backlog grows."""
    events: asyncio.Queue[JobEvent | BaseException | None] = asyncio.Queue(1)

    async def forward(source: AsyncGenerator[JobEvent, None]) -> None:
        try:
            async with aclosing(source):
                async for event in source:
                    await events.put(event)
            await events.put(None)
        except Exception as error:  # noqa: BLE001 - raised where the events are read
            await events.put(error)

    tasks = [asyncio.create_task(forward(source)) for source in sources]
    running = len(tasks)
    try:
        while running:
            event = await events.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                running -= 1
            else:
                yield event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
