"""The method of PreviewQueueService, without gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, ListPreviewQueuesResponse
from docpreview_gateway.jobs.page_tokens import filters_of
from docpreview_gateway.model.errors import InvalidRequest, Violation
from docpreview_gateway.upstream.operations import ListQueues

if TYPE_CHECKING:
    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.jobs.page_tokens import PageTokens
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.operations import Upstream

DEFAULT_PAGE_SIZE, LARGEST_PAGE = 10, 100


class PreviewQueues:
    """Lists the queues of a bucket."""

    def __init__(self, upstream: Upstream, buckets: BucketRegistry, tokens: PageTokens) -> None:
        self._upstream = upstream
        self._buckets = buckets
        self._tokens = tokens

    async def list_queues(self, request: ListPreviewQueuesRequest, call: Call) -> ListPreviewQueuesResponse:
        """One page of queues. The cloud pages by number, so the position is `<page number>:<page size>`."""
        bucket = self._buckets.admit(request, call)
        number, size = self._position(request, bucket, call)
        page = await self._upstream(ListQueues(filters_of(request), bucket, size, number), call)
        more = bool(page.queues) and number * size < page.total
        position = f"{number + 1}:{size}" if more else ""
        return ListPreviewQueuesResponse(
            queues=page.queues,
            next_page_token=self._tokens.encode(request, bucket, call.caller, position),
            total_size=page.total,
            missing_queue_ids=page.missing,
        )

    def _position(self, request: ListPreviewQueuesRequest, bucket: Bucket, call: Call) -> tuple[int, int]:
        position = self._tokens.decode(request, bucket, call.caller)
        asked = min(request.page_size, LARGEST_PAGE)
        if not position:
            return 1, asked or DEFAULT_PAGE_SIZE
        number, size = map(int, position.split(":"))
        if asked and asked != size:
            raise InvalidRequest([Violation("page_size", "must stay as it was on the first page, or be left out")])
        return number, size
