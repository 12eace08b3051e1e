"""Page tokens carry the cloud's cursor and belong to one list."""

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


def test_first_and_last_page() -> None:
    """No token asks for the first page, none is given after the last."""
    assert page_tokens.decode(FIRST) == ""
    assert page_tokens.encode(FIRST, "") == ""


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=250))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_any_cursor_comes_back_from_a_token_within_the_contracts_limit(cursor: str) -> None:
    """What the cloud gave comes back, in a token that needs no escaping and keeps the contract's limit."""
    request = _next(FIRST, cursor)
    assert page_tokens.decode(request) == cursor
    assert request.page_token.replace("-", "").replace("_", "").isalnum()
    assert len(request.page_token) <= 1024 or len(cursor.encode()) > 700


def test_page_size_and_pages_may_change() -> None:
    """They are no filters: the list is the same."""
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
def test_token_of_another_list(change: ListPreviewJobsRequest) -> None:
    """A token with changed filters is refused: its cursor would mean something else."""
    request = _next(FIRST)
    request.MergeFrom(change)
    assert "other filters" in _refusal(request)


def test_token_of_the_other_service() -> None:
    """A token of a list of jobs is none for a list of queues."""
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
def test_text_that_is_no_token(token: str) -> None:
    """Made-up, cut and foreign tokens are refused."""
    request = ListPreviewJobsRequest(bucket=BUCKET, page_token=token)
    assert "not a token of this gateway" in _refusal(request)


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_any_text_that_is_no_token_is_refused(text: str) -> None:
    """Whatever a caller sends is refused, never an accident."""
    request = ListPreviewJobsRequest(bucket=BUCKET, page_token="x" + text.encode(errors="replace").decode())
    with pytest.raises(InvalidRequest):
        page_tokens.decode(request)
