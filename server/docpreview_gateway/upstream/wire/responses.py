"""Conversion of the cloud's replies to messages of the contract.

Lenient about irregular values (absent, empty and `-` values, unknown elements and states, numbers out of range), strict
where a mistake would be dangerous (a reply about another job, a create without job id). Element names: vendor
documents 460/46942 to 460/46946.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, overload
from urllib.parse import unquote, urlsplit

from google.protobuf.timestamp_pb2 import Timestamp

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import (
    JobFailure,
    ObjectLocation,
    Page,
    PreviewJob,
    PreviewOptions,
    PreviewResult,
    Watermark,
)
from docpreview.v1.preview_queue_service_pb2 import PreviewQueue
from docpreview_gateway.model.buckets import BUCKET, DOMAIN, REGION
from docpreview_gateway.model.errors import UpstreamError, bad_response
from docpreview_gateway.upstream.operations import JobPage, QueuePage
from docpreview_gateway.upstream.wire import failures, requests
from docpreview_gateway.upstream.wire import xml as xml_codec
from docpreview_gateway.upstream.wire.redaction import redacted
from docpreview_gateway.upstream.wire.user_data import split_user_data
from docpreview_gateway.upstream.wire.xml import children, texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lxml.etree import _Element as Element

_INT32_MAX = 2**31 - 1
_INT32_DIGITS = len(str(_INT32_MAX))
_CLOUD_OFFSET = timezone(timedelta(hours=8))


_STATES = {word.lower(): state for state, word in requests.JOB_STATES.items()}
_TARGET_FORMATS = {word: value for value, word in requests.TARGET_FORMATS.items()}
_CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "pdf": "application/pdf"}
_PAPER_SIZES = {word: value for value, word in requests.PAPER_SIZES.items()}
_COMMENTS = {word: value for value, word in requests.COMMENTS.items()}
_QUEUE_STATES = {word.lower(): state for state, word in requests.QUEUE_STATES.items()}


def created_job(body: bytes, bucket: str) -> tuple[PreviewJob, str]:
    """The job that a create made, and its marker or "". UPSTREAM_BAD_RESPONSE when the reply has no job, or several."""
    made = _details(xml_codec.read(body, "Response"))
    if len(made) != 1:
        raise bad_response(f"reply to a create has {len(made) or 'no'} job ids")
    return job(made[0], bucket), split_user_data(_user_data(made[0]))[1]


def one_job(body: bytes, bucket: str, job_id: str) -> PreviewJob:
    """The requested job. JOB_NOT_FOUND when the reply says so, UPSTREAM_BAD_RESPONSE when it says nothing of it."""
    root = xml_codec.read(body, "Response")
    found = _details(root)
    if not found:
        unknown = _ids(root, "NonExistJobIds")
        if unknown and job_id not in unknown:
            raise bad_response("reply is about another job")
        if root.find("NonExistJobIds") is None and root.find("JobsDetail") is None:
            raise bad_response("reply says nothing about a job")
        raise UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, f"no job {job_id} in bucket {bucket}")
    answer = job(found[0], bucket)
    if len(found) > 1 or answer.job_id != job_id:
        raise bad_response("reply is about another job")
    return answer


def job_page(body: bytes, bucket: str, *, with_pages: bool, requested_cursor: str) -> JobPage:
    """A page of a list. Only one without a cursor is the last: a page may be empty, and may repeat its own cursor."""
    root = xml_codec.read(body, "Response")
    details = _details(root)
    cursor = texts(root).get("NextToken", "")
    return JobPage(
        tuple(job(found, bucket, with_pages=with_pages) for found in details),
        cursor,
        tuple(split_user_data(_user_data(found))[1] for found in details),
        repeated=bool(cursor) and cursor == requested_cursor,
    )


def queue_page(body: bytes, bucket: str) -> QueuePage:
    """A page of queues."""
    root = xml_codec.read(body, "Response")
    queues = tuple(_queue(found, bucket) for found in _items(root, "QueueList", "QueueId"))
    total = _integer(texts(root).get("TotalCount", ""))
    return QueuePage(queues, total or len(queues), _ids(root, "NonExistPIDs"))


def _details(root: Element) -> list[Element]:
    return _items(root, "JobsDetail", "JobId")


def _items(root: Element, name: str, id_name: str) -> list[Element]:
    """The jobs or queues of a reply. The cloud does send one empty element when there is none.

    UPSTREAM_BAD_RESPONSE for another element without an id, and for a reply with something else where jobs or queues
    belong: a reply that is not understood must not be taken for an empty one.
    """
    found = root.findall(name)
    if len(found) == 1 and not any(str(text).strip() for text in found[0].itertext()):
        found = []
    if any(not (element.findtext(id_name) or "").strip() for element in found):
        raise bad_response(f"reply with a {name} without {id_name}")
    if not found and any(len(other) and other.tag not in _NESTED for other in root):
        raise bad_response(f"reply without {name}, but with other elements in its place")
    return found


_NESTED = frozenset({"NonExistJobIds", "NonExistPIDs", "JobsDetail", "QueueList"})


def _ids(root: Element, name: str) -> tuple[str, ...]:
    """The ids at `name`: as elements, as one text with commas, or as several of either."""
    words = (word for found in root.iterfind(name) for text in found.itertext() for word in str(text).split(","))
    return tuple(stripped for word in words if (stripped := word.strip()))


def _user_data(details: Element) -> str:
    """The user data, unlike other texts with its white space: it is the caller's."""
    operation = children(details).get("Operation")
    found = None if operation is None else children(operation).get("UserData")
    return (found.text or "") if found is not None else ""


