"""Ten thousand random requests, valid and hostile: InvalidRequest, or a request to the cloud with the same values."""

import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree as ET

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from docpreview.v1 import preview_job_service_pb2 as jobs
from docpreview.v1 import preview_queue_service_pb2 as queues
from docpreview.v1 import upload_service_pb2 as uploads
from docpreview_gateway.model import validation
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.errors import InvalidRequest
from docpreview_gateway.upstream.wire import requests
from docpreview_gateway.upstream.wire.http import HttpRequest

from . import wire_values
from .xml_values import leaves

REGION = "ap-chongqing"
TARGET = re.compile(r"/[A-Za-z0-9/._~%-]*(?:\?[A-Za-z0-9=&._~%-]*)?", re.ASCII)

HOSTILE = [
    "",
    " ",
    "\0",
    "\x1b[31m",
    "a\r\nHost: evil.example",
    "\ufffe",
    "\u2028",
    "\x85",
    "\U0010ffff",
    "../../etc/passwd",
    "a/../b",
    "/",
    "//",
    "?x=1&tag=Other",
    "#",
    "%2e%2e",
    "%00",
    "]]></Object><Url>http://169.254.169.254/</Url>",
    "<!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]>&y;",
    "&amp;",
    "\u202egpj.${Number}",
    "e\u0301",
    "中文/${Page}.jpg",
    "x" * 851,
    "中" * 284,
    "evil.com/",
    "x@evil.com#",
    "a-125.evil.com/?",
    "127.0.0.1:80/",
    "ap。evil",
    "-1",
    "1,2-4,7",
    "7,1",
    "1-99999",
    "1" * 1001,
    "AQAAAAAAAAAAAAAAADE",
    "=",
]

HONEST: dict[str, list[Any]] = {
    "bucket": ["examplebucket-1250000000", "a-12345", "x" * 49 + "-1234567890123"],
    "region": [REGION],
    "job_id": ["dcf488492340d11edb2a0e3aa2e38c523", "J1"],
    "job_ids": ["dcf488492340d11edb2a0e3aa2e38c523", "J1"],
    "queue_id": ["p4bdf22746b014a22a5a097b1f1d057f1", "p1"],
    "queue_ids": ["p4bdf22746b014a22a5a097b1f1d057f1", "p1"],
    "input_object": ["normal.pptx", "/a b/c+d=e&f.docx", "中/文.PDF", "x<&>'\"]]>.txt", "tab\u2003le.csv"],
    "object": ["r/${SheetID}/abc_${Number}.jpg", "/a b&<>/${SheetID}-${Page}", "中/${SheetID}/${Number}"],
    "source_format": ["pptx", "txt"],
    "start_page": [1, 2],
    "end_page": [-1, 2, 5000],
    "page_ranges": ["1,3", "1-20"],
    "sheet_id": [0, 10_000],
    "password": [" p<&>\"'中\U0001f511 ", "x" * 255],
    "image_params": ["imageMogr2/thumbnail/!50p|imageView2/q/1", " <&> "],
    "quality": [1, 100],
    "zoom_percent": [10, 200],
    "image_dpi": [96, 600],
    "user_data": [" ~<&>\"' ", "x" * 960],
    "request_id": [""],
    "preset": ["", "thumbnail"],
    "webhook": ["", "orders"],
    "page_size": [0, 1, 100],
    "page_token": [""],
    "target_format": [1, 2],
    "states": [1, 2, 3, 4, 5, 6],
    "state": [1, 2],
    "seconds": [1, 60, 300],
    "nanos": [0],
    "content_length": [1, 209_715_200],
    "content_type": ["application/pdf", "text/plain; charset=utf-8"],
    "content_md5": [b"0123456789abcdef"],
    "upload_token": ["AQ-_"],
    "etags": ['"d41d8cd98f00b204e9800998ecf8427e-2"', "<&>"],
}
"""Valid values by field name. Fields of enums without an entry have 1 and 2."""

_NEEDED = {
    *("bucket", "job_id", "job_ids", "input_object", "output"),
    *("object", "content_length", "upload_token", "etags"),
}
NUMBERS = [0, 1, -1, 2, 99, 5001, 2**31 - 1, -(2**31)]
VALUES: dict[int, list[Any]] = {
    FieldDescriptor.TYPE_BOOL: [False, True],
    FieldDescriptor.TYPE_INT64: [*NUMBERS, 253_402_271_999, 253_402_272_000, 253_402_300_799, 2**63 - 1, -(2**63)],
    FieldDescriptor.TYPE_FIXED64: [0, 1, 2**64 - 1],
}


def a_request(rnd: Random) -> Message:
    """A request of a random type, about half of them with valid values only."""
    kind = rnd.choice(list(validation.FIELDS))
    hostility = rnd.choice([0.0, 0.0, 0.05, 0.5])
    return _filled(kind(), rnd, hostility, always=True)


def _filled(message: Message, rnd: Random, hostility: float, *, always: bool = False) -> Message:
    for field in message.DESCRIPTOR.fields:
        if not (always and field.name in _NEEDED) and rnd.random() < 0.6:
            continue
        _fill(message, cast("FieldDescriptor", field), rnd, hostility)
    return message


def _fill(message: Message, field: FieldDescriptor, rnd: Random, hostility: float) -> None:
    if field.is_repeated:
        count = rnd.choice([0, 1, 2, 101]) if rnd.random() < hostility else rnd.choice([1, 2])
        getattr(message, field.name).extend(_value(field, rnd, hostility) for _ in range(count))
    elif field.type == field.TYPE_MESSAGE:
        child = getattr(message, field.name)
        child.SetInParent()
        _filled(child, rnd, hostility)
        if field.name in {"output", "image"}:
            child.object = child.object or rnd.choice(HONEST["object"])
    else:
        setattr(message, field.name, _value(field, rnd, hostility))


