"""Requests of the gateway compared with those of the vendor's SDK; this file lists every difference."""

from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model import validation
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.upstream.wire import requests
from docpreview_gateway.upstream.wire.http import HttpRequest
from docpreview_gateway.upstream.wire.signing import Window, presign

from . import vendor_sdk
from .xml_values import leaves

BUCKET = Bucket("examplebucket-1250000000", vendor_sdk.REGION, "main")
OUTPUT = Bucket("results-1250000000", "ap-guangzhou", "main")
QUEUE = "p4bdf22746b014a22a5a097b1f1d057f1"
JOB = "dcf488492340d11edb2a0e3aa2e38c523"
TEMPLATE = "/test_doc/normal/abc_${Number}.jpg"

ONLY_THE_SDK_SENDS = {
    "Operation/DocProcess/EndPage": "-1",
    "Operation/DocProcess/Quality": "100",
    "Operation/DocProcess/Zoom": "100",
    "Operation/DocProcess/ImageDpi": "96",
}
"""Defaults that the SDK sends for unset parameters; the gateway omits them."""

ONLY_THE_GATEWAY_SENDS = {
    "Operation/DocProcess/SheetId": "0",
    "Operation/DocProcess/PaperDirection": "0",
    "Operation/DocProcess/PaperSize": "0",
    "Operation/DocProcess/PicPagination": "0",
    "Operation/DocProcess/Comments": "0",
}
"""Explicit zeros, which the gateway sends and the SDK drops as false values."""

SDK_HEADERS = {"user-agent", "accept", "accept-encoding", "connection"}
"""Headers of the HTTP library, which in the gateway is the transport."""

CREATES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing but what is required": ({}, {}),
    "the seed's sample, with a legal quality": (
        {"queueId": QUEUE, "options": {"quality": 99, "pageRanges": "1,3"}},
        {"QueueId": QUEUE, "Quality": 99, "PageRanges": "1,3"},
    ),
    "every option": (
        {
            "queueId": QUEUE,
            "options": {
                "sourceFormat": "pptx",
                "targetFormat": "TARGET_FORMAT_PNG",
                "startPage": 2,
                "endPage": 9,
                "sheetId": 3,
                "paperOrientation": "PAPER_ORIENTATION_LANDSCAPE",
                "paperSize": "PAPER_SIZE_A0",
                "password": " a<&>\"'b中",
                "comments": "COMMENTS_SHOW",
                "imageParams": "imageMogr2/thumbnail/!50p|watermark/2/text/5Lit",
                "quality": 1,
                "zoomPercent": 200,
                "imageDpi": 600,
                "singleImage": True,
            },
        },
        {
            "QueueId": QUEUE,
            "SrcType": "pptx",
            "TgtType": "png",
            "StartPage": 2,
            "EndPage": 9,
            "SheetId": 3,
            "PaperDirection": 1,
            "PaperSize": 2,
            "DocPassword": " a<&>\"'b中",
            "Comments": 1,
            "ImageParams": "imageMogr2/thumbnail/!50p|watermark/2/text/5Lit",
            "Quality": 1,
            "Zoom": 200,
            "ImageDpi": 600,
            "PicPagination": 1,
        },
    ),
    "explicit zeros": (
        {
            "options": {
                "endPage": -1,
                "sheetId": 0,
                "paperOrientation": "PAPER_ORIENTATION_PORTRAIT",
                "paperSize": "PAPER_SIZE_A4",
                "comments": "COMMENTS_HIDE",
                "quality": 100,
                "zoomPercent": 100,
                "imageDpi": 96,
                "singleImage": False,
            }
        },
        {"SheetId": 0, "PaperDirection": 0, "PaperSize": 0, "Comments": 0, "PicPagination": 0},
    ),
}

LISTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {}),
    "every filter": (
        {
            "queueId": QUEUE,
            "states": ["STATE_SUCCESS", "STATE_FAILED", "STATE_PAUSED", "STATE_CANCELLED"],
            "order": "ORDER_OLDEST_FIRST",
            "createdAfter": "2022-09-13T16:00:00Z",
            "createdBefore": "2022-09-14T16:00:00Z",
        },
        {
            "QueueId": QUEUE,
            "States": "Success,Failed,Pause,Cancel",
            "OrderByTime": "Asc",
            "StartCreationTime": "2022-09-14T00:00:00+0800",
            "EndCreationTime": "2022-09-15T00:00:00+0800",
        },
    ),
}


def _create(fields: dict[str, Any]) -> HttpRequest:
    required = {
        "bucket": BUCKET.name,
        "inputObject": "docs/normal.pptx",
        "output": {"bucket": OUTPUT.name, "object": TEMPLATE},
    }
    request = ParseDict({**required, **fields}, CreatePreviewJobRequest())
    validation.check(request)
    return requests.create(request, BUCKET, OUTPUT)


def _sdk_create(parameters: dict[str, Any]) -> vendor_sdk.Sent:
    return vendor_sdk.send(
        "ci_create_doc_job",
        Bucket=BUCKET.name,
        InputObject="docs/normal.pptx",
        OutputBucket=OUTPUT.name,
        OutputRegion=OUTPUT.region,
        OutputObject=TEMPLATE,
        **parameters,
    )


