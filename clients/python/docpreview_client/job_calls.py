"""Calls about jobs: one method per operation of the gateway's PreviewJobService."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Final, Unpack

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import (
    BatchGetPreviewJobsRequest,
    BatchGetPreviewJobsResponse,
    GetPreviewJobRequest,
    ListPreviewJobsResponse,
    WaitPreviewJobRequest,
    WatchPreviewJobRequest,
)
from docpreview_client import watching
from docpreview_client.call import Call, CallFields, refuse_unknown
from docpreview_client.decoding import errors_of_creates
from docpreview_client.errors import OutcomeUnknown, Unavailable
from docpreview_client.lifecycle import Lifecycle
from docpreview_client.reconnecting import Reconnecting
from docpreview_client.repeating import repeated
from docpreview_client.requests import CreateFields, ListFields, create_request, list_request
from docpreview_client.spans import Span, duration
from docpreview_client.watching import TERMINAL_STATES, JobEvent, Watching

# The gateway's own maximum of one WaitPreviewJob call.
_LONGEST_WAIT: Final = timedelta(minutes=5)
# Margin for the gateway's answer at the end of its waiting time.
_WAIT_MARGIN: Final = 10.0


class JobCalls(Lifecycle):
    """The methods about jobs. Each takes the fields of CallFields, such as `timeout`."""

    async def create(
        self, bucket: str, input_object: str, *, output_object: str, **fields: Unpack[CreateFields]
    ) -> PreviewJob:
        """Submits a job and returns it.

        Every create is billed, so the call gets a `request_id`, with which all of its attempts make one job, and is
        repeated until its deadline while that can help.

        Args:
            bucket: Bucket of the source document, `<name>-<appid>`.
            input_object: Key of the source document, 1 to 850 bytes.
            output_object: Template of the results' keys. Its last part must contain `${Number}` or `${Page}`; for
                spreadsheets the path must also contain `${SheetID}`.
            fields: See CreateFields: `output_bucket`, `options`, `queue_id`, `user_data`, `request_id`, `preset`,
                `webhook`, and those of every call. `timeout` is by default `Deadlines.unary`.

        Raises:
            OutcomeUnknown: The job may or may not exist. Also raised when the deadline passes or the connection
                breaks before the gateway has answered. With the same `request_id` (the error has it) creating again
                is safe.
            Unavailable: Nothing was accepted; creating again is safe.
        """
        request = create_request(
            bucket, input_object, output_object=output_object, fields=fields, request_ids=self._options.request_ids
        )
        call = self._unary(fields, CreateFields)

        async def attempt() -> PreviewJob:
            connection = self._open
            return await connection.unary(connection.jobs.CreatePreviewJob, request, call, errors=errors_of_creates)

        try:
            return await (repeated(attempt, call.deadline) if request.request_id else attempt())
        except OutcomeUnknown as error:
            error.create_request_id = request.request_id
            raise

    async def get(
        self, bucket: str, job_id: str, *, page_url_ttl: Span | None = None, **call: Unpack[CallFields]
    ) -> PreviewJob:
        """Returns one job.

        Args:
            bucket: Bucket of the source document.
            job_id: Id of the job, 1 to 64 letters and digits.
            page_url_ttl: When given, each page comes with an address that is valid this long, 1 second to 1 hour.
            call: See CallFields. `timeout` is by default `Deadlines.unary`.

        Raises:
            NotFound: There is no such job in the bucket, or it is older than a month.
        """
        request = GetPreviewJobRequest(bucket=bucket, job_id=job_id, page_url_ttl=duration(page_url_ttl))
        return await self._open.unary(self._open.jobs.GetPreviewJob, request, self._unary(call))

    async def batch_get(
        self, bucket: str, job_ids: Sequence[str], *, page_url_ttl: Span | None = None, **call: Unpack[CallFields]
    ) -> BatchGetPreviewJobsResponse:
        """Returns 1 to 100 jobs in the order of their ids in the request; unknown ids are in `missing_job_ids`."""
        request = BatchGetPreviewJobsRequest(bucket=bucket, job_ids=job_ids, page_url_ttl=duration(page_url_ttl))
        return await self._open.unary(self._open.jobs.BatchGetPreviewJobs, request, self._unary(call))

    async def list_page(
        self, bucket: str, *, page_token: str = "", **fields: Unpack[ListFields]
    ) -> ListPreviewJobsResponse:
        """Returns one page of the bucket's jobs; `next_page_token` of the answer leads to the next.

        Args:
            bucket: Bucket of the source documents.
            page_token: The token of the page before; all other fields must be as they were.
            fields: See ListFields: `queue_id`, `states`, `order`, `created_after`, `created_before`, `page_size`,
                `include_pages`, and those of every call. `timeout` is by default `Deadlines.unary`.
        """
        request = list_request(bucket, page_token=page_token, fields=fields)
        return await self._open.unary(self._open.jobs.ListPreviewJobs, request, self._unary(fields, ListFields))

    async def list(self, bucket: str, **fields: Unpack[ListFields]) -> AsyncGenerator[PreviewJob, None]:
        """Yields the jobs of all pages of `list_page`; `timeout` applies to each page."""
        refuse_unknown(fields, ListFields)
        page = await self.list_page(bucket, **fields)
        while True:
            for job in page.jobs:
                yield job
            if not page.next_page_token:
                return
            page = await self.list_page(bucket, page_token=page.next_page_token, **fields)

    async def wait(
        self, bucket: str, job_id: str, *, page_url_ttl: Span | None = None, **call: Unpack[CallFields]
    ) -> PreviewJob:
        """Returns the job once its state is terminal, or in its current state after `timeout`: check the state.

        UNAVAILABLE with a retry delay (the gateway is stopping, or the cloud cannot be reached) is retried, up to
        `Patience.unreachable`. A late answer is awaited for 10 seconds beyond `timeout`.

        Args:
            bucket: Bucket of the source document.
            job_id: Id of the job.
            page_url_ttl: When given, each page comes with an address that is valid this long, 1 second to 1 hour.
            call: See CallFields. `timeout` is the maximum wait, of any length; by default `Deadlines.wait`.

        Raises:
            Unavailable: No gateway answers, or none for longer than `Patience.unreachable`.
            DeadlineExceeded: `timeout` has passed without an answer of the gateway.
        """
        whole = Call.of(call, default=self._options.deadlines.wait)
        reconnecting = Reconnecting(whole.deadline, patience=self._options.patience.unreachable)
        while True:
            part = min(whole.deadline.remaining(), _LONGEST_WAIT.total_seconds())
            request = WaitPreviewJobRequest(
                bucket=bucket, job_id=job_id, timeout=duration(part), page_url_ttl=duration(page_url_ttl)
            )
            try:
                with self._open_streams.place() as connection:
                    job = await connection.unary(
                        connection.jobs.WaitPreviewJob, request, whole.lasting(part + _WAIT_MARGIN)
                    )
            except Unavailable as error:
                await reconnecting.pause_after(error)
            else:
                if job.state in TERMINAL_STATES or not whole.deadline.remaining():
                    return job
                reconnecting.message_received()

    async def watch(
        self, bucket: str, job_id: str, *, page_url_ttl: Span | None = None, **call: Unpack[CallFields]
    ) -> AsyncGenerator[PreviewJob, None]:
        """Yields the job's current state and then every change; ends after the terminal state.

        Streams that end before the terminal state are replaced (see `watching`); slow readers get the latest state, not
        a backlog. Leaving the loop early ends the stream at the gateway as soon as the generator is closed, at the
        latest when it is collected; `contextlib.aclosing` closes it immediately.

        Args:
            bucket: Bucket of the source document.
            job_id: Id of the job.
            page_url_ttl: When given, each page comes with an address that is valid this long, 1 second to 1 hour.
            call: See CallFields. `timeout` is the maximum over all streams; by default `Deadlines.watch`.

        Raises:
            NotFound: There is no such job in the bucket.
            Unavailable: No gateway answers, or none any more for longer than `Patience.unreachable`.
            DeadlineExceeded: `timeout` has passed.
        """
        request = WatchPreviewJobRequest(bucket=bucket, job_id=job_id, page_url_ttl=duration(page_url_ttl))
        async with aclosing(watching.watch(self._watching(call), request)) as jobs:
            async for job in jobs:
                yield job

    async def watch_many(
        self, bucket: str, job_ids: Sequence[str], *, page_url_ttl: Span | None = None, **call: Unpack[CallFields]
    ) -> AsyncGenerator[JobEvent, None]:
        """Yields the current state of each job and then every change, as `watch` does of one; ends when all have ended.

        An event is a PreviewJob, or a JobError of a job that is not followed any longer, for example since it does not
        exist. Any number of ids may be given: a stream carries a thousand. `timeout` is as in `watch`.
        """
        several = watching.watch_many(self._watching(call), bucket, job_ids, page_url_ttl=duration(page_url_ttl))
        async with aclosing(several) as events:
            async for event in events:
                yield event

    async def create_and_watch(
        self,
        bucket: str,
        input_object: str,
        *,
        output_object: str,
        page_url_ttl: Span | None = None,
        **fields: Unpack[CreateFields],
    ) -> AsyncGenerator[PreviewJob, None]:
        """Creates a job as `create` does (deadline `Deadlines.unary`) and follows it as `watch` does (`timeout`)."""
        timeout = fields.pop("timeout", None)
        created = await self.create(bucket, input_object, output_object=output_object, **fields)
        yield created
        async with aclosing(self.watch(bucket, created.job_id, page_url_ttl=page_url_ttl, timeout=timeout)) as jobs:
            async for job in jobs:
                if job != created:
                    yield job

    def _unary(self, fields: CallFields, kind: type[CallFields] = CallFields) -> Call:
        return Call.of(fields, default=self._options.deadlines.unary, kind=kind)

    def _watching(self, fields: CallFields) -> Watching:
        call = Call.of(fields, default=self._options.deadlines.watch)
        return Watching(connections=self._open_streams, patience=self._options.patience, call=call)
