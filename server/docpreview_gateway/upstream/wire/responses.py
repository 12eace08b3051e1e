"""Conversion of the cloud's replies to messages of the contract.

Lenient about irregular values (absent, empty and `-` values, unknown elements and states, numbers out of range), strict
where a mistake would be dangerous (a reply about another job, a create without job id). Element names: vendor
documents 460/46942 to 460/46946.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias
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

_Table: TypeAlias = dict[str, tuple[str, Callable[[str], Any]]]
"""By the name of an element: the field of the message, and how its text is read. None leaves the field unset."""

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
    return _job(made[0], bucket)


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
    answer, marker = _job(found[0], bucket)
    if len(found) > 1 or answer.job_id != job_id:
        raise bad_response("reply is about another job")
    return answer, marker


def job_page(body: bytes, bucket: str, *, with_pages: bool, requested_cursor: str) -> JobPage:
    """A page of a list. Only one without a cursor is the last: a page may be empty, and may repeat its own cursor."""
    root = xml_codec.read(body, "Response")
    read = [_job(found, bucket, with_pages=with_pages) for found in _details(root)]
    cursor = text(root, "NextToken")
    return JobPage(
        tuple(job for job, _ in read),
        cursor,
        tuple(marker for _, marker in read),
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
    if not all(text(each, id_name) for each in found):
        if len(found) > 1 or not is_blank(found[0]):
            raise bad_response(f"reply with a {name} without {id_name}")
        found = []
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


def _fields(node: Node, table: _Table) -> dict[str, Any]:
    """The fields of a message from the elements that the table names. An empty element says the same as none.

    UPSTREAM_BAD_RESPONSE when one of them has several texts.
    """
    found: dict[str, Any] = {}
    for name, value in node.items():
        if value is not None and (entry := table.get(name)) is not None:
            word = value.strip() if type(value) is str else text(node, name)
            if word:
                found[entry[0]] = entry[1](word)
    return found


def _job(details: Node, bucket: str, *, with_pages: bool = True) -> tuple[PreviewJob, str]:
    """A `JobsDetail` element of `bucket`, and its marker or "".

    `Code` is "Success" even while a job waits, so it never decides anything; the password that the cloud echoes is left
    where it is.
    """
    fields = _fields(details, _JOB)
    state = _STATES.get(fields.get("raw_state", "").lower(), PreviewJob.STATE_UNSPECIFIED)
    operation, source = part(details, "Operation"), part(details, "Input")
    marker = ""
    if operation is not None:
        marker = _add_operation(fields, operation, is_made=state == PreviewJob.STATE_SUCCESS, with_pages=with_pages)
    if source is not None:
        fields["input"] = _fields(source, _INPUT)
    if state == PreviewJob.STATE_FAILED:
        fields["failure"] = _failure(details, operation)
    return PreviewJob(bucket=bucket, state=state, **fields), marker


def _failure(details: Node, operation: Node | None) -> JobFailure:
    options = None if operation is None else part(operation, "DocProcess")
    has_password = options is not None and bool(text(options, "DocPassword"))
    code = text(details, "Code")
    reason = failures.reason_of(code, has_password=has_password)
    return JobFailure(code=code, message=redacted(text(details, "Message")), reason=reason)


def _add_operation(fields: dict[str, Any], operation: Node, *, is_made: bool, with_pages: bool) -> str:
    """The marker or ""."""
    options, output = part(operation, "DocProcess"), part(operation, "Output")
    fields |= _fields(operation, _OPERATION)
    if options is not None:
        fields["options"] = _options(options)
    if output is not None:
        fields["output"] = _fields(output, _OUTPUT)
    result = part(operation, "DocProcessResult")
    if result is not None and is_made:
        asked = "" if options is None else text(options, "TgtType")
        fields["result"] = _result(result, asked, with_pages=with_pages)
    user_data = part(operation, "UserData")
    if user_data is None:
        return ""
    # Unlike other texts with its white space: it is the caller's.
    fields["user_data"], marker = split_user_data(user_data.get("", ""))
    return marker


def _options(node: Node) -> dict[str, Any]:
    """The options that the cloud returns. Empty and 0 mean that an option was not set."""
    found = _fields(node, _OPTIONS)
    watermark = part(node, "DocWatermark")
    if watermark is not None and not is_blank(watermark):
        found["watermark"] = _watermark(watermark)
    return found


def _watermark(fields: Node) -> Watermark:
    """A watermark. Of its image's address the object is told and nothing else: the rest may be a signature."""
    watermark = Watermark(image=_object_at(text(fields, "Image")), tiled=text(fields, "Batch") == "1")
    for name, field in requests.WATERMARK_NUMBERS.items():
        if (number := _integer(text(fields, name))) is not None:
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


def _result(made: Node, asked: str, *, with_pages: bool) -> dict[str, Any]:
    """What a job made; `asked` is the format that it was asked for."""
    found = _fields(made, _RESULT)
    content_type = _CONTENT_TYPES.get((text(made, "TgtType") or asked or "jpg").lower(), "")
    if with_pages:
        found["pages"] = pages = [_fields(page, _PAGE) for page in parts(made, "PageInfo")]
        for page in pages:
            page["content_type"] = content_type
    return found


