"""The queues of a bucket and whom they tell the ends of their jobs, for commands: one attempt each, no retries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.upstream.client import from_transport
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire import queue_notices, refusals, requests
from docpreview_gateway.upstream.wire.signing import Window, sign

if TYPE_CHECKING:
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.upstream.ports import CredentialsSource, Transport
    from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest
    from docpreview_gateway.upstream.wire.queue_notices import NoticedQueue

SECONDS = 10.0
PAGE_SIZE = 100
MOST_PAGES = 10
"""Pages that are read of a bucket's queues, of which the cloud allows a handful."""


class CloudQueues:
    """Reads and updates queues. Every method raises the GatewayError that callers of the gateway would get."""

    def __init__(self, transport: Transport, credentials: CredentialsSource, clock: Clock) -> None:
        self._transport = transport
        self._credentials = credentials
        self._clock = clock

    async def read(self, bucket: Bucket) -> list[NoticedQueue]:
        """All queues of a bucket."""
        found: list[NoticedQueue] = []
        for page in range(1, MOST_PAGES + 1):
            wanted = ListPreviewQueuesRequest(bucket=bucket.name)
            reply = await self._send(bucket, requests.list_queues(wanted, bucket, size=PAGE_SIZE, page=page))
            queues, total = queue_notices.read(reply.body)
            found += queues
            if not queues or len(found) >= total:
                break
        return found

    async def update(self, bucket: Bucket, queue: NoticedQueue) -> None:
        """Write a queue as it is given."""
        await self._send(bucket, queue_notices.update(bucket, queue))

    async def _send(self, bucket: Bucket, request: HttpRequest) -> HttpReply:
        credentials = self._credentials.credentials(bucket.credentials)
        signed = sign(request, credentials, Window.around(self._clock.now()))
        try:
            async with asyncio.timeout(SECONDS):
                reply = await self._transport.send(signed)
        except TransportError as error:
            raise from_transport(error) from error
        except TimeoutError as error:
            raise from_transport(TransportError("no reply in time", sent=True, timed_out=True)) from error
        if (refusal := refusals.error_in(reply)) is not None:
            raise refusal
        return reply
