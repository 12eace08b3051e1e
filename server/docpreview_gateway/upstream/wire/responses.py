"""Conversion of the cloud's replies to messages of the contract.

Lenient about irregular values (absent, empty and `-` values, unknown elements and states, numbers out of range), strict
where a mistake would be dangerous (a reply about another job, a create without job id). Element names: vendor
documents 460/46942 to 460/46946.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, overload
from urllib.parse import unquote, urlsplit

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import (
    JobFailure,
    ObjectLocation,
    PreviewJob,
    PreviewOptions,
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
from docpreview_gateway.upstream.wire.xml import is_blank, part, parts, text, words

if TYPE_CHECKING:
    from docpreview_gateway.upstream.wire.xml import Node

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


def one_job(body: bytes, bucket: str, job_id: str) -> tuple[PreviewJob, str]:
    """The requested job, and its marker or "".

    JOB_NOT_FOUND when the reply says so, UPSTREAM_BAD_RESPONSE when it says nothing of it.
    """
    root = xml_codec.read(body, "Response")
    found = _details(root)
    if not found:
        unknown = _ids(root, "NonExistJobIds")
        if unknown and job_id not in unknown:
            raise bad_response("reply is about another job")
        if "NonExistJobIds" not in root and "JobsDetail" not in root:
            raise bad_response("reply says nothing about a job")
        raise UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, f"no job {job_id} in bucket {bucket}")
    answer = job(found[0], bucket)
    if len(found) > 1 or answer.job_id != job_id:
        raise bad_response("reply is about another job")
    return answer, split_user_data(_user_data(found[0]))[1]


def job_page(body: bytes, bucket: str, *, with_pages: bool, requested_cursor: str) -> JobPage:
    """A page of a list. Only one without a cursor is the last: a page may be empty, and may repeat its own cursor."""
    root = xml_codec.read(body, "Response")
    details = _details(root)
    cursor = text(root, "NextToken")
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
    total = _integer(text(root, "TotalCount"))
    return QueuePage(queues, total or len(queues), _ids(root, "NonExistPIDs"))


def _details(root: Node) -> list[Node]:
    return _items(root, "JobsDetail", "JobId")


def _items(root: Node, name: str, id_name: str) -> list[Node]:
    """The jobs or queues of a reply. The cloud does send one empty element when there is none.

    UPSTREAM_BAD_RESPONSE for another element without an id, and for a reply with something else where jobs or queues
    belong: a reply that is not understood must not be taken for an empty one.
    """
    found = parts(root, name)
    if len(found) == 1 and is_blank(found[0]):
        found = []
    if any(not text(each, id_name) for each in found):
        raise bad_response(f"reply with a {name} without {id_name}")
    if not found and any(_is_nested(other) for key, other in root.items() if key not in _NESTED):
        raise bad_response(f"reply without {name}, but with other elements in its place")
    return found


def _is_nested(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict) for each in value))


_NESTED = frozenset({"NonExistJobIds", "NonExistPIDs", "JobsDetail", "QueueList"})


def _ids(root: Node, name: str) -> tuple[str, ...]:
    """The ids at `name`: as elements, as one text with commas, or as several of either."""
    found = (word for each in parts(root, name) for texts in words(each) for word in texts.split(","))
    return tuple(stripped for word in found if (stripped := word.strip()))


def _user_data(details: Node) -> str:
    """The user data, unlike other texts with its white space: it is the caller's."""
    operation = part(details, "Operation")
    return "" if operation is None else _user_data_of(operation)


def _user_data_of(operation: Node) -> str:
    found = part(operation, "UserData")
    return "" if found is None else found.get("", "")


def job(details: Node, bucket: str, *, with_pages: bool = True) -> PreviewJob:
    """A `JobsDetail` element of `bucket`.

    `Code` is "Success" even while a job waits, so it never decides anything; the password that the cloud echoes is left
    where it is.
    """
    raw_state = text(details, "State")
    state = _STATES.get(raw_state.lower(), PreviewJob.STATE_UNSPECIFIED)
    fields: dict[str, Any] = {
        "bucket": bucket,
        "job_id": text(details, "JobId"),
        "queue_id": text(details, "QueueId"),
        "state": state,
        "raw_state": raw_state,
        "create_time": _moment(text(details, "CreationTime")),
        "start_time": _moment(text(details, "StartTime")),
        "end_time": _moment(text(details, "EndTime")),
    }
    operation, source = part(details, "Operation"), part(details, "Input")
    if operation is not None:
        _add_operation(fields, operation, is_made=state == PreviewJob.STATE_SUCCESS, with_pages=with_pages)
    if source is not None:
        fields["input"] = _location(source, "BucketId")
    if state == PreviewJob.STATE_FAILED:
        fields["failure"] = _failure(details, operation)
    return PreviewJob(**fields)


def _failure(details: Node, operation: Node | None) -> JobFailure:
    options = None if operation is None else part(operation, "DocProcess")
    has_password = options is not None and bool(text(options, "DocPassword"))
    code = text(details, "Code")
    reason = failures.reason_of(code, has_password=has_password)
    return JobFailure(code=code, message=redacted(text(details, "Message")), reason=reason)