def _value(field: FieldDescriptor, rnd: Random, hostility: float) -> Any:
    if rnd.random() >= hostility:
        return rnd.choice(HONEST.get(field.name, [1, 2] if field.type != field.TYPE_BOOL else [False, True]))
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return rnd.choice(HOSTILE) + rnd.choice(["", "", rnd.choice(HOSTILE)])
        case FieldDescriptor.TYPE_BYTES:
            return rnd.choice(HOSTILE).encode()
        case _:
            return rnd.choice(VALUES.get(field.type, NUMBERS))


def wire_requests(request: Any) -> Iterator[HttpRequest]:
    """The requests to the cloud for a valid request."""
    if type(request).__name__ in uploads.DESCRIPTOR.message_types_by_name:
        yield from object_requests(request)
        return
    bucket = Bucket(request.bucket, REGION, "main")
    match request:
        case jobs.CreatePreviewJobRequest():
            # As the registry of buckets fills it in.
            if request.options.HasField("watermark"):
                image = request.options.watermark.image
                image.bucket, image.region = image.bucket or request.bucket, REGION
            yield requests.create(request, bucket, Bucket(request.output.bucket or request.bucket, REGION, "main"))
        case jobs.BatchGetPreviewJobsRequest() | jobs.WatchPreviewJobsRequest():
            yield from (requests.get(bucket, job_id) for job_id in request.job_ids)
        case jobs.ListPreviewJobsRequest():
            yield requests.list_jobs(request, bucket, size=10, cursor=request.page_token)
        case queues.ListPreviewQueuesRequest():
            yield requests.list_queues(request, bucket, size=10, page=1)
        case _:
            yield requests.get(bucket, request.job_id)


def object_requests(request: Any) -> Iterator[HttpRequest]:
    """The requests to the object store for a valid request of UploadService."""
    bucket = Bucket(getattr(request, "bucket", HONEST["bucket"][0]), REGION, "main")
    match request:
        case uploads.CreateUploadRequest():
            headers = {"content-type": request.content_type} if request.content_type else {}
            yield requests.put_object(bucket, request.object, headers)
            yield requests.initiate_multipart(bucket, request.object, headers)
        case uploads.CompleteUploadRequest():
            yield requests.complete_multipart(bucket, "k", "u1", request.etags, {})
        case _:
            yield requests.abort_multipart(bucket, "k", "u1")


def passes(request: Message) -> bool:
    """Whether validation accepts the request. Accepted values must reach the cloud unchanged."""
    try:
        validation.check(request)
        sent = list(wire_requests(request))
    except InvalidRequest as error:
        assert error.violations  # noqa: PT017 - for every error
        return False
    for wire in sent:
        assert_honest(wire)
        if isinstance(request, uploads.CompleteUploadRequest):
            found = [part.findtext("ETag") for part in ET.fromstring(wire.body)]  # noqa: S314 - our own
            assert found == list(request.etags)
        if isinstance(request, jobs.CreatePreviewJobRequest):
            assert leaves(wire.body) == wire_values.expected(request, REGION)
    return True


def assert_honest(wire: HttpRequest) -> None:
    """The caller's text has no syntax in the URL, and all of it arrives."""
    assert TARGET.fullmatch(wire.target)
    address = urlsplit(f"https://{wire.host}{wire.target}")
    assert address.hostname == wire.host
    is_of_jobs = wire.host.endswith(f".ci.{REGION}.myqcloud.com")
    assert is_of_jobs or wire.host.endswith(f".cos.{REGION}.myqcloud.com")
    assert wire.host.count(".") == 4
    assert unquote(address.path) == wire.path
    assert address.path.count("/") == wire.path.count("/")
    assert not is_of_jobs or wire.path.count("/") == (2 if wire.path.startswith("/doc_jobs/") else 1)
    assert parse_qsl(address.query, keep_blank_values=True) == list(wire.query)
    assert all(value.isascii() and value.isprintable() for value in wire.headers.values())


@pytest.mark.slow
@given(st.randoms(use_true_random=True))  # one draw a request: drawing every field costs a minute
@settings(
    max_examples=10_000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_request_is_refused_with_violations_or_sent_intact(rnd: Random) -> None:
    """Property test of validation and encoding."""
    passes(a_request(rnd))


def test_many_random_requests_pass_and_many_are_rejected() -> None:
    """Of every type, so that the test above tests both."""
    rnd = Random(7)  # noqa: S311 - the same requests each time
    seen: Counter[tuple[str, bool]] = Counter()
    for _ in range(5_000):
        request = a_request(rnd)
        seen[request.DESCRIPTOR.name, passes(request)] += 1
    assert {name for name, _ in seen} == {kind.DESCRIPTOR.name for kind in validation.FIELDS}
    assert min(seen.values()) > 50, seen
    assert len(seen) == 2 * len(validation.FIELDS)


def test_validation_and_encoding_leak_no_memory() -> None:
    """The cache of encoded texts is bounded."""
    rnd = Random(11)  # noqa: S311 - the same requests each time
    _check_many(rnd, 1_000)
    tracemalloc.start()
    try:
        _check_many(rnd, 500)
        before, _ = tracemalloc.get_traced_memory()
        _check_many(rnd, 2_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1024 * 1024


def _check_many(rnd: Random, times: int) -> None:
    for _ in range(times):
        passes(a_request(rnd))