def _queue(node: Node, bucket: str) -> PreviewQueue:
    return PreviewQueue(bucket=bucket, **_fields(node, _QUEUE))


def _integer(word: str) -> int | None:
    """The number in `word`; None when there is none that fits an int32."""
    if (small := _SMALL.get(word)) is not None:
        return small
    digits = word.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > _INT32_DIGITS:
        return None
    number = int(word)
    return number if abs(number) <= _INT32_MAX else None


_SMALL = {str(number): number for number in range(-1, 201)}
"""Most numbers of replies, which need no reading."""


def _number_but_0(word: str) -> int | None:
    return _integer(word) or None


def _orientation(word: str) -> PreviewOptions.PaperOrientation.ValueType:
    """0 is vertical, every other number horizontal."""
    direction = _integer(word)
    if direction is None:
        return PreviewOptions.PAPER_ORIENTATION_UNSPECIFIED
    return PreviewOptions.PAPER_ORIENTATION_LANDSCAPE if direction else PreviewOptions.PAPER_ORIENTATION_PORTRAIT


def _target_format(word: str) -> PreviewOptions.TargetFormat.ValueType | None:
    return _TARGET_FORMATS.get(word.lower())


def _queue_state(word: str) -> PreviewQueue.State.ValueType | None:
    return _QUEUE_STATES.get(word.lower())


def _key(word: str) -> str:
    """The key of a page. It begins with a slash when the template did; keys of objects do not."""
    return word.removeprefix("/")


def _moment(word: str) -> dict[str, int] | None:
    """A time such as `2022-09-14T17:15:43+0800`, by default in the cloud's zone; None for `-` and any other text."""
    return _recent_moment(word) if len(word) <= _USUAL_LENGTH else _read_moment(word)


def _read_moment(word: str) -> dict[str, int] | None:
    try:
        moment = datetime.fromisoformat(word)
        seconds = int((moment if moment.tzinfo is not None else moment.replace(tzinfo=_CLOUD_OFFSET)).timestamp())
    except (ValueError, OverflowError):
        return None
    return {"seconds": seconds} if _FIRST_SECOND <= seconds <= _LAST_SECOND else None


_recent_moment = lru_cache(maxsize=4096)(_read_moment)
"""Each poll of a job repeats its times. Nobody changes what this returns."""
_USUAL_LENGTH = len("2022-09-14T17:15:43.000000+08:00")
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
"""Bounds of a `google.protobuf.Timestamp`: from the year 1 to the end of 9999."""


_JOB: _Table = {
    "JobId": ("job_id", str),
    "QueueId": ("queue_id", str),
    "State": ("raw_state", str),
    "CreationTime": ("create_time", _moment),
    "StartTime": ("start_time", _moment),
    "EndTime": ("end_time", _moment),
}
_INPUT: _Table = {"BucketId": ("bucket", str), "Region": ("region", str), "Object": ("object", str)}
_OUTPUT: _Table = {"Bucket": ("bucket", str), "Region": ("region", str), "Object": ("object", str)}
_OPERATION: _Table = {"JobLevel": ("job_level", _integer)}
_OPTIONS: _Table = {
    "SrcType": ("source_format", str),
    "TgtType": ("target_format", _target_format),
    "StartPage": ("start_page", _number_but_0),
    "EndPage": ("end_page", _number_but_0),
    "PageRanges": ("page_ranges", str),
    "SheetId": ("sheet_id", _integer),
    "PaperDirection": ("paper_orientation", _orientation),
    "PaperSize": ("paper_size", _PAPER_SIZES.get),
    "Comments": ("comments", _COMMENTS.get),
    "ImageParams": ("image_params", str),
    "Quality": ("quality", _number_but_0),
    "Zoom": ("zoom_percent", _number_but_0),
    "ImageDpi": ("image_dpi", _number_but_0),
    "PicPagination": ("single_image", "1".__eq__),
}
_RESULT: _Table = {
    "TotalPageCount": ("total_page_count", _integer),
    "SuccPageCount": ("succeeded_page_count", _integer),
    "FailPageCount": ("failed_page_count", _integer),
    "TotalSheetCount": ("total_sheet_count", _integer),
    "TgtType": ("target_format", _target_format),
    "TaskId": ("task_id", str),
}
_PAGE: _Table = {
    "PageNo": ("page_number", _integer),
    "TgtUri": ("object", _key),
    "PicIndex": ("picture_index", _integer),
    "PicNum": ("picture_number", _integer),
    "X-SheetPics": ("sheet_picture_count", _integer),
}
_QUEUE: _Table = {
    "QueueId": ("queue_id", str),
    "Name": ("name", str),
    "State": ("state", _queue_state),
    "MaxSize": ("max_size", _integer),
    "MaxConcurrent": ("max_concurrent", _integer),
    "CreateTime": ("create_time", _moment),
    "UpdateTime": ("update_time", _moment),
    "Category": ("category", str),
}
