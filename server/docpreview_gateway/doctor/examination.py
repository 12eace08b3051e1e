"""Checks of all that lies between the gateway and the cloud. They create nothing and are free of charge."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.doctor import diagnosis
from docpreview_gateway.doctor.diagnosis import Finding, NetworkError
from docpreview_gateway.model.errors import ForeignReply, GatewayError, UpstreamError
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire import refusals, requests, responses
from docpreview_gateway.upstream.wire.signing import Window, sign

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.upstream.operations import QueuePage
    from docpreview_gateway.upstream.ports import CredentialsSource, Transport
    from docpreview_gateway.upstream.wire.http import HttpReply

TIMEOUT_SECONDS = 10.0
PAGE_SIZE = 100


class Network(Protocol):
    """Name resolution and TLS certificates of hosts."""

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a host. NetworkError when there are none."""
        ...

    async def certificate_end(self, host: str) -> float | None:
        """When the host's certificate expires, in Unix seconds; None for a host without TLS.

        NetworkError when the host cannot be reached or its certificate is not trusted.
        """
        ...


class Diagnostics:
    """Checks of DNS, TLS, clock, signature, binding and queue, for each bucket.

    `endpoint` is upstream.endpoint, None when it is not set: what is not set is not named in what to do.
    """

    def __init__(
        self,
        network: Network,
        transport: Transport,
        credentials: CredentialsSource,
        clock: Clock,
        *,
        endpoint: str | None,
    ) -> None:
        self._network = network
        self._transport = transport
        self._credentials = credentials
        self._clock = clock
        self._endpoint = endpoint

    async def findings(self, hosts: Iterable[str], buckets: Iterable[Bucket]) -> list[Finding]:
        """Findings on the hosts, then the buckets, then the clock. A problem with one does not stop the others."""
        found = []
        for host in hosts:
            found += await self._host(host)
        clock: Finding | None = None
        for bucket in buckets:
            clock_by_bucket, of_bucket = await self._bucket(bucket)
            if clock_by_bucket is not None and (clock is None or clock.ok):
                clock = clock_by_bucket
            found += of_bucket
        return [*found, *([clock] if clock is not None else [])]

    async def _host(self, host: str) -> list[Finding]:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                addresses = await self._network.addresses(host)
        except (NetworkError, TimeoutError) as error:
            remedy = "check the name in the configuration, and this machine's resolver (/etc/resolv.conf)"
            return [Finding("dns", host, str(error) or "no answer in time", remedy)]
        found = [Finding("dns", host, ", ".join(addresses))]
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                end = await self._network.certificate_end(host)
        except (NetworkError, TimeoutError) as error:
            remedy = diagnosis.remedy_of_connecting(error.__cause__, "check firewalls and proxies on the way")
            return [*found, Finding("tls", host, str(error) or "no answer in time", remedy)]
        if end is not None:
            found.append(diagnosis.of_certificate(host, end, self._clock.now()))
        return found

    async def _bucket(self, bucket: Bucket) -> tuple[Finding | None, list[Finding]]:
        """Findings on the clock and on the bucket, by a signed request for its queues."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                reply = await self._ask(bucket)
        except (TransportError, TimeoutError) as error:
            remedy = diagnosis.remedy_of_connecting(error.__cause__, diagnosis.on_the_way(self._endpoint))
            return None, [Finding("binding", bucket.name, diagnosis.of_silence(error), remedy)]
        except GatewayError as error:
            # Too large, or not encoded as it says: who sent it is not known, and mostly it is not the cloud.
            return None, [Finding("binding", bucket.name, error.message, diagnosis.on_the_way(self._endpoint))]
        try:
            page = _queues(reply, bucket)
        except ForeignReply as error:
            # It says nothing about the cloud's clock, nor whether the cloud accepts the credentials.
            return None, [diagnosis.of_refusal(error, bucket, self._endpoint)]
        except UpstreamError as error:
            # Of the credentials nothing is known: a bucket that does not exist, or a cloud that fails, is told before
            # a signature is looked at.
            return self._cloud_clock(reply), [diagnosis.of_refusal(error, bucket, self._endpoint)]
        clock = self._cloud_clock(reply)
        bound = Finding("binding", bucket.name, "document processing is enabled")
        return clock, [_signed(bucket), bound, diagnosis.of_queues(page, bucket)]

    def _cloud_clock(self, reply: HttpReply) -> Finding:
        return diagnosis.of_clock(reply.headers.get("date", ""), self._clock.now())

    async def _ask(self, bucket: Bucket) -> HttpReply:
        request = requests.list_queues(ListPreviewQueuesRequest(bucket=bucket.name), bucket, size=PAGE_SIZE, page=1)
        credentials = self._credentials.credentials(bucket.credentials)
        return await self._transport.send(sign(request, credentials, Window.around(self._clock.now())))


def _queues(reply: HttpReply, bucket: Bucket) -> QueuePage:
    if (error := refusals.error_in(reply)) is not None:
        raise error
    return responses.queue_page(reply.body, bucket=bucket.name)


def _signed(bucket: Bucket) -> Finding:
    return Finding(
        "signature", bucket.name, f"the cloud answers a request signed with credentials.{bucket.credentials}"
    )
