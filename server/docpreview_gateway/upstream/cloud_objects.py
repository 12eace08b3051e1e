"""The cloud's object store (COS): what the gateway asks of it, each in one attempt, without retries.

A bucket's object host has a limiter of its own, apart from the job API's: either host may fail alone.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import GatewayError, UpstreamError, UpstreamFacts
from docpreview_gateway.upstream.client import from_transport
from docpreview_gateway.upstream.cloud_clock import ACCEPTED_SECONDS
from docpreview_gateway.upstream.middleware.observed import measured
from docpreview_gateway.upstream.ports import Attempt, ObjectFacts, ObjectPiece, TransportError
from docpreview_gateway.upstream.wire import objects, origin, refusals, requests
from docpreview_gateway.upstream.wire.signing import CLOCK_SLACK, Window, presign

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.middleware.concurrency_limited import HostLimiters
    from docpreview_gateway.upstream.ports import CredentialsSource, Transport, UpstreamTelemetry
    from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest

FRESH_SECONDS = 60.0
"""How long the host's last `Date` is good enough to sign addresses by."""

_FORBIDDEN = 403
_REFUSED = {
    _FORBIDDEN: reasons.ERROR_REASON_INPUT_OBJECT_UNREADABLE,
    404: reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND,
}
"""Replies to HEAD have no body and no error code: a missing right and a hidden object are the same 403."""

_OF_OUR_KEY = {reasons.ERROR_REASON_UPSTREAM_CREDENTIALS, reasons.ERROR_REASON_CLOCK_SKEW}


