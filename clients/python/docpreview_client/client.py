# ruff: noqa: ASYNC109 - a timeout here is a deadline that has to reach the gateway
"""The client: one method per operation of the gateway.

It holds no state except its channel. Reads are retried by gRPC itself (see `channel`), creates only with a
`request_id` (see `repeating`).
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Final, Self, Unpack

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import (
    BatchGetPreviewJobsRequest,
    BatchGetPreviewJobsResponse,
    GetPreviewJobRequest,
    ListPreviewJobsResponse,
    WaitPreviewJobRequest,
    WatchPreviewJobRequest,
)
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, PreviewQueue
from docpreview.v1.usage_service_pb2 import GetUsageRequest, Usage
from docpreview_client.channel import is_loopback, open_channel
from docpreview_client.connection import Connection, Token
from docpreview_client.deadline import Deadline
from docpreview_client.errors import Unavailable
from docpreview_client.options import ClientOptions, Tls
from docpreview_client.reconnecting import Reconnecting
from docpreview_client.repeating import repeated
from docpreview_client.requests import CreateFields, ListFields, create_request, duration, list_request
from docpreview_client.watching import TERMINAL_STATES, Stream, Watch

# The gateway's own maximum of one WaitPreviewJob call.
_LONGEST_WAIT: Final = timedelta(minutes=5)
# Margin for the gateway's answer at the end of its waiting time.
_WAIT_MARGIN: Final = timedelta(seconds=10)


class DocPreviewClient:
    """Client of one docpreview gateway (all its replicas). Use it as `async with DocPreviewClient(...) as client`.

    Make one and share it: it serves any number of calls at a time, of the event loop in which it was entered. Every
    method takes `timeout`, its deadline with all retries, and raises the exceptions of `docpreview_client.errors`.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        tls: Tls | None = None,
        token: Token = None,
        options: ClientOptions | None = None,
    ) -> None:
        """Validates the arguments; the connection is made by the first call.

        Args:
            target: `host:port`, or a target as gRPC resolves it: `dns:///host:port` (all addresses of the host are
                used in turn), `unix:/path`.
            tls: Encryption. Default: none, plaintext.
            token: Sent as `authorization: Bearer <token>`. A function is called before every call, for tokens that
                change.
            options: Deadlines, metadata and reconnects.

        Raises:
            ValueError: A token was given, the connection is not encrypted and the target is not this machine.
        """
        if token is not None and tls is None and not is_loopback(target):
            raise ValueError(
                f"A token may not be sent to {target} in the clear: give tls, or a target on this machine."
            )
        self._target = target
        self._tls = tls
        self._token = token
        self._options = options or ClientOptions()
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        if self._connection is not None:
            raise RuntimeError("This client is in use already: make one and share it.")
        channel = open_channel(self._target, tls=self._tls, options=self._options)
        self._connection = Connection(channel, token=self._token, metadata=self._options.metadata)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the channel; calls in flight are cancelled."""
        connection, self._connection = self._open, None
        await connection.close()

    async def create(
        self,
        bucket: str,
        input_object: str,
        *,
        output_object: str,
        timeout: timedelta | None = None,
        **fields: Unpack[CreateFields],
    ) -> PreviewJob:
        """Submits a job and returns it.

        Every create is billed, so it is sent once; with a `request_id` up to five times, within `timeout`, until its
        outcome is known.

        Args:
            bucket: Bucket of the source document, `<name>-<appid>`.
            input_object: Key of the source document, 1 to 850 bytes.
            output_object: Template of the results' keys. Its last part must contain `${Number}` or `${Page}`; for
                spreadsheets the path must also contain `${SheetID}`.
            timeout: Default `Deadlines.unary`.
            fields: See CreateFields: `output_bucket`, `options`, `queue_id`, `user_data`, `request_id`.

        Raises:
            OutcomeUnknown: The job may or may not exist. Also raised when the deadline passes or the connection
                breaks before the gateway has answered. With a `request_id` creating again is safe.
            Unavailable: Nothing was accepted; creating again is safe.
        """
        request = create_request(bucket, input_object, output_object=output_object, fields=fields)
        deadline = Deadline.after(self._unary(timeout))
        if request.request_id:
            return await repeated(partial(self._open.create, request), deadline)
        return await self._open.create(request, deadline.remaining())

    async def get(
        self,
        bucket: str,
        job_id: str,
        *,
        page_url_ttl: timedelta | None = None,
        timeout: timedelta | None = None,
    ) -> PreviewJob:
        """Returns one job.

        Args:
            bucket: Bucket of the source document.
            job_id: Id of the job, 1 to 64 letters and digits.
            page_url_ttl: When given, each page comes with an address that is valid this long, 1 second to 1 hour.
            timeout: Default `Deadlines.unary`.

        Raises:
            NotFound: There is no such job in the bucket, or it is older than a month.
        """
        request = GetPreviewJobRequest(bucket=bucket, job_id=job_id, page_url_ttl=duration(page_url_ttl))
        return await self._open.read(self._open.jobs.GetPreviewJob, request, timeout=self._unary(timeout))

    async def batch_get(
        self,
        bucket: str,
        job_ids: Sequence[str],
        *,
        page_url_ttl: timedelta | None = None,
        timeout: timedelta | None = None,
    ) -> BatchGetPreviewJobsResponse:
        """Returns 1 to 100 jobs in the order of their ids in the request; unknown ids are in `missing_job_ids`."""
        request = BatchGetPreviewJobsRequest(bucket=bucket, job_ids=job_ids, page_url_ttl=duration(page_url_ttl))
        return await self._open.read(self._open.jobs.BatchGetPreviewJobs, request, timeout=self._unary(timeout))

    async def list_page(
        self,
        bucket: str,
        *,
        page_token: str = "",
        timeout: timedelta | None = None,
        **fields: Unpack[ListFields],
    ) -> ListPreviewJobsResponse:
        """Returns one page of the bucket's jobs; `next_page_token` of the answer leads to the next.

        Args:
            bucket: Bucket of the source documents.
            page_token: The token of the page before; all other fields must be as they were.
            timeout: Default `Deadlines.unary`.
            fields: See ListFields: `queue_id`, `states`, `order`, `created_after`, `created_before`, `page_size`,
                `include_pages`.
        """
        request = list_request(bucket, page_token=page_token, fields=fields)
        return await self._open.read(self._open.jobs.ListPreviewJobs, request, timeout=self._unary(timeout))

    async def list(
        self,
        bucket: str,
        *,
        timeout: timedelta | None = None,
        **fields: Unpack[ListFields],
    ) -> AsyncGenerator[PreviewJob, None]:
        """Yields the jobs of all pages of `list_page`; `timeout` applies to each page."""
        page = await self.list_page(bucket, timeout=timeout, **fields)
        while True:
            for job in page.jobs:
                yield job
            if not page.next_page_token:
                return
            page = await self.list_page(bucket, page_token=page.next_page_token, timeout=timeout, **fields)

    async def wait(
        self,
        bucket: str,
        job_id: str,
        *,
        page_url_ttl: timedelta | None = None,
        timeout: timedelta | None = None,
    ) -> PreviewJob:
        """Returns the job once its state is terminal, or in its current state after `timeout`: check the state.

        UNAVAILABLE with a retry delay (the gateway is stopping, or the cloud cannot be reached) is retried, up to
        `Patience.unreachable`. A late answer is awaited for 10 seconds beyond `timeout`.

        Args:
            bucket: Bucket of the source document.
            job_id: Id of the job.
            page_url_ttl: When given, each page comes with an address that is valid this long, 1 second to 1 hour.
            timeout: Maximum wait, of any length. Default `Deadlines.wait`.

        Raises:
            Unavailable: No gateway answers, or none for longer than `Patience.unreachable`.
            DeadlineExceeded: `timeout` has passed without an answer of the gateway.
        """
        deadline = Deadline.after(self._options.deadlines.wait if timeout is None else timeout)
        reconnecting = Reconnecting(deadline, patience=self._options.patience.unreachable)
        while True:
            part = min(timedelta(seconds=deadline.remaining()), _LONGEST_WAIT)
            request = WaitPreviewJobRequest(
                bucket=bucket, job_id=job_id, timeout=duration(part), page_url_ttl=duration(page_url_ttl)
            )
            try:
                job = await self._open.read(self._open.jobs.WaitPreviewJob, request, timeout=part + _WAIT_MARGIN)
            except Unavailable as error:
                await reconnecting.pause_after(error)
            else:
                if job.state in TERMINAL_STATES or not deadline.remaining():
                    return job
                reconnecting.message_received()

    async def watch(
        self,
        bucket: str,
        job_id: str,
        *,
        page_url_ttl: timedelta | None = None,
        timeout: timedelta | None = None,
    ) -> AsyncGenerator[PreviewJob, None]:
        """Yields the job's current state and then every change; ends after the terminal state.

        Streams that end before the terminal state are replaced (see `watching`); slow readers get the latest state, not
        a backlog. Leaving the loop early ends the stream at the gateway as soon as the generator is closed, at the
        latest when it is collected; `contextlib.aclosing` closes it immediately.

        Args:
            bucket: Bucket of the source document.
            job_id: Id of the job.
            page_url_ttl: When given, each page comes with an address that is valid this long, 1 second to 1 hour.
            timeout: Maximum duration over all streams. Default `Deadlines.watch`.

        Raises:
            NotFound: There is no such job in the bucket.
            Unavailable: No gateway answers, or none any more for longer than `Patience.unreachable`.
            DeadlineExceeded: `timeout` has passed.
        """
        request = WatchPreviewJobRequest(bucket=bucket, job_id=job_id, page_url_ttl=duration(page_url_ttl))

        def open_stream(seconds: float) -> Stream:
            return self._open.jobs.WatchPreviewJob(request, timeout=seconds, metadata=self._open.metadata())

        deadline = Deadline.after(self._options.deadlines.watch if timeout is None else timeout)
        watch = Watch(open_stream, deadline=deadline, patience=self._options.patience)
        async with aclosing(watch.jobs()) as jobs:
            async for job in jobs:
                yield job

    async def create_and_watch(
        self,
        bucket: str,
        input_object: str,
        *,
        output_object: str,
        page_url_ttl: timedelta | None = None,
        timeout: timedelta | None = None,
        **fields: Unpack[CreateFields],
    ) -> AsyncGenerator[PreviewJob, None]:
        """Creates a job as `create` does (deadline `Deadlines.unary`) and follows it as `watch` does (`timeout`)."""
        created = await self.create(bucket, input_object, output_object=output_object, **fields)
        yield created
        async with aclosing(self.watch(bucket, created.job_id, page_url_ttl=page_url_ttl, timeout=timeout)) as jobs:
            async for job in jobs:
                if job != created:
                    yield job

    async def list_queues(
        self,
        bucket: str,
        *,
        queue_ids: Sequence[str] = (),
        state: PreviewQueue.State.ValueType = PreviewQueue.STATE_UNSPECIFIED,
        timeout: timedelta | None = None,
    ) -> AsyncGenerator[PreviewQueue, None]:
        """Yields the bucket's queues; `timeout` applies to each page.

        Args:
            bucket: Bucket of the queues.
            queue_ids: Only these queues, at most 10. Default: all. Ids that do not exist are left out.
            state: Only queues in this state. Default: all.
            timeout: Default `Deadlines.unary`.
        """
        request = ListPreviewQueuesRequest(bucket=bucket, queue_ids=queue_ids, state=state)
        while True:
            page = await self._open.read(self._open.queues.ListPreviewQueues, request, timeout=self._unary(timeout))
            for queue in page.queues:
                yield queue
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("The client is not open: use it inside `async with DocPreviewClient(...) as client`.")
        return self._connection

    def _unary(self, timeout: timedelta | None) -> timedelta:
        return self._options.deadlines.unary if timeout is None else timeout

    async def usage(self, *, timeout: timedelta | None = None) -> Usage:
        """Returns the caller's usage: pages of this day and month (UTC), and the remaining budget.

        Args:
            timeout: Default `Deadlines.unary`.
        """
        return await self._open.read(self._open.usage.GetUsage, GetUsageRequest(), timeout=self._unary(timeout))
