"""Conversion of the cloud's replies to messages of the contract.

Lenient about irregular values (absent, empty and `-` values, unknown elements and states, numbers out of range), strict
where a mistake would be dangerous (a reply about another job, a create without job id). Element names: vendor
documents 460/46942 to 460/46946.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, overload

from google.protobuf.timestamp_pb2 import Timestamp

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import JobFailure, ObjectLocation, Page, PreviewJob, PreviewOptions, PreviewResult
from docpreview.v1.preview_queue_service_pb2 import PreviewQueue
from docpreview_gateway.model.errors import UpstreamError, bad_response
from docpreview_gateway.upstream.operations import JobPage, QueuePage
from docpreview_gateway.upstream.wire import requests
from docpreview_gateway.upstream.wire import xml as xml_codec
from docpreview_gateway.upstream.wire.user_data import split_user_data
from docpreview_gateway.upstream.wire.xml import text, texts

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_INT32_MAX = 2**31 - 1
_INT32_DIGITS = len(str(_INT32_MAX))
_CLOUD_OFFSET = timezone(timedelta(hours=8))


_STATES = {word: state for state, word in requests.JOB_STATES.items()}
_TARGET_FORMATS = {word: value for value, word in requests.TARGET_FORMATS.items()}
_PAPER_SIZES = {word: value for value, word in requests.PAPER_SIZES.items()}
_COMMENTS = {word: value for value, word in requests.COMMENTS.items()}
_QUEUE_STATES = {word: state for state, word in requests.QUEUE_STATES.items()}


def created_job(body: bytes, bucket: str) -> PreviewJob:
    """The job that a create made. UPSTREAM_BAD_RESPONSE when the reply has none."""
    made = _details(xml_codec.read(body, "Response"))
    if not made:
        raise bad_response("reply to a create has no job id")
    return job(made[0], bucket)


def one_job(body: bytes, bucket: str, job_id: str) -> PreviewJob:
    """The requested job. JOB_NOT_FOUND for a reply without a job, UPSTREAM_BAD_RESPONSE for one about another job."""
    found = _details(xml_codec.read(body, "Response"))
    if not found:
        raise UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, f"no job {job_id} in bucket {bucket}")
    answer = job(found[0], bucket)
    if len(found) > 1 or answer.job_id != job_id:
        raise bad_response("reply is about another job")
    return answer


def job_page(body: bytes, bucket: str, *, with_pages: bool, requested_cursor: str) -> JobPage:
    """A page of a list. One with the requested cursor is the last; one without jobs need not be."""
    root = xml_codec.read(body, "Response")
    details = _details(root)
    cursor = text(root, "NextToken")
    if cursor == requested_cursor:
        cursor = ""
    return JobPage(
        tuple(job(found, bucket, with_pages=with_pages) for found in details),
        cursor,
        tuple(split_user_data(_user_data(found))[1] for found in details),
    )


def queue_page(body: bytes, bucket: str) -> QueuePage:
    """A page of queues."""
    root = xml_codec.read(body, "Response")
    queues = tuple(_queue(found, bucket) for found in root.findall("QueueList"))
    missing = tuple(element.text.strip() for element in root.iterfind("NonExistPIDs/*") if element.text)
    return QueuePage(queues, _integer(text(root, "TotalCount")) or len(queues), missing)


def _details(root: Element) -> list[Element]:
    """The jobs of a reply. An element without an id is not a job (the cloud does send an empty `JobsDetail`)."""
    return [found for found in root.iterfind("JobsDetail") if text(found, "JobId")]


def _user_data(details: Element) -> str:
    """The user data, unlike other texts with its white space: it is the caller's."""
    return details.findtext("Operation/UserData") or ""


def job(details: Element, bucket: str, *, with_pages: bool = True) -> PreviewJob:
    """A `JobsDetail` element of `bucket`.

    `Code` is "Success" even while a job waits, so it never decides anything; the password that the cloud echoes is left
    where it is.
    """
    fields, parts = texts(details), {child.tag: child for child in details}
    raw_state = fields.get("State", "")
    state = _STATES.get(raw_state, PreviewJob.STATE_UNSPECIFIED)
    message = PreviewJob(
        bucket=bucket,
        job_id=fields.get("JobId", ""),
        queue_id=fields.get("QueueId", ""),
        state=state,
        raw_state=raw_state,
        create_time=_moment(fields.get("CreationTime", "")),
        start_time=_moment(fields.get("StartTime", "")),
        end_time=_moment(fields.get("EndTime", "")),
    )
    if "Operation" in parts:
        _fill_operation(message, parts["Operation"], with_pages=with_pages)
    if "Input" in parts:
        message.input.CopyFrom(_location(parts["Input"], "BucketId"))
    if state == PreviewJob.STATE_FAILED:
        message.failure.CopyFrom(JobFailure(code=fields.get("Code", ""), message=fields.get("Message", "")))
    return message