class CloudObjects:
    """`ObjectStore`, `ObjectReader` and `ObjectTags` of COS.

    `times` are the clocks of object hosts, which it sets by their replies. It keeps them apart from those of the job
    API's hosts, by which creates are recorded.
    """

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

    async def now(self, bucket: Bucket, key: str, call: Call) -> float:
        """The time by the clock of the bucket's object host, which is asked about this object if not heard lately.

        Our own clock may be wrong, and what is signed by it for others would be valid at another time than is told. So
        may be the last `Date`, which the addresses that are signed by it do not bring to light here.
        """
        heard = self._times.heard(bucket.object_host)
        if heard is None or self._times.elapsed() - heard.at > FRESH_SECONDS:
            try:
                await self.head(bucket, key, call)
            except GatewayError:
                # A refusal tells the time too.
                if self._times.heard(bucket.object_host) is None:
                    raise
        return self._times.now(bucket.object_host)

    async def tag(self, bucket: Bucket, key: str, call: Call) -> str:
        """The object's ETag, else its version id; empty when it has neither. GatewayError, by the deadline."""
        reply = await self._send("head_object", bucket, requests.head_object(bucket, key), call)
        return reply.headers.get("etag", "") or reply.headers.get("x-cos-version-id", "")

    async def head(self, bucket: Bucket, key: str, call: Call) -> ObjectFacts:
        """What the store says of an object. INPUT_OBJECT_NOT_FOUND when there is none."""
        return objects.facts(await self._send("head_object", bucket, requests.head_object(bucket, key), call))

    async def read(self, bucket: Bucket, key: str, piece: tuple[int, int], call: Call) -> ObjectPiece:
        """Bytes of an object, from the first of `piece`, as many as the second says."""
        request = requests.read_piece(bucket, key, *piece)
        return objects.piece(await self._send("read_object", bucket, request, call))

    async def initiate(self, bucket: Bucket, key: str, headers: Mapping[str, str], call: Call) -> str:
        """Begin a multipart upload of an object with these headers. Returns its id."""
        request = requests.initiate_multipart(bucket, key, headers)
        return objects.multipart_id(await self._send("initiate_multipart", bucket, request, call))

    async def complete(  # noqa: PLR0913, PLR0917 - as the port
        self, bucket: Bucket, key: str, multipart: str, etags: Sequence[str], headers: Mapping[str, str], call: Call
    ) -> None:
        """Make an object of the parts of a multipart upload."""
        request = requests.complete_multipart(bucket, key, multipart, etags, headers)
        objects.check_completed(await self._send("complete_multipart", bucket, request, call))

    async def abort(self, bucket: Bucket, key: str, multipart: str, call: Call) -> None:
        """Delete the parts of a multipart upload."""
        await self._send("abort_multipart", bucket, requests.abort_multipart(bucket, key, multipart), call)

    async def _send(self, name: str, bucket: Bucket, request: HttpRequest, call: Call) -> HttpReply:
        attempt = partial(self._attempt, name, bucket, request, call)
        return await self._host_limiters.through(bucket.object_host, call, attempt)

    async def _attempt(self, name: str, bucket: Bucket, unsigned: HttpRequest, call: Call) -> HttpReply:
        call.response.upstream_request_id = ""
        with measured(Attempt(bucket.name, name, call.trace), self._telemetry):
            try:
                async with asyncio.timeout_at(call.deadline):
                    reply = await self._exchange(bucket, unsigned)
            except TimeoutError:
                message = "the object store did not answer in time"
                raise GatewayError(reasons.ERROR_REASON_DEADLINE_EXCEEDED, message) from None
            except UpstreamError as error:
                call.response.upstream_request_id = error.facts.request_id
                if error.reason == reasons.ERROR_REASON_CLOCK_SKEW:
                    # Refused by its own `Date` as well, which was wrong.
                    self._times.restore(bucket.object_host, None)
                raise
        call.response.upstream_request_id = refusals.request_id_of(reply)
        return reply

    async def _exchange(self, bucket: Bucket, unsigned: HttpRequest) -> HttpReply:
        shown = self._times.now(bucket.object_host)
        reply = await self._once(bucket, unsigned)
        if reply.status == _FORBIDDEN and abs(self._times.now(bucket.object_host) - shown) > CLOCK_SLACK:
            # Signed by a wrong clock, and refused for it as far as one can see: a reply to HEAD does not say why.
            reply = await self._once(bucket, unsigned)
        if unsigned.method == "HEAD" and reply.status in _REFUSED:
            if reply.status == _FORBIDDEN and (why := await self._refusal_of_key(bucket, unsigned)) is not None:
                raise why
            facts = UpstreamFacts(http_status=reply.status, request_id=refusals.request_id_of(reply))
            raise UpstreamError(_REFUSED[reply.status], f"the object store answered HTTP {reply.status}", facts=facts)
        if not refusals.accepted(reply):
            raise refusals.read(reply)
        return reply

    async def _refusal_of_key(self, bucket: Bucket, head: HttpRequest) -> UpstreamError | None:
        """The refusal, if the store refuses our key or signature: asked for by a read of the object's first byte.

        Else the document would be blamed for it, to a caller who can do nothing about our keys.
        """
        reply = await self._once(bucket, replace(head, method="GET", headers={"range": "bytes=0-0"}))
        if refusals.accepted(reply):
            return None
        error = refusals.read(reply)
        return error if error.reason in _OF_OUR_KEY else None

    async def _once(self, bucket: Bucket, unsigned: HttpRequest) -> HttpReply:
        """The store's reply to a request signed now. It sets the host's clock, unless what it has accepted forbids."""
        # Signed in the query: in headers, the object store and the job API name a temporary key's token differently.
        window = Window.around(self._times.now(bucket.object_host))
        signed = presign(unsigned, self._credentials.credentials(bucket.credentials), window)
        try:
            reply = await self._transport.send(signed)
        except TransportError as error:
            raise from_transport(error) from error
        if not origin.is_from_cos(reply):
            raise refusals.foreign(reply)
        most = math.inf if reply.status == _FORBIDDEN else ACCEPTED_SECONDS
        self._times.hear(bucket.object_host, reply.headers.get("date", ""), most=most)
        return reply
