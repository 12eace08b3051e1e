"""Tags of the current content of objects, read by HEAD in one attempt, without retries.

A bucket's object host has a limiter of its own, apart from the job API's: either host may fail alone.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import GatewayError, UpstreamError, UpstreamFacts
from docpreview_gateway.upstream.client import from_transport
from docpreview_gateway.upstream.middleware.observed import measured
from docpreview_gateway.upstream.ports import Attempt, TransportError
from docpreview_gateway.upstream.wire import origin, refusals, requests
from docpreview_gateway.upstream.wire.signing import Window, presign

if TYPE_CHECKING:
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.middleware.concurrency_limited import HostLimiters
    from docpreview_gateway.upstream.ports import CredentialsSource, Transport, UpstreamTelemetry
    from docpreview_gateway.upstream.wire.http import HttpRequest


_REFUSED = {
    403: reasons.ERROR_REASON_INPUT_OBJECT_UNREADABLE,
    404: reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND,
}
"""Replies to HEAD have no body and no error code: a missing right and a hidden object are the same 403."""


class CloudObjectTags:
    """`ObjectTags` of the cloud's object store, by the clock of the bucket's job API: both are of one cloud."""

    def __init__(
        self,
        transport: Transport,
        credentials: CredentialsSource,
        times: CloudTimes,
        *,
        host_limiters: HostLimiters,
        telemetry: UpstreamTelemetry,
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._times = times
        self._host_limiters = host_limiters
        self._telemetry = telemetry

    async def tag(self, bucket: Bucket, key: str, call: Call) -> str:
        """The object's ETag, else its version id; empty when it has neither. GatewayError, by the deadline."""
        return await self._host_limiters.through(bucket.object_host, call, partial(self._attempt, bucket, key, call))

    async def _attempt(self, bucket: Bucket, key: str, call: Call) -> str:
        # Signed in the query: in headers, the object store and the job API name a temporary key's token differently.
        window = Window.around(self._times.now(bucket.ci_host))
        unsigned = requests.head_object(bucket, key)
        signed = presign(unsigned, self._credentials.credentials(bucket.credentials), window)
        with measured(Attempt(bucket.name, "head_object", call.trace), self._telemetry):
            try:
                async with asyncio.timeout_at(call.deadline):
                    return await self._exchange(signed)
            except TimeoutError:
                message = "the object store did not answer in time"
                raise GatewayError(reasons.ERROR_REASON_DEADLINE_EXCEEDED, message) from None

    async def _exchange(self, signed: HttpRequest) -> str:
        try:
            reply = await self._transport.send(signed)
        except TransportError as error:
            raise from_transport(error) from error
        if not origin.is_from_cos(reply):
            raise refusals.foreign(reply)
        if reply.status in _REFUSED:
            facts = UpstreamFacts(http_status=reply.status, request_id=refusals.request_id_of(reply))
            raise UpstreamError(_REFUSED[reply.status], f"the object store answered HTTP {reply.status}", facts=facts)
        if not refusals.accepted(reply):
            raise refusals.read(reply)
        return reply.headers.get("etag", "") or reply.headers.get("x-cos-version-id", "")
