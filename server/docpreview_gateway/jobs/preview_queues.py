"""The use-case of PreviewQueueService."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, ListPreviewQueuesResponse
from docpreview_gateway.jobs import page_tokens
from docpreview_gateway.model.errors import InvalidRequest, Violation
from docpreview_gateway.upstream.operations import ListQueues

if TYPE_CHECKING:
    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.operations import Upstream

DEFAULT_PAGE_SIZE = 10
_POSITION = re.compile("([1-9][0-9]{0,8}):([1-9][0-9]?|100)")


class PreviewQueues:
    """Lists the queues of a bucket."""

    def __init__(self, upstream: Upstream, buckets: BucketRegistry) -> None:
        self._upstream = upstream
        self._buckets = buckets

    async def list_queues(self, request: ListPreviewQueuesRequest, call: Call) -> ListPreviewQueuesResponse:
        """One page of queues. The cloud counts pages, so the size is part of the cursor: `<page>:<size>`."""
        bucket = self._buckets.admit(request, call.caller)
        number, size = self._position(request)
        page = await self._upstream(ListQueues(request, bucket, size, number), call)
        more = bool(page.queues) and number * size < page.total
        return ListPreviewQueuesResponse(
            queues=page.queues,
            next_page_token=page_tokens.encode(request, f"{number + 1}:{size}" if more else ""),
            total_size=page.total,
            missing_queue_ids=page.missing,
        )

    @staticmethod
    def _position(request: ListPreviewQueuesRequest) -> tuple[int, int]:
        cursor = page_tokens.decode(request)
        if not cursor:
            return 1, request.page_size or DEFAULT_PAGE_SIZE
        position = _POSITION.fullmatch(cursor)
        if position is None:
            raise InvalidRequest([Violation("page_token", "is not a token of this gateway")])
        number, size = map(int, position.groups())
        if request.page_size and request.page_size != size:
            raise InvalidRequest([Violation("page_size", "must stay as it was on the first page, or be left out")])
        return number, size