def _fill_operation(message: PreviewJob, operation: Element, *, with_pages: bool) -> None:
    parts = {child.tag: child for child in operation}
    if "DocProcess" in parts:
        message.options.CopyFrom(_options(texts(parts["DocProcess"])))
    if "Output" in parts:
        message.output.CopyFrom(_location(parts["Output"], "Bucket"))
    if "DocProcessResult" in parts and message.state == PreviewJob.STATE_SUCCESS:
        message.result.CopyFrom(_result(parts["DocProcessResult"], with_pages=with_pages))
    if "JobLevel" in parts:
        message.job_level = _integer((parts["JobLevel"].text or "").strip())
    if "UserData" in parts:
        message.user_data = split_user_data(parts["UserData"].text or "")[0]


def _options(fields: dict[str, str]) -> PreviewOptions:
    """The options that the cloud returns. Empty and 0 mean that an option was not set."""
    sheet, single = _integer(fields.get("SheetId", ""), default=None), fields.get("PicPagination", "")
    return PreviewOptions(
        source_format=fields.get("SrcType", ""),
        target_format=_TARGET_FORMATS.get(fields.get("TgtType", ""), PreviewOptions.TARGET_FORMAT_UNSPECIFIED),
        start_page=_integer(fields.get("StartPage", "")) or None,
        end_page=_integer(fields.get("EndPage", "")) or None,
        page_ranges=fields.get("PageRanges", ""),
        sheet_id=sheet,
        paper_orientation=_orientation(fields.get("PaperDirection", "")),
        paper_size=_PAPER_SIZES.get(fields.get("PaperSize", ""), PreviewOptions.PAPER_SIZE_UNSPECIFIED),
        comments=_COMMENTS.get(fields.get("Comments", ""), PreviewOptions.COMMENTS_UNSPECIFIED),
        image_params=fields.get("ImageParams", ""),
        quality=_integer(fields.get("Quality", "")) or None,
        zoom_percent=_integer(fields.get("Zoom", "")) or None,
        image_dpi=_integer(fields.get("ImageDpi", "")) or None,
        single_image=single == "1" if single else None,
    )


def _orientation(word: str) -> PreviewOptions.PaperOrientation.ValueType:
    """0 is vertical, every other number horizontal."""
    direction = _integer(word, default=None)
    if direction is None:
        return PreviewOptions.PAPER_ORIENTATION_UNSPECIFIED
    return PreviewOptions.PAPER_ORIENTATION_LANDSCAPE if direction else PreviewOptions.PAPER_ORIENTATION_PORTRAIT


def _result(made: Element, *, with_pages: bool) -> PreviewResult:
    fields = texts(made)
    return PreviewResult(
        total_page_count=_integer(fields.get("TotalPageCount", "")),
        succeeded_page_count=_integer(fields.get("SuccPageCount", "")),
        failed_page_count=_integer(fields.get("FailPageCount", "")),
        total_sheet_count=_integer(fields.get("TotalSheetCount", "")),
        target_format=_TARGET_FORMATS.get(fields.get("TgtType", ""), PreviewOptions.TARGET_FORMAT_UNSPECIFIED),
        task_id=fields.get("TaskId", ""),
        pages=(_page(texts(found)) for found in made.iterfind("PageInfo")) if with_pages else (),
    )


def _page(fields: dict[str, str]) -> Page:
    """A page. Its object key begins with a slash when the template did; keys of objects do not."""
    return Page(
        page_number=_integer(fields.get("PageNo", "")),
        object=fields.get("TgtUri", "").removeprefix("/"),
        picture_index=_integer(fields.get("PicIndex", "")),
        picture_number=_integer(fields.get("PicNum", "")),
        sheet_picture_count=_integer(fields.get("X-SheetPics", "")),
    )


def _queue(element: Element, bucket: str) -> PreviewQueue:
    fields = texts(element)
    return PreviewQueue(
        bucket=bucket,
        queue_id=fields.get("QueueId", ""),
        name=fields.get("Name", ""),
        state=_QUEUE_STATES.get(fields.get("State", ""), PreviewQueue.STATE_UNSPECIFIED),
        max_size=_integer(fields.get("MaxSize", "")),
        max_concurrent=_integer(fields.get("MaxConcurrent", "")),
        create_time=_moment(fields.get("CreateTime", "")),
        update_time=_moment(fields.get("UpdateTime", "")),
        category=fields.get("Category", ""),
    )


def _location(element: Element, bucket_name: str) -> ObjectLocation:
    fields = texts(element)
    return ObjectLocation(
        bucket=fields.get(bucket_name, ""), region=fields.get("Region", ""), object=fields.get("Object", "")
    )


@overload
def _integer(word: str) -> int: ...
@overload
def _integer(word: str, *, default: None) -> int | None: ...
def _integer(word: str, *, default: int | None = 0) -> int | None:
    """The number in `word`; `default` when there is none that fits an int32."""
    digits = word.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > _INT32_DIGITS:
        return default
    number = int(word)
    return number if abs(number) <= _INT32_MAX else default


def _moment(word: str) -> Timestamp | None:
    """A time such as `2022-09-14T17:15:43+0800`, by default in the cloud's zone; None for `-` and any other text."""
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=_CLOUD_OFFSET)
    stamp = Timestamp()
    try:
        stamp.FromSeconds(int(moment.timestamp()))
    except (OverflowError, ValueError):
        return None
    return stamp