@pytest.mark.parametrize(("fields", "parameters"), CREATES.values(), ids=list(CREATES))
def test_the_body_of_a_create_has_the_sdks_elements(fields: dict[str, Any], parameters: dict[str, Any]) -> None:
    """With the same texts, except for the SDK's defaults and our explicit zeros."""
    ours, theirs = leaves(_create(fields).body), leaves(_sdk_create(parameters).body)
    ours.pop("Operation/DocProcess", None)  # empty without options; the SDK never has it empty
    shared = ours.keys() & theirs.keys()
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
    assert {name: theirs[name] for name in theirs.keys() - shared}.items() <= ONLY_THE_SDK_SENDS.items()
    assert {name: ours[name] for name in ours.keys() - shared}.items() <= ONLY_THE_GATEWAY_SENDS.items()


def test_every_allowed_difference_occurs() -> None:
    """The lists above have no stale entries."""
    nothing, zeros = CREATES["nothing but what is required"], CREATES["explicit zeros"]
    sdk_only = leaves(_sdk_create(nothing[1]).body).keys() - leaves(_create(nothing[0]).body).keys()
    gateway_only = leaves(_create(zeros[0]).body).keys() - leaves(_sdk_create(zeros[1]).body).keys()
    assert sdk_only == ONLY_THE_SDK_SENDS.keys()
    assert gateway_only == ONLY_THE_GATEWAY_SENDS.keys()


def test_a_create_has_the_sdks_method_host_path_query_and_headers() -> None:
    """The gateway adds the body's checksum."""
    ours, theirs = _create({}), _sdk_create({})
    assert (ours.method, ours.host, ours.path, dict(ours.query)) == (
        theirs.method,
        theirs.host,
        theirs.path,
        theirs.query,
    )
    assert ours.headers.keys() - {"content-md5"} == theirs.headers.keys() - SDK_HEADERS - {"authorization"}
    assert ours.headers["content-type"] == theirs.headers["content-type"]


def test_a_get_is_the_sdks_request() -> None:
    """Method, host, path, query and headers."""
    _assert_same(requests.get(BUCKET, JOB), vendor_sdk.send("ci_get_doc_job", Bucket=BUCKET.name, JobID=JOB))


@pytest.mark.parametrize(("fields", "parameters"), LISTS.values(), ids=list(LISTS))
@pytest.mark.parametrize("cursor", ["", "75789", "a b+c/d=e*(1)!'~-_.:中"])
def test_a_list_request_is_the_sdks_but_for_its_empty_next_token(
    fields: dict[str, Any], parameters: dict[str, Any], cursor: str
) -> None:
    """The SDK sends an empty nextToken for the first page, the gateway none."""
    request = ParseDict({"bucket": BUCKET.name, **fields}, ListPreviewJobsRequest())
    validation.check(request)
    ours = requests.list_jobs(request, BUCKET, size=100, cursor=cursor)
    theirs = vendor_sdk.send("ci_list_doc_jobs", Bucket=BUCKET.name, Size=100, NextToken=cursor, **parameters)
    if not cursor:
        assert theirs.query.pop("nextToken") == ""
    _assert_same(ours, theirs)


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        ({}, {}),
        ({"state": "STATE_ACTIVE", "queueIds": ["p1", "p2"]}, {"State": "Active", "QueueIds": "p1,p2"}),
        ({"state": "STATE_PAUSED"}, {"State": "Paused"}),
    ],
)
def test_a_list_of_queues_is_the_sdks_request(fields: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Method, host, path, query and headers."""
    request = ParseDict({"bucket": BUCKET.name, **fields}, ListPreviewQueuesRequest())
    validation.check(request)
    ours = requests.list_queues(request, BUCKET, size=7, page=3)
    _assert_same(ours, vendor_sdk.send("ci_get_doc_queue", Bucket=BUCKET.name, PageNumber=3, PageSize=7, **parameters))


def _assert_same(ours: HttpRequest, theirs: vendor_sdk.Sent) -> None:
    assert (ours.method, ours.host, ours.path, ours.body) == (theirs.method, theirs.host, theirs.path, theirs.body)
    assert dict(ours.query) == theirs.query
    assert len(dict(ours.query)) == len(ours.query)
    assert dict(ours.headers) == {
        name: value for name, value in theirs.headers.items() if name not in SDK_HEADERS | {"authorization"}
    }


def test_times_of_a_list_have_their_minutes() -> None:
    """The vendor's manual prints %m, the month, for them."""
    request = ListPreviewJobsRequest(bucket=BUCKET.name, created_after=Timestamp(seconds=1663146943))
    query = dict(requests.list_jobs(request, BUCKET, size=1, cursor="").query)
    assert query["startCreationTime"] == "2022-09-14T17:15:43+0800"


def test_an_address_of_an_upload_has_the_signature_of_the_sdks_presigned_put() -> None:
    """With the same headers, parameters and window: of one part, and of a part of a multipart upload."""
    headers = {
        "content-length": "7",
        "content-type": "application/pdf",
        "content-md5": "bW1tbW1tbW1tbW1tbW1tbQ==",
        "x-cos-forbid-overwrite": "true",
        "x-cos-meta-docpreview-upload": "0f" * 16,
    }
    part = {"partNumber": "3", "uploadId": "16+0/2="}
    length, key = {"content-length": "9"}, "in/a b+\u4e2d.pdf"
    for more, params, unsigned in (
        (headers, {}, requests.put_object(BUCKET, key, headers)),
        (length, part, requests.put_part(BUCKET, key, part["uploadId"], 3, length)),
    ):
        theirs = vendor_sdk.presigned("PUT", BUCKET.name, key, headers=more, params=params)
        begin, end = map(int, theirs.query["q-sign-time"].split(";"))
        ours = presign(unsigned, vendor_sdk.CREDENTIALS, Window(begin, end))
        assert ours.host == theirs.host
        assert dict(ours.query) == theirs.query
