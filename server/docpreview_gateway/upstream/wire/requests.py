"""Conversion of requests of the contract to HTTP requests of the cloud's job API.

Unset options are omitted, so that the cloud's own defaults apply. Names and formats: vendor documents 460/46942
(create), 460/46943 (read one), 460/46944 (list), 460/46946 (queues).
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta, timezone
from hashlib import md5
from typing import TYPE_CHECKING

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions, Watermark
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, PreviewQueue
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.upstream.wire import xml as xml_codec
from docpreview_gateway.upstream.wire.http import HttpRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TAG = "DocProcess"
_XML = {"content-type": "application/xml"}
_CLOUD_ZONE = timezone(timedelta(hours=8))

TARGET_FORMATS = {
    PreviewOptions.TARGET_FORMAT_JPG: "jpg",
    PreviewOptions.TARGET_FORMAT_PNG: "png",
    PreviewOptions.TARGET_FORMAT_PDF: "pdf",
}
PAPER_ORIENTATIONS = {PreviewOptions.PAPER_ORIENTATION_PORTRAIT: "0", PreviewOptions.PAPER_ORIENTATION_LANDSCAPE: "1"}
PAPER_SIZES = {PreviewOptions.PAPER_SIZE_A4: "0", PreviewOptions.PAPER_SIZE_A2: "1", PreviewOptions.PAPER_SIZE_A0: "2"}
WATERMARK_NUMBERS = {
    "Dx": "dx",
    "Dy": "dy",
    "HorizontalSpacing": "horizontal_spacing",
    "VerticalSpacing": "vertical_spacing",
}
COMMENTS = {PreviewOptions.COMMENTS_HIDE: "0", PreviewOptions.COMMENTS_SHOW: "1"}
JOB_STATES = {
    PreviewJob.STATE_SUBMITTED: "Submitted",
    PreviewJob.STATE_RUNNING: "Running",
    PreviewJob.STATE_SUCCESS: "Success",
    PreviewJob.STATE_FAILED: "Failed",
    PreviewJob.STATE_PAUSED: "Pause",
    PreviewJob.STATE_CANCELLED: "Cancel",
}
QUEUE_STATES = {PreviewQueue.STATE_ACTIVE: "Active", PreviewQueue.STATE_PAUSED: "Paused"}
ORDERS = {ListPreviewJobsRequest.ORDER_OLDEST_FIRST: "Asc"}


def create(request: CreatePreviewJobRequest, bucket: Bucket, output: Bucket, callback_url: str = "") -> HttpRequest:
    """`POST /doc_jobs`. `bucket` and `output` are the configured buckets that the request names.

    `callback_url` is told the end of the job, as JSON; empty: what the queue says stands (the vendor's SDKs).
    """
    location = (("Region", output.region), ("Bucket", output.name), ("Object", request.output.object))
    operation: list[tuple[str, xml_codec.Tree | str]] = [
        ("Output", location),
        ("DocProcess", tuple(_doc_process(request.options))),
    ]
    if request.user_data:
        operation.append(("UserData", request.user_data))
    tree: list[tuple[str, xml_codec.Tree | str]] = [
        ("Tag", TAG),
        ("Input", (("Object", request.input_object),)),
        ("Operation", operation),
    ]
    queue_id = request.queue_id or bucket.default_queue_id
    if queue_id:
        tree.append(("QueueId", queue_id))
    if callback_url:
        tree += [("CallBack", callback_url), ("CallBackFormat", "JSON"), ("CallBackType", "Url")]
    body = xml_codec.write("Request", tree)
    checksum = base64.b64encode(md5(body, usedforsecurity=False).digest()).decode()
    headers = {**_XML, "content-length": str(len(body)), "content-md5": checksum}
    return HttpRequest("POST", bucket.ci_host, "/doc_jobs", headers=headers, body=body, unrepeatable=True)


def _doc_process(options: PreviewOptions) -> Iterator[tuple[str, str | xml_codec.Tree]]:
    candidates: tuple[tuple[str, str | xml_codec.Tree | None], ...] = (
        ("SrcType", options.source_format),
        ("TgtType", TARGET_FORMATS.get(options.target_format)),
        ("ImageParams", options.image_params),
        ("DocPassword", options.password),
        ("PageRanges", options.page_ranges),
        ("StartPage", _number(options, "start_page")),
        ("EndPage", _number(options, "end_page")),
        ("SheetId", _number(options, "sheet_id")),
        ("PaperDirection", PAPER_ORIENTATIONS.get(options.paper_orientation)),
        ("PaperSize", PAPER_SIZES.get(options.paper_size)),
        ("Quality", _number(options, "quality")),
        ("Zoom", _number(options, "zoom_percent")),
        ("PicPagination", _number(options, "single_image")),
        ("ImageDpi", _number(options, "image_dpi")),
        ("Comments", COMMENTS.get(options.comments)),
        ("DocWatermark", tuple(_watermark(options.watermark)) if options.HasField("watermark") else None),
    )
    return ((name, value) for name, value in candidates if value)


def _watermark(watermark: Watermark) -> Iterator[tuple[str, str]]:
    """An image: the only kind that a source shows (the vendor's SDKs). Its bucket is a configured one."""
    image = watermark.image
    place = Bucket(image.bucket, image.region, credentials="")
    yield "Type", "1"
    yield "Image", f"https://{place.object_host}{HttpRequest('GET', place.object_host, f'/{image.object}').target}"
    for name, field in WATERMARK_NUMBERS.items():
        if (value := _number(watermark, field)) is not None:
            yield name, value
    if watermark.tiled:
        yield "Batch", "1"


def _number(options: PreviewOptions | Watermark, field: str) -> str | None:
    return str(int(getattr(options, field))) if options.HasField(field) else None  # type: ignore[arg-type]


def get(bucket: Bucket, job_id: str) -> HttpRequest:
    """`GET /doc_jobs/<JobId>`."""
    return HttpRequest("GET", bucket.ci_host, f"/doc_jobs/{job_id}", headers=_XML)


def list_jobs(request: ListPreviewJobsRequest, bucket: Bucket, *, size: int, cursor: str) -> HttpRequest:
    """`GET /doc_jobs?...`: one page of `size` jobs after the cloud's `cursor` (empty: the first page)."""
    states = ",".join(JOB_STATES[state] for state in dict.fromkeys(request.states))
    candidates = (
        ("tag", TAG),
        ("orderByTime", ORDERS.get(request.order, "Desc")),
        ("states", states or "All"),
        ("size", str(size)),
        ("nextToken", cursor),
        ("queueId", request.queue_id),
        ("startCreationTime", _time(request, "created_after")),
        ("endCreationTime", _time(request, "created_before")),
    )
    query = tuple((name, value) for name, value in candidates if value)
    return HttpRequest("GET", bucket.ci_host, "/doc_jobs", query=query, headers=_XML)


def _time(request: ListPreviewJobsRequest, field: str) -> str:
    """A time as the cloud reads it. The vendor's manual has `%H:%m:%S`; its samples show that minutes are `%M`."""
    if not request.HasField(field):  # type: ignore[arg-type]
        return ""
    return datetime.fromtimestamp(getattr(request, field).seconds, _CLOUD_ZONE).strftime("%Y-%m-%dT%H:%M:%S%z")


def list_queues(request: ListPreviewQueuesRequest, bucket: Bucket, *, size: int, page: int) -> HttpRequest:
    """`GET /docqueue`: page number `page`, from 1, of `size` queues."""
    query = (
        ("queueIds", ",".join(request.queue_ids)),
        ("state", QUEUE_STATES.get(request.state, "All")),
        ("pageNumber", str(page)),
        ("pageSize", str(size)),
    )
    return HttpRequest("GET", bucket.ci_host, "/docqueue", query=query)


def read_object(bucket: Bucket, key: str, *, content_type: str = "", cache_control: str = "") -> HttpRequest:
    """`GET /<key>` on the bucket's object host. A text replaces that header of the reply (vendor document 436/7753)."""
    wanted = (("response-cache-control", cache_control), ("response-content-type", content_type))
    query = tuple((name, value) for name, value in wanted if value)
    return HttpRequest("GET", bucket.object_host, f"/{key}", query=query)


def read_piece(bucket: Bucket, key: str, first: int, size: int) -> HttpRequest:
    """`GET /<key>` of so many bytes from the one at `first`."""
    return HttpRequest("GET", bucket.object_host, f"/{key}", headers={"range": f"bytes={first}-{first + size - 1}"})


def head_object(bucket: Bucket, key: str) -> HttpRequest:
    """`HEAD /<key>` on the bucket's object host."""
    return HttpRequest("HEAD", bucket.object_host, f"/{key}")


def put_object(bucket: Bucket, key: str, headers: Mapping[str, str]) -> HttpRequest:
    """`PUT /<key>` of an object with these headers."""
    return HttpRequest("PUT", bucket.object_host, f"/{key}", headers=headers)


def put_part(bucket: Bucket, key: str, multipart: str, number: int, headers: Mapping[str, str]) -> HttpRequest:
    """`PUT /<key>?partNumber=...&uploadId=...`: part `number`, from 1, of a multipart upload."""
    query = (("partNumber", str(number)), ("uploadId", multipart))
    return HttpRequest("PUT", bucket.object_host, f"/{key}", query=query, headers=headers)


def initiate_multipart(bucket: Bucket, key: str, headers: Mapping[str, str]) -> HttpRequest:
    """`POST /<key>?uploads`: begins a multipart upload of an object with these headers."""
    headers = {**headers, "content-length": "0"}
    return HttpRequest("POST", bucket.object_host, f"/{key}", query=(("uploads", ""),), headers=headers)


def complete_multipart(
    bucket: Bucket, key: str, multipart: str, etags: Sequence[str], headers: Mapping[str, str]
) -> HttpRequest:
    """`POST /<key>?uploadId=...`: makes the object of its parts, whose ETags are in their order."""
    parts = [("Part", (("PartNumber", str(number)), ("ETag", etag))) for number, etag in enumerate(etags, 1)]
    body = xml_codec.write("CompleteMultipartUpload", parts)
    headers = {**headers, **_XML, "content-length": str(len(body))}
    query = (("uploadId", multipart),)
    return HttpRequest("POST", bucket.object_host, f"/{key}", query=query, headers=headers, body=body)


def abort_multipart(bucket: Bucket, key: str, multipart: str) -> HttpRequest:
    """`DELETE /<key>?uploadId=...`: deletes the parts of a multipart upload."""
    return HttpRequest("DELETE", bucket.object_host, f"/{key}", query=(("uploadId", multipart),))
