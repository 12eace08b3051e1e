"""Lists of queues, page by page; the cloud pages by number."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, PreviewQueue
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.jobs.page_tokens import PageTokens
from docpreview_gateway.jobs.preview_queues import PreviewQueues
from docpreview_gateway.model.errors import InvalidRequest
from docpreview_gateway.upstream.operations import ListQueues, QueuePage
from tests.fakes.credentials import FakeCredentials
from tests.fakes.upstream import FakeUpstream
from tests.unit.conftest import BUCKET, Office, call

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Call


class ManyQueues(FakeUpstream):
    """A bucket with more queues than a page holds."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.queues = [PreviewQueue(queue_id=f"p{number}") for number in range(count)]
        self.queries: list[tuple[int, int]] = []

    async def list_queues(self, query: ListQueues, call: Call) -> QueuePage:
        assert call.request_id == "r1"
        self.queries.append((query.number, query.size))
        begin = (query.number - 1) * query.size
        return QueuePage(tuple(self.queues[begin : begin + query.size]), len(self.queues), ("p999",))


def use_case(upstream: FakeUpstream) -> PreviewQueues:
    return PreviewQueues(upstream, BucketRegistry([BUCKET]), PageTokens(FakeCredentials(), secrets.token_bytes))


async def test_page_tokens_lead_through_all_queues_each_once() -> None:
    """The page size need not be repeated on later pages."""
    upstream = ManyQueues(25)
    request = ListPreviewQueuesRequest(bucket=BUCKET.name)
    seen, sizes = [], []
    while True:
        page = await use_case(upstream).list_queues(request, call())
        seen += [queue.queue_id for queue in page.queues]
        sizes.append(len(page.queues))
        assert (page.total_size, list(page.missing_queue_ids)) == (25, ["p999"])
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert (seen, sizes) == ([f"p{number}" for number in range(25)], [10, 10, 5])


async def test_a_full_last_page_has_no_token() -> None:
    """A token never leads to an empty page."""
    upstream = ManyQueues(20)
    first = await use_case(upstream).list_queues(ListPreviewQueuesRequest(bucket=BUCKET.name, page_size=20), call())
    assert first.next_page_token == ""


async def test_an_empty_page_ends_the_list_whatever_the_total() -> None:
    """A wrong total of the cloud makes no endless list."""
    upstream = ManyQueues(5)
    upstream.queues.clear()
    page = await use_case(upstream).list_queues(ListPreviewQueuesRequest(bucket=BUCKET.name), call())
    assert page.next_page_token == ""


async def test_a_page_size_above_the_largest_is_the_largest_on_every_page() -> None:
    """100 queues, as the contract says."""
    upstream = ManyQueues(150)
    request = ListPreviewQueuesRequest(bucket=BUCKET.name, page_size=5000)
    request.page_token = (await use_case(upstream).list_queues(request, call())).next_page_token
    request.page_size = 101
    assert len((await use_case(upstream).list_queues(request, call())).queues) == 50
    assert upstream.queries == [(1, 100), (2, 100)]


async def test_another_page_size_on_a_later_page_is_rejected() -> None:
    """Another size would skip or repeat queues."""
    upstream = ManyQueues(25)
    request = ListPreviewQueuesRequest(bucket=BUCKET.name, page_size=5)
    request.page_token = (await use_case(upstream).list_queues(request, call())).next_page_token
    await use_case(upstream).list_queues(request, call())
    request.page_size = 7
    with pytest.raises(InvalidRequest) as caught:
        await use_case(upstream).list_queues(request, call())
    assert [violation.field for violation in caught.value.violations] == ["page_size"]
    assert upstream.queries == [(1, 5), (2, 5)]


async def test_a_token_with_other_filters_is_rejected() -> None:
    """A token is bound to the filters of its list."""
    upstream = ManyQueues(25)
    first = await use_case(upstream).list_queues(ListPreviewQueuesRequest(bucket=BUCKET.name), call())
    other = ListPreviewQueuesRequest(
        bucket=BUCKET.name, state=PreviewQueue.STATE_PAUSED, page_token=first.next_page_token
    )
    with pytest.raises(InvalidRequest):
        await use_case(upstream).list_queues(other, call())


async def test_text_that_is_not_a_token_is_rejected(office: Office) -> None:
    """Garbage and tokens of another service are rejected."""
    for token in ("!", "AAAA", base64.urlsafe_b64encode(b"\x01" * 40).decode()):
        with pytest.raises(InvalidRequest):
            await office.queues.list_queues(ListPreviewQueuesRequest(bucket=BUCKET.name, page_token=token), call())
