"""Writers of the cloud's XML documents."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from xml.sax.saxutils import escape

from docpreview_emulator.clock import cloud_time
from docpreview_emulator.model import (
    Bucket,
    Job,
    JobResult,
    NotifyConfig,
    PageInfo,
    Queue,
)

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Listing(Generic[Item]):
    """One numbered page of a longer list of `total` items; `number` counts from 1."""

    items: Sequence[Item]
    total: int
    number: int
    size: int

    @classmethod
    def cut(cls, everything: Sequence[Item], number: int, size: int) -> "Listing[Item]":
        """Page `number` of everything."""
        start = (number - 1) * size
        return cls(everything[start : start + size], len(everything), number, size)


def element(name: str, *content: str) -> str:
    """One element around markup that is already written."""
    return f"<{name}>{''.join(content)}</{name}>"


def leaf(name: str, value: object) -> str:
    """One element around text; characters that XML cannot hold become a replacement mark."""
    text = escape(_NOT_XML.sub("\ufffd", str(value)), {"\r": "&#13;"})
    return f"<{name}>{text}</{name}>" if text else f"<{name}/>"


def document(root: str) -> bytes:
    """A whole document."""
    return f'<?xml version="1.0" encoding="utf-8"?>\n{root}'.encode()


def error_document(code: str, message: str, request_id: str, resource: str | None) -> bytes:
    """An `Error`. Object hosts name the resource, document hosts do not (the vendor's own SDK stumbles over it)."""
    parts = [leaf("Code", code), leaf("Message", message)]
    if resource is not None:
        parts.append(leaf("Resource", resource))
    return document(element("Error", *parts, leaf("RequestId", request_id), leaf("TraceId", request_id)))


def job_response(job: Job) -> bytes:
    """The answer to create, and to get when the job exists."""
    return document(element("Response", job_detail(job)))


def callback_response(job: Job) -> bytes:
    """The body of a callback."""
    return document(element("Response", leaf("EventName", "TaskFinish"), job_detail(job)))


def missing_job_response(job_id: str) -> bytes:
    """The answer to get when there is no such job (HTTP 200, and no `JobsDetail`)."""
    return document(element("Response", leaf("NonExistJobIds", job_id)))


def list_response(jobs: Iterable[Job], next_token: str) -> bytes:
    """The answer to list; `NextToken` is empty on the last page."""
    return document(element("Response", *map(job_detail, jobs), leaf("NextToken", next_token)))


def job_detail(job: Job) -> str:
    """One `JobsDetail`."""
    return element(
        "JobsDetail",
        leaf("Code", job.code),
        leaf("Message", job.message),
        leaf("JobId", job.job_id),
        leaf("Tag", "DocProcess"),
        leaf("State", job.state),
        leaf("CreationTime", cloud_time(job.created)),
        leaf("StartTime", _time(job.started)),
        leaf("EndTime", _time(job.ended)),
        leaf("QueueId", job.queue_id),
        _input(job.bucket, job.spec.input_object),
        _operation(job),
    )


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else cloud_time(seconds)


def _input(bucket: Bucket, key: str) -> str:
    return element("Input", leaf("BucketId", bucket.name), leaf("Object", key), leaf("Region", bucket.region))


def _operation(job: Job) -> str:
    spec = job.spec
    process = [leaf(name, value) for name, value in spec.process.items()]
    if spec.watermark:
        process.append(element("DocWatermark", *(leaf(name, value) for name, value in spec.watermark.items())))
    parts = [element("DocProcess", *process)]
    if job.result is not None:
        parts.append(_result(job.result, spec.process["TgtType"]))
    parts.append(leaf("JobLevel", 0))
    output = (
        leaf("Bucket", spec.output.bucket),
        leaf("Object", spec.output.object),
        leaf("Region", spec.output.region),
    )
    parts.append(element("Output", *output))
    if spec.user_data is not None:
        parts.append(leaf("UserData", spec.user_data))
    return element("Operation", *parts)


def _result(result: JobResult, target_type: str) -> str:
    parts = [
        leaf("FailPageCount", result.failed_pages),
        *map(_page_info, result.pages),
        leaf("SuccPageCount", len(result.pages)),
        leaf("TaskId", ""),
        leaf("TgtType", target_type),
        leaf("TotalPageCount", result.total_pages),
    ]
    if result.total_sheets is not None:
        parts.append(leaf("TotalSheetCount", result.total_sheets))
    return element("DocProcessResult", *parts)


def _page_info(page: PageInfo) -> str:
    parts = [leaf("PageNo", page.page_no), leaf("TgtUri", page.target)]
    if page.sheet_pictures is not None:
        parts += [
            leaf("X-SheetPics", page.sheet_pictures),
            leaf("PicIndex", page.picture_index),
            leaf("PicNum", page.picture_number),
        ]
    return element("PageInfo", *parts)


def queues_response(request_id: str, page: Listing[Queue], missing: Sequence[str], max_concurrent: int) -> bytes:
    """The answer to `GET /docqueue`."""
    parts = [*_paging(request_id, page), *(_queue("QueueList", queue, max_concurrent) for queue in page.items)]
    if missing:
        parts.append(element("NonExistPIDs", *(leaf("QueueID", queue_id) for queue_id in missing)))
    return document(element("Response", *parts))


def queue_response(request_id: str, queue: Queue, max_concurrent: int) -> bytes:
    """The answer to `PUT /docqueue/<id>`."""
    return document(element("Response", leaf("RequestId", request_id), _queue("Queue", queue, max_concurrent)))


def _paging(request_id: str, page: Listing[Item]) -> tuple[str, ...]:
    return (
        leaf("TotalCount", page.total),
        leaf("RequestId", request_id),
        leaf("PageNumber", page.number),
        leaf("PageSize", page.size),
    )


def _queue(name: str, queue: Queue, max_concurrent: int) -> str:
    return element(
        name,
        leaf("QueueId", queue.queue_id),
        leaf("Name", queue.name),
        leaf("State", "Active" if queue.active else "Paused"),
        _notify(queue.notify),
        leaf("MaxSize", 10000),
        leaf("MaxConcurrent", max_concurrent),
        leaf("CreateTime", cloud_time(queue.created)),
        leaf("UpdateTime", cloud_time(queue.updated)),
        leaf("BucketId", queue.bucket.name),
        leaf("Category", "DocProcessing"),
    )


def _notify(notify: NotifyConfig) -> str:
    return element(
        "NotifyConfig",
        leaf("Url", notify.url),
        leaf("Event", notify.event),
        leaf("Type", notify.type),
        leaf("ResultFormat", notify.result_format),
        *(leaf(name, "") for name in ("MqMode", "MqName", "MqRegion")),
        leaf("State", notify.state),
    )


def buckets_response(request_id: str, page: Listing[tuple[Bucket, float]]) -> bytes:
    """The answer to `GET /docbucket`."""
    parts = [element("DocBucketList", *_bucket(bucket, created)) for bucket, created in page.items]
    return document(element("Response", *_paging(request_id, page), *parts))


def bucket_response(request_id: str, bucket: Bucket, created: float) -> bytes:
    """The answer to `POST /docbucket`."""
    detail = element("DocBucket", *_bucket(bucket, created))
    return document(element("Response", leaf("RequestId", request_id), detail))


def _bucket(bucket: Bucket, created: float) -> tuple[str, ...]:
    return (
        leaf("Name", bucket.name),
        leaf("BucketId", bucket.name),
        leaf("CreateTime", cloud_time(created)),
        leaf("Region", bucket.region),
        leaf("AliasBucketId", ""),
    )
