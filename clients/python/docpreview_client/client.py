"""The asyncio client: the operations of the gateway, and what callers do with them.

It holds no state except its connections. What may be repeated freely is repeated by gRPC itself (see `channel`),
creates only with a `request_id` (see `repeating`).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from os import PathLike
from pathlib import Path
from typing import Any, Final, NamedTuple, Unpack
from uuid import uuid4

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, PreviewQueue
from docpreview.v1.upload_service_pb2 import CreateUploadRequest, UploadedObject
from docpreview.v1.usage_service_pb2 import GetUsageRequest, Usage
from docpreview_client.call import Call, CallFields, refuse_unknown
from docpreview_client.deadline import Deadline
from docpreview_client.downloading import Addresses, DownloadFields, Files, Progress, download
from docpreview_client.errors import PreviewUnfinished
from docpreview_client.job_calls import JobCalls
from docpreview_client.page_directory import (
    delete_pages_of_other_jobs,
    named,
    prepared,
    removed_if_unused,
    taken,
)
from docpreview_client.page_files import output_template
from docpreview_client.requests import LARGEST_PAGE, CreateFields
from docpreview_client.spans import Span
from docpreview_client.uploading import Document, File, Uploading, brought, default_object

_PAGE_URL_TTL: Final = 900.0


class Preview(NamedTuple):
    """A job at its end, and the files of its pages in order: none unless its state is STATE_SUCCESS."""

    job: PreviewJob
    files: Files


class PreviewFields(CreateFields, total=False):
    """Optional arguments of a preview, beside those of a create and of every call.

    Keys:
        object: Template of the key to put the document at. Default: `in/`, the `request_id` and the document's suffix,
            so that `preview` can be repeated with its `request_id`.
        output_object: Template of the results' keys. Default: `out/${RequestToken}/page-${Number}.jpg`, with a part
            `sheet-${SheetID}` for spreadsheets, and with the suffix of the target format.
        parallel: Pages that are fetched at a time. Default: 8.
        progress: As in DownloadFields.
    """

    object: str
    output_object: str
    parallel: int
    progress: Progress | None


class DocPreviewClient(JobCalls):
    """Client of one docpreview gateway (all its replicas), for asyncio.

    Make one and share it: it serves any number of calls at a time, of the event loop of its first call. It connects
    with that call; close it with `close`, or use it as `async with DocPreviewClient(...) as client`. Every method takes
    `timeout`, its deadline with all retries, and raises the exceptions of `docpreview_client.errors`.
    """

    async def upload(
        self,
        file: File,
        bucket: str,
        object: str = "",  # noqa: A002 - the contract's word
        *,
        content_type: str = "",
        **call: Unpack[CallFields],
    ) -> UploadedObject:
        """Puts a local document into a bucket, by addresses that the gateway signs.

        Args:
            file: Path of the document, or its content.
            bucket: Bucket to put it in, `<name>-<appid>`.
            object: Key to put it at, where `${UploadId}` becomes a random text. Default: `in/${UploadId}` with the
                file's suffix.
            content_type: MIME type. Default: the one that belongs to the key's suffix.
            call: See CallFields. `timeout` is for the whole upload; by default `Deadlines.transfer`.

        Raises:
            OSError: The file cannot be read.
            InvalidRequest: The file is empty, or an object with another content has the key. One with the same content
                will do if it has no more than 16 MiB.
            FailedPrecondition: The file has changed meanwhile.
            Unavailable: The storage cannot be reached, or something on the way, such as a proxy, has answered.
            PermissionDenied: The policy does not let the caller upload this, or the storage refused.
        """
        document = Document(file)
        request = CreateUploadRequest(
            bucket=bucket,
            object=object or default_object(document.name),
            content_length=document.size,
            content_type=content_type,
        )
        whole = self._transfer(call, CallFields)
        async with whole.deadline.bounding():
            longest = self._options.deadlines.unary
            return await Uploading(self._open, whole, longest_call=longest).run(document, request)

    async def download(
        self, job: PreviewJob, directory: str | PathLike[str], **fields: Unpack[DownloadFields]
    ) -> Files:
        """Saves the pages of a job that has ended with success, and returns the files in order.

        The names sort: `page-0001.jpg` by the number of the page, `sheet-01-page-001.jpg` of a workbook, `document.pdf`
        of a PDF. A download that broke off is resumed, complete pages are not fetched again, and pages of another job
        that were downloaded to the directory before are deleted. Only one download at a time may go to a directory.

        Args:
            job: The job, with or without pages and addresses.
            directory: Where to; made if it is not there.
            fields: See DownloadFields: `page_url_ttl`, `parallel`, `progress`, and those of every call. `timeout` is
                for the whole download; by default `Deadlines.transfer`.

        Raises:
            OSError: The directory or a file cannot be written.
            InvalidRequest: Another download of this process goes to the directory.
            FailedPrecondition: The job has not ended with success, or the gateway gives no addresses of its pages.
            Unavailable: The storage cannot be reached, or, after repeats, something on the way has answered with what
                is no page: it is empty, of another type, or longer than it says (than 1 GiB, where it does not).
        """
        with taken(named(directory)):
            return await self._downloaded(job, Path(directory), fields)

    async def _downloaded(self, job: PreviewJob, directory: Path, fields: DownloadFields) -> Files:
        whole = self._transfer(fields, DownloadFields)

        async def with_addresses() -> PreviewJob:
            return await self.get(
                job.bucket,
                job.job_id,
                page_url_ttl=fields.get("page_url_ttl", _PAGE_URL_TTL),
                timeout=min(whole.deadline.remaining(), self._options.deadlines.unary.total_seconds()),
                metadata=whole.metadata,
            )

        async with whole.deadline.bounding():
            return await download(Addresses(job, with_addresses), directory, fields)

    async def preview(
        self, file: File, directory: str | PathLike[str], *, bucket: str, **fields: Unpack[PreviewFields]
    ) -> Preview:
        """Turns a local document into files: uploads it, creates a job, follows it to its end, downloads its pages.

        The directory is checked before anything is sent; pages of another job that were downloaded to it are deleted
        when the job is made. With the same `request_id` and file it can be repeated, and makes no second job: give an
        id of your own where the call may be cancelled, or the process may end.

        Args:
            file: Path of the document, or its content; the content needs `object`.
            directory: Where the pages go, as in `download`.
            bucket: Bucket for the document and its pages.
            fields: See PreviewFields. `timeout` is for all of it; by default each step has its own.

        Raises:
            OSError: The file cannot be read, or the directory cannot be written. No job was made.
            InvalidRequest: Something is wrong with the arguments, or another download of this process goes to the
                directory; REQUEST_ID_REUSED: a job of another content or of other options has the `request_id`.
            OutcomeUnknown: The job may or may not exist. `preview` of the same file and options with its
                `create_request_id` as the `request_id` gets this job.
            PreviewUnfinished: The job was made; go on with `wait` and `download`, or with the same `request_id`.
        """
        refuse_unknown(fields, PreviewFields)
        with taken(named(directory)):
            return await self._previewed(file, Path(directory), bucket, fields)

    async def _previewed(self, file: File, folder: Path, bucket: str, fields: PreviewFields) -> Preview:
        fields["request_id"] = fields.get("request_id") or (str(uuid4()) if self._options.request_ids else "")
        timeout = fields.get("timeout")
        whole = None if timeout is None else Deadline.after(timeout)

        def left() -> Span | None:
            return whole.remaining() if whole else None

        with removed_if_unused(folder):
            await asyncio.to_thread(prepared, folder)
            job = await self._submitted(file, bucket, fields, left)
        try:
            await asyncio.to_thread(delete_pages_of_other_jobs, folder, job_id=job.job_id)
            call, pages = _chosen(CallFields, fields), _chosen(DownloadFields, fields)
            async with aclosing(self.watch(bucket, job.job_id, timeout=left(), **call)) as jobs:
                async for changed in jobs:
                    job = changed
            if job.state != PreviewJob.STATE_SUCCESS:
                return Preview(job, [])
            if (rest := left()) is not None:
                pages["timeout"] = rest
            return Preview(job, await self._downloaded(job, folder, pages))
        except Exception as error:
            raise PreviewUnfinished(job, error) from error

    async def _submitted(
        self, file: File, bucket: str, fields: PreviewFields, left: Callable[[], Span | None]
    ) -> PreviewJob:
        """Uploads the document of a preview and makes its job."""
        call, new_job = _chosen(CallFields, fields), _chosen(CreateFields, fields)
        key = await brought(
            lambda key: self.upload(file, bucket, key, timeout=left(), **call),
            file,
            key=fields.get("object", ""),
            request_id=fields["request_id"],
        )
        target = fields.get("options", PreviewOptions()).target_format
        output = fields.get("output_object") or output_template(key, target)
        return await self.create(bucket, key, output_object=output, timeout=left(), **new_job)

    async def list_queues(
        self,
        bucket: str,
        *,
        queue_ids: Sequence[str] = (),
        state: PreviewQueue.State.ValueType = PreviewQueue.STATE_UNSPECIFIED,
        **call: Unpack[CallFields],
    ) -> AsyncGenerator[PreviewQueue, None]:
        """Yields the bucket's queues; `timeout` applies to each page.

        Args:
            bucket: Bucket of the queues.
            queue_ids: Only these queues, at most 10. Default: all. Ids that do not exist are left out.
            state: Only queues in this state. Default: all.
            call: See CallFields. `timeout` is by default `Deadlines.unary`.
        """
        request = ListPreviewQueuesRequest(bucket=bucket, queue_ids=queue_ids, state=state, page_size=LARGEST_PAGE)
        while True:
            page = await self._open.unary(self._open.queues.ListPreviewQueues, request, self._unary(call))
            for queue in page.queues:
                yield queue
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def usage(self, **call: Unpack[CallFields]) -> Usage:
        """Returns the caller's usage: pages of this day and month (UTC), and the remaining budget.

        Args:
            call: See CallFields. `timeout` is by default `Deadlines.unary`.
        """
        return await self._open.unary(self._open.usage.GetUsage, GetUsageRequest(), self._unary(call))

    def _transfer(self, fields: CallFields, kind: type[CallFields]) -> Call:
        return Call.of(fields, default=self._options.deadlines.transfer, kind=kind)


def _chosen(kind: type[CallFields], fields: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an instance of the kind
    """The fields of this kind, without the timeout."""
    return {key: value for key, value in fields.items() if key in kind.__annotations__ and key != "timeout"}