def job(details: Element, bucket: str, *, with_pages: bool = True) -> PreviewJob:
    """A `JobsDetail` element of `bucket`.

    `Code` is "Success" even while a job waits, so it never decides anything; the password that the cloud echoes is left
    where it is.
    """
    fields, parts = texts(details), children(details)
    raw_state = fields.get("State", "")
    state = _STATES.get(raw_state.lower(), PreviewJob.STATE_UNSPECIFIED)
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
    if (operation := parts.get("Operation")) is not None:
        _fill_operation(message, operation, with_pages=with_pages)
    if (source := parts.get("Input")) is not None:
        message.input.CopyFrom(_location(source, "BucketId"))
    if state == PreviewJob.STATE_FAILED:
        message.failure.CopyFrom(_failure(fields, details))
    return message


def _failure(fields: Mapping[str, str], details: Element) -> JobFailure:
    operation = children(details).get("Operation")
    options = None if operation is None else children(operation).get("DocProcess")
    has_password = options is not None and bool(texts(options).get("DocPassword"))
    code = fields.get("Code", "")
    reason = failures.reason_of(code, has_password=has_password)
    return JobFailure(code=code, message=redacted(fields.get("Message", "")), reason=reason)


def _fill_operation(message: PreviewJob, operation: Element, *, with_pages: bool) -> None:
    parts = children(operation)
    if (options := parts.get("DocProcess")) is not None:
        message.options.CopyFrom(_options(texts(options)))
        if (watermark := children(options).get("DocWatermark")) is not None and texts(watermark):
            message.options.watermark.CopyFrom(_watermark(texts(watermark)))
    if (output := parts.get("Output")) is not None:
        message.output.CopyFrom(_location(output, "Bucket"))
    result = parts.get("DocProcessResult")
    if result is not None and message.state == PreviewJob.STATE_SUCCESS:
        asked = "" if options is None else texts(options).get("TgtType", "")
        message.result.CopyFrom(_result(result, asked, with_pages=with_pages))
    if (level := parts.get("JobLevel")) is not None:
        message.job_level = _integer((level.text or "").strip())
    if (user_data := parts.get("UserData")) is not None:
        message.user_data = split_user_data(user_data.text or "")[0]


def _options(fields: Mapping[str, str]) -> PreviewOptions:
    """The options that the cloud returns. Empty and 0 mean that an option was not set."""
    sheet, single = _integer(fields.get("SheetId", ""), default=None), fields.get("PicPagination", "")
    return PreviewOptions(
        source_format=fields.get("SrcType", ""),
        target_format=_TARGET_FORMATS.get(fields.get("TgtType", "").lower(), PreviewOptions.TARGET_FORMAT_UNSPECIFIED),
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


def _watermark(fields: Mapping[str, str]) -> Watermark:
    """A watermark. Of its image's address the object is told and nothing else: the rest may be a signature."""
    watermark = Watermark(image=_object_at(fields.get("Image", "")), tiled=fields.get("Batch") == "1")
    for name, field in requests.WATERMARK_NUMBERS.items():
        if (number := _integer(fields.get(name, ""), default=None)) is not None:
            setattr(watermark, field, number)
    return watermark


def _object_at(address: str) -> ObjectLocation | None:
    """The object of an address of the cloud's object hosts; None: it is none."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return None
    name, _, rest = host.partition(".cos.")
    region = rest.removesuffix(f".{DOMAIN}")
    if not (BUCKET.fullmatch(name) and REGION.fullmatch(region)) or host != f"{name}.cos.{region}.{DOMAIN}":
        return None
    return ObjectLocation(bucket=name, region=region, object=unquote(parts.path[1:], errors="replace"))


def _orientation(word: str) -> PreviewOptions.PaperOrientation.ValueType:
    """0 is vertical, every other number horizontal."""
    direction = _integer(word, default=None)
    if direction is None:
        return PreviewOptions.PAPER_ORIENTATION_UNSPECIFIED
    return PreviewOptions.PAPER_ORIENTATION_LANDSCAPE if direction else PreviewOptions.PAPER_ORIENTATION_PORTRAIT


def _result(made: Element, asked: str, *, with_pages: bool) -> PreviewResult:
    """What a job made; `asked` is the format that it was asked for."""
    fields = texts(made)
    content_type = _CONTENT_TYPES.get((fields.get("TgtType") or asked or "jpg").lower(), "")
    return PreviewResult(
        total_page_count=_integer(fields.get("TotalPageCount", "")),
        succeeded_page_count=_integer(fields.get("SuccPageCount", "")),
        failed_page_count=_integer(fields.get("FailPageCount", "")),
        total_sheet_count=_integer(fields.get("TotalSheetCount", "")),
        target_format=_TARGET_FORMATS.get(fields.get("TgtType", "").lower(), PreviewOptions.TARGET_FORMAT_UNSPECIFIED),
        task_id=fields.get("TaskId", ""),
        pages=(_page(texts(found), content_type) for found in made.iterfind("PageInfo")) if with_pages else (),
    )


def _page(fields: Mapping[str, str], content_type: str) -> Page:
    """A page. Its object key begins with a slash when the template did; keys of objects do not."""
    return Page(
        page_number=_integer(fields.get("PageNo", "")),
        object=fields.get("TgtUri", "").removeprefix("/"),
        picture_index=_integer(fields.get("PicIndex", "")),
        picture_number=_integer(fields.get("PicNum", "")),
        sheet_picture_count=_integer(fields.get("X-SheetPics", "")),
        content_type=content_type,
    )


def _queue(element: Element, bucket: str) -> PreviewQueue:
    fields = texts(element)
    return PreviewQueue(
        bucket=bucket,
        queue_id=fields.get("QueueId", ""),
        name=fields.get("Name", ""),
        state=_QUEUE_STATES.get(fields.get("State", "").lower(), PreviewQueue.STATE_UNSPECIFIED),
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
