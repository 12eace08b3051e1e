"""Page tokens: the cloud's cursor, bound to one list."""

import base64

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, PreviewQueue
from docpreview_gateway.jobs import page_tokens
from docpreview_gateway.model.errors import InvalidRequest

BUCKET = "examplebucket-1250000000"
FIRST = ListPreviewJobsRequest(bucket=BUCKET, queue_id="p1", states=[PreviewJob.STATE_FAILED], page_size=10)


def _refusal(request: ListPreviewJobsRequest | ListPreviewQueuesRequest) -> str:
    with pytest.raises(InvalidRequest) as caught:
        page_tokens.decode(request)
    [violation] = caught.value.violations
    assert violation.field == "page_token"
    return violation.description


def _next(request: ListPreviewJobsRequest, cursor: str = "75789") -> ListPreviewJobsRequest:
    following = ListPreviewJobsRequest()
    following.CopyFrom(request)
    following.page_token = page_tokens.encode(request, cursor)
    return following


def test_the_first_page_needs_no_token_and_the_last_gives_none() -> None:
    """An empty token is the first page; an empty cursor gives an empty token."""
    assert page_tokens.decode(FIRST) == ""
    assert page_tokens.encode(FIRST, "") == ""


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=250))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_any_cursor_comes_back_from_a_token_within_the_contracts_limit(cursor: str) -> None:
    """Any cursor survives in a token that needs no escaping and is within the contract's limit."""
    request = _next(FIRST, cursor)
    assert page_tokens.decode(request) == cursor
    assert request.page_token.replace("-", "").replace("_", "").isalnum()
    assert len(request.page_token) <= 1024 or len(cursor.encode()) > 700


def test_page_size_and_include_pages_may_change_between_pages() -> None:
    """They are not filters: the list is the same."""
    request = _next(FIRST)
    request.page_size, request.include_pages = 50, True
    assert page_tokens.decode(request) == "75789"


@pytest.mark.parametrize(
    "change",
    [
        ListPreviewJobsRequest(bucket="other-1250000000"),
        ListPreviewJobsRequest(queue_id="p2"),
        ListPreviewJobsRequest(states=[PreviewJob.STATE_SUCCESS]),
        ListPreviewJobsRequest(order=ListPreviewJobsRequest.ORDER_OLDEST_FIRST),
        ListPreviewJobsRequest(created_after=Timestamp(seconds=1)),
        ListPreviewJobsRequest(created_before=Timestamp(seconds=1)),
    ],
    ids=lambda change: change.ListFields()[0][0].name,
)
def test_a_token_with_other_filters_is_rejected(change: ListPreviewJobsRequest) -> None:
    """With other filters the cursor would be a position in another list."""
    request = _next(FIRST)
    request.MergeFrom(change)
    assert "other filters" in _refusal(request)


def test_a_token_of_the_other_service_is_rejected() -> None:
    """A token of a list of jobs is not valid for a list of queues."""
    jobs, queues = ListPreviewJobsRequest(bucket=BUCKET), ListPreviewQueuesRequest(bucket=BUCKET)
    queues.page_token = page_tokens.encode(jobs, "2:10")
    assert "other filters" in _refusal(queues)
    queues.page_token = page_tokens.encode(queues, "2:10")
    assert page_tokens.decode(queues) == "2:10"
    queues.state = PreviewQueue.STATE_ACTIVE
    assert "other filters" in _refusal(queues)


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "75789",
        "====",
        "ü",
        "\0",
        "a b",
        "AQ",
        base64.urlsafe_b64encode(b"\x01" + b"d" * 12).decode(),
        base64.urlsafe_b64encode(b"\x02" + b"d" * 12 + b"75789").decode(),
        base64.urlsafe_b64encode(b"\x01" + b"d" * 12 + b"\xff").decode(),
        base64.urlsafe_b64encode(b"\x01" + b"d" * 12 + b"7\r\nX: y").decode(),
    ],
)
def test_a_forged_token_is_rejected(token: str) -> None:
    """Forged, truncated and foreign tokens are rejected."""
    request = ListPreviewJobsRequest(bucket=BUCKET, page_token=token)
    assert "not a token of this gateway" in _refusal(request)


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_any_text_that_is_not_a_token_is_rejected(text: str) -> None:
    """Any text raises InvalidRequest and no other exception."""
    request = ListPreviewJobsRequest(bucket=BUCKET, page_token="x" + text.encode(errors="replace").decode())
    with pytest.raises(InvalidRequest):
        page_tokens.decode(request)