def _add_operation(fields: dict[str, Any], operation: Node, *, is_made: bool, with_pages: bool) -> None:
    options, output = part(operation, "DocProcess"), part(operation, "Output")
    if options is not None:
        fields["options"] = _options(options)
    if output is not None:
        fields["output"] = _location(output, "Bucket")
    result = part(operation, "DocProcessResult")
    if result is not None and is_made:
        asked = "" if options is None else text(options, "TgtType")
        fields["result"] = _result(result, asked, with_pages=with_pages)
    if "JobLevel" in operation:
        fields["job_level"] = _integer(text(operation, "JobLevel"))
    if "UserData" in operation:
        fields["user_data"] = split_user_data(_user_data_of(operation))[0]


def _options(fields: Node) -> dict[str, Any]:
    """The options that the cloud returns. Empty and 0 mean that an option was not set."""
    single = text(fields, "PicPagination")
    found: dict[str, Any] = {
        "source_format": text(fields, "SrcType"),
        "target_format": _TARGET_FORMATS.get(text(fields, "TgtType").lower()),
        "start_page": _integer(text(fields, "StartPage")) or None,
        "end_page": _integer(text(fields, "EndPage")) or None,
        "page_ranges": text(fields, "PageRanges"),
        "sheet_id": _integer(text(fields, "SheetId"), default=None),
        "paper_orientation": _orientation(text(fields, "PaperDirection")),
        "paper_size": _PAPER_SIZES.get(text(fields, "PaperSize")),
        "comments": _COMMENTS.get(text(fields, "Comments")),
        "image_params": text(fields, "ImageParams"),
        "quality": _integer(text(fields, "Quality")) or None,
        "zoom_percent": _integer(text(fields, "Zoom")) or None,
        "image_dpi": _integer(text(fields, "ImageDpi")) or None,
        "single_image": single == "1" if single else None,
    }
    watermark = part(fields, "DocWatermark")
    if watermark is not None and not is_blank(watermark):
        found["watermark"] = _watermark(watermark)
    return found


def _watermark(fields: Node) -> Watermark:
    """A watermark. Of its image's address the object is told and nothing else: the rest may be a signature."""
    watermark = Watermark(image=_object_at(text(fields, "Image")), tiled=text(fields, "Batch") == "1")
    for name, field in requests.WATERMARK_NUMBERS.items():
        if (number := _integer(text(fields, name), default=None)) is not None:
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


def _result(made: Node, asked: str, *, with_pages: bool) -> dict[str, Any]:
    """What a job made; `asked` is the format that it was asked for."""
    target = text(made, "TgtType")
    content_type = _CONTENT_TYPES.get((target or asked or "jpg").lower(), "")
    return {
        "total_page_count": _integer(text(made, "TotalPageCount")),
        "succeeded_page_count": _integer(text(made, "SuccPageCount")),
        "failed_page_count": _integer(text(made, "FailPageCount")),
        "total_sheet_count": _integer(text(made, "TotalSheetCount")),
        "target_format": _TARGET_FORMATS.get(target.lower()),
        "task_id": text(made, "TaskId"),
        "pages": [_page(found, content_type) for found in parts(made, "PageInfo")] if with_pages else (),
    }


def _page(fields: Node, content_type: str) -> dict[str, Any]:
    """A page. Its object key begins with a slash when the template did; keys of objects do not."""
    return {
        "page_number": _integer(text(fields, "PageNo")),
        "object": text(fields, "TgtUri").removeprefix("/"),
        "picture_index": _integer(text(fields, "PicIndex")),
        "picture_number": _integer(text(fields, "PicNum")),
        "sheet_picture_count": _integer(text(fields, "X-SheetPics")),
        "content_type": content_type,
    }


def _queue(fields: Node, bucket: str) -> PreviewQueue:
    found: dict[str, Any] = {
        "bucket": bucket,
        "queue_id": text(fields, "QueueId"),
        "name": text(fields, "Name"),
        "state": _QUEUE_STATES.get(text(fields, "State").lower(), PreviewQueue.STATE_UNSPECIFIED),
        "max_size": _integer(text(fields, "MaxSize")),
        "max_concurrent": _integer(text(fields, "MaxConcurrent")),
        "create_time": _moment(text(fields, "CreateTime")),
        "update_time": _moment(text(fields, "UpdateTime")),
        "category": text(fields, "Category"),
    }
    return PreviewQueue(**found)


def _location(fields: Node, bucket_name: str) -> dict[str, str]:
    return {"bucket": text(fields, bucket_name), "region": text(fields, "Region"), "object": text(fields, "Object")}


@overload
def _integer(word: str) -> int: ...
@overload
def _integer(word: str, *, default: None) -> int | None: ...
def _integer(word: str, *, default: int | None = 0) -> int | None:
    """The number in `word`; `default` when there is none that fits an int32."""
    if (small := _SMALL.get(word)) is not None:
        return small
    digits = word.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > _INT32_DIGITS:
        return default
    number = int(word)
    return number if abs(number) <= _INT32_MAX else default


_SMALL = {str(number): number for number in range(-1, 201)}
"""Most numbers of replies, which need no reading."""


def _moment(word: str) -> dict[str, int] | None:
    """A time such as `2022-09-14T17:15:43+0800`, by default in the cloud's zone; None for `-` and any other text."""
    try:
        moment = datetime.fromisoformat(word)
        seconds = int((moment if moment.tzinfo is not None else moment.replace(tzinfo=_CLOUD_OFFSET)).timestamp())
    except (ValueError, OverflowError):
        return None
    return {"seconds": seconds} if _FIRST_SECOND <= seconds <= _LAST_SECOND else None


_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
"""Bounds of a `google.protobuf.Timestamp`: from the year 1 to the end of 9999."""
