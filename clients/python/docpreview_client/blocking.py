"""The blocking client: the asyncio client in an event loop that runs in a thread of its own.

Any thread may call it. A call waits for its result; Ctrl-C, and the end of a generator, end what runs for it.
"""

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from contextlib import suppress
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import BatchGetPreviewJobsResponse, ListPreviewJobsResponse
from docpreview.v1.preview_queue_service_pb2 import PreviewQueue
from docpreview.v1.upload_service_pb2 import UploadedObject
from docpreview.v1.usage_service_pb2 import Usage
from docpreview_client import forks
from docpreview_client.call import CallFields
from docpreview_client.client import DocPreviewClient, Preview, PreviewFields
from docpreview_client.downloading import DownloadFields, Files
from docpreview_client.options import ClientOptions, Tls
from docpreview_client.requests import CreateFields, ListFields
from docpreview_client.spans import Span
from docpreview_client.tokens import Token, TokenSource
from docpreview_client.uploading import File
from docpreview_client.watching import JobEvent

if TYPE_CHECKING:
    from concurrent.futures import Future

_Result = TypeVar("_Result")
_CLOSE_WITHIN: Final = 10.0


class _Loop:
    """An event loop in a thread, which begins with the first call."""

    def __init__(self, client: DocPreviewClient) -> None:
        self._client = client
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._sources: weakref.WeakSet[AsyncGenerator[Any, None]] = weakref.WeakSet()

    def iterate(self, source: AsyncGenerator[_Result, None]) -> Generator[_Result, None, None]:
        """Yields what `source` does, and closes it."""
        self._sources.add(source)
        try:
            while items := self.run(_next(source)):
                yield from items
        finally:
            self.release(_closing(source))

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Waits for the result of `work`; when the waiting is interrupted, `work` is cancelled."""
        try:
            future = self._started(work)
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def release(self, work: Coroutine[Any, Any, object]) -> None:
        """Runs `work` without waiting, if the loop is still there: garbage is collected in any thread and process."""
        with suppress(RuntimeError):
            self._started(work, check_thread=False)
            return
        work.close()

    def close(self) -> None:
        """Closes the client and ends the thread. In another process, that of a fork, there is nothing to close."""
        if self._pid != os.getpid():
            return
        with self._lock:
            loop, thread, self._closed = self._loop, self._thread, True
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        ended = asyncio.run_coroutine_threadsafe(self._end(loop), loop)
        if thread is not threading.current_thread():
            with suppress(TimeoutError):
                ended.result(_CLOSE_WITHIN)
            thread.join(_CLOSE_WITHIN)

    def _started(self, work: Coroutine[Any, Any, _Result], *, check_thread: bool = True) -> "Future[_Result]":
        forks.refuse_in_child()
        with self._lock:
            if self._closed:
                raise RuntimeError("This client is closed: make a new one.")
            if self._loop is None or self._thread is None:
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="docpreview-client", daemon=True)
                self._thread.start()
            if check_thread and self._thread is threading.current_thread():
                raise RuntimeError("A callback of the client (token, metadata, progress) may not call the client.")
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            for source in list(self._sources):
                await _closing(source)
            await self._client.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        finally:
            loop.call_soon(loop.stop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


class BlockingClient:
    """Client of one docpreview gateway for programs without asyncio: scripts, Django, Flask, Celery.

    Make one and share it between all threads. It connects with the first call, in a thread of its own; end it with
    `close`, or use it as `with BlockingClient(...) as client`. A client that is made before a server forks its workers
    is sound if the workers make its first call; after a fork in the middle of its use, the child's calls are refused
    with a RuntimeError.

    Methods, arguments, results and errors are those of DocPreviewClient. What is an async iterator there is a generator
    here: one that is closed, or left and collected, ends its stream at the gateway.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        tls: Tls | None = None,
        token: Token = None,
        options: ClientOptions | None = None,
    ) -> None:
        """Validates the arguments, which are those of DocPreviewClient. A token function may block."""
        source = _in_thread(token) if callable(token) else token
        self._client = DocPreviewClient(target, tls=tls, token=source, options=options)
        self._loop = _Loop(self._client)
        # Also at the end of the program, while gRPC can still be closed in order.
        self._finalizer = weakref.finalize(self, self._loop.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the client."""
        self.close()

    def close(self) -> None:
        """Closes all connections for good; calls in flight are cancelled. Closing again does nothing."""
        self._finalizer()

    def create(
        self, bucket: str, input_object: str, *, output_object: str, **fields: Unpack[CreateFields]
    ) -> PreviewJob:
        """Submits a job and returns it, as DocPreviewClient.create."""
        return self._loop.run(self._client.create(bucket, input_object, output_object=output_object, **fields))

    def get(
        self, bucket: str, job_id: str, *, page_url_ttl: Span | None = None, **call: Unpack[CallFields]
    ) -> PreviewJob:
        """Returns one job, as DocPreviewClient.get."""
        return self._loop.run(self._client.get(bucket, job_id, page_url_ttl=page_url_ttl, **call))

    def batch_get(
        self, bucket: str, job_ids: Sequence[str], *, page_url_ttl: Span | None = None, **call: Unpack[CallFields]
    ) -> BatchGetPreviewJobsResponse:
        """Returns 1 to 100 jobs, as DocPreviewClient.batch_get."""
        return self._loop.run(self._client.batch_get(bucket, job_ids, page_url_ttl=page_url_ttl, **call))

    def list_page(self, bucket: str, *, page_token: str = "", **fields: Unpack[ListFields]) -> ListPreviewJobsResponse:
        """Returns one page of the bucket's jobs, as DocPreviewClient.list_page."""
        return self._loop.run(self._client.list_page(bucket, page_token=page_token, **fields))

    def list(self, bucket: str, **fields: Unpack[ListFields]) -> Generator[PreviewJob, None, None]:
        """Yields the jobs of all pages, as DocPreviewClient.list."""
        return self._loop.iterate(self._client.list(bucket, **fields))

    def wait(
        self, bucket: str, job_id: str, *, page_url_ttl: Span | None = None, **call: Unpack[CallFields]
    ) -> PreviewJob:
        """Returns the job once its state is terminal, or as it is after `timeout`, as DocPreviewClient.wait."""
        return self._loop.run(self._client.wait(bucket, job_id, page_url_ttl=page_url_ttl, **call))

    def watch(
        self, bucket: str, job_id: str, *, page_url_ttl: Span | None = None, **call: Unpack[CallFields]
    ) -> Generator[PreviewJob, None, None]:
        """Yields the job's current state and then every change to its end, as DocPreviewClient.watch."""
        return self._loop.iterate(self._client.watch(bucket, job_id, page_url_ttl=page_url_ttl, **call))

    def watch_many(
        self, bucket: str, job_ids: Sequence[str], *, page_url_ttl: Span | None = None, **call: Unpack[CallFields]
    ) -> Generator[JobEvent, None, None]:
        """Yields the states and errors of many jobs until all have ended, as DocPreviewClient.watch_many."""
        return self._loop.iterate(self._client.watch_many(bucket, job_ids, page_url_ttl=page_url_ttl, **call))

    def create_and_watch(
        self,
        bucket: str,
        input_object: str,
        *,
        output_object: str,
        page_url_ttl: Span | None = None,
        **fields: Unpack[CreateFields],
    ) -> Generator[PreviewJob, None, None]:
        """Creates a job and follows it, as DocPreviewClient.create_and_watch."""
        return self._loop.iterate(
            self._client.create_and_watch(
                bucket, input_object, output_object=output_object, page_url_ttl=page_url_ttl, **fields
            )
        )

    def upload(
        self,
        file: File,
        bucket: str,
        object: str = "",  # noqa: A002 - the contract's word
        *,
        content_type: str = "",
        **call: Unpack[CallFields],
    ) -> UploadedObject:
        """Puts a local document into a bucket, as DocPreviewClient.upload."""
        return self._loop.run(self._client.upload(file, bucket, object, content_type=content_type, **call))

    def download(self, job: PreviewJob, directory: str | PathLike[str], **fields: Unpack[DownloadFields]) -> Files:
        """Saves the pages of a job, as DocPreviewClient.download; `progress` is called in another thread."""
        return self._loop.run(self._client.download(job, directory, **fields))

    def preview(
        self, file: File, directory: str | PathLike[str], *, bucket: str, **fields: Unpack[PreviewFields]
    ) -> Preview:
        """Turns a local document into files, as DocPreviewClient.preview; `progress` is called in another thread."""
        return self._loop.run(self._client.preview(file, directory, bucket=bucket, **fields))

    def list_queues(
        self,
        bucket: str,
        *,
        queue_ids: Sequence[str] = (),
        state: PreviewQueue.State.ValueType = PreviewQueue.STATE_UNSPECIFIED,
        **call: Unpack[CallFields],
    ) -> Generator[PreviewQueue, None, None]:
        """Yields the bucket's queues, as DocPreviewClient.list_queues."""
        return self._loop.iterate(self._client.list_queues(bucket, queue_ids=queue_ids, state=state, **call))

    def usage(self, **call: Unpack[CallFields]) -> Usage:
        """Returns the caller's usage, as DocPreviewClient.usage."""
        return self._loop.run(self._client.usage(**call))


async def _next(source: AsyncGenerator[_Result, None]) -> tuple[_Result, ...]:
    """The next item; nothing at the end."""
    async for item in source:
        return (item,)
    return ()


async def _closing(source: AsyncGenerator[Any, None]) -> None:
    # After an interrupt the generator may still run: it is cancelled, which ends it, too.
    with suppress(RuntimeError):
        await source.aclose()


def _in_thread(source: TokenSource) -> TokenSource:
    """The source in a thread of its own, since the loop is that of all calls."""

    async def asked() -> str:
        token = await asyncio.to_thread(source)
        return token if isinstance(token, str) else await token

    return asked
