"""Checks of all that lies between the gateway and the cloud. They create nothing and are free of charge."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.doctor import diagnosis
from docpreview_gateway.doctor.diagnosis import Finding, NetworkError
from docpreview_gateway.model.errors import ForeignReply, GatewayError, UpstreamError
from docpreview_gateway.upstream.ports import ProxyError, TransportError
from docpreview_gateway.upstream.wire import refusals, requests, responses
from docpreview_gateway.upstream.wire.signing import Window, sign

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.upstream.http_proxy import Proxy
    from docpreview_gateway.upstream.operations import QueuePage
    from docpreview_gateway.upstream.ports import CredentialsSource, Transport
    from docpreview_gateway.upstream.wire.http import HttpReply

TIMEOUT_SECONDS = 10.0
_TLS = "check firewalls and proxies on the way, and the authorities this machine trusts (ca-certificates)"
PAGE_SIZE = 100


class Network(Protocol):
    """Name resolution and TLS certificates of hosts."""

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a host. NetworkError when there are none."""
        ...

    async def certificate_end(self, host: str) -> float | None:
        """When the host's certificate expires, in Unix seconds; None for a host without TLS.

        NetworkError when the host cannot be reached or its certificate is not trusted, ProxyError when a proxy gives no
        tunnel to it.
        """
        ...


class Diagnostics:
    """Checks of DNS, TLS, clock, signature, binding and queue, for each bucket.

    `endpoint` is upstream.endpoint, None when it is not set: what is not set is not named in what to do. With a proxy
    its tunnels are checked, and no names of hosts: the proxy resolves them.
    """

    def __init__(  # noqa: PLR0913 - collaborators
        self,
        network: Network,
        transport: Transport,
        credentials: CredentialsSource,
        clock: Clock,
        *,
        endpoint: str | None,
        proxy: Proxy | None = None,
    ) -> None:
        self._network = network
        self._transport = transport
        self._credentials = credentials
        self._clock = clock
        self._endpoint = endpoint
        self._proxy = proxy

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
        if self._proxy is not None:
            return await self._tunnel(host, self._proxy)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                addresses = await self._network.addresses(host)
        except (NetworkError, TimeoutError) as error:
            remedy = "check the name in the configuration, and this machine's resolver (/etc/resolv.conf)"
            return [Finding("dns", host, str(error) or "no answer in time", remedy)]
        return [Finding("dns", host, ", ".join(addresses)), *await self._certificate(host)]

    async def _tunnel(self, host: str, proxy: Proxy) -> list[Finding]:
        """Findings on the proxy's way to a host with TLS, and the host's certificate there."""
        try:
            found = await self._certificate(host)
        except ProxyError as error:
            return [Finding("proxy", proxy.place, str(error), diagnosis.PROXY)]
        return [Finding("proxy", proxy.place, f"opens tunnels to {host}"), *found] if found else []

    async def _certificate(self, host: str) -> list[Finding]:
        """A finding on a host's certificate; none without TLS. ProxyError."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                end = await self._network.certificate_end(host)
        except TimeoutError as error:
            if self._proxy is not None:
                raise ProxyError(f"no connection in time by the proxy {self._proxy.place}", timed_out=True) from error
            return [Finding("tls", host, "no answer in time", _TLS)]
        except NetworkError as error:
            return [Finding("tls", host, str(error), diagnosis.remedy_of_connecting(error.__cause__, _TLS))]
        return [] if end is None else [diagnosis.of_certificate(host, end, self._clock.now())]

    async def _bucket(self, bucket: Bucket) -> tuple[Finding | None, list[Finding]]:
        """Findings on the clock and on the bucket, by a signed request for its queues."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                reply = await self._ask(bucket)
        except (TransportError, TimeoutError) as error:
            remedy = diagnosis.what_to_check(error, self._endpoint)
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
