"""httpx2, the successor of httpx: a candidate under the contract, no part of the product (docs/adr/0001)."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx2

from docpreview_gateway.model.errors import ReplyTooLarge
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire.http import MAX_REPLY_BYTES, HttpReply, HttpRequest, inflated

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

MAX_CONNECTIONS = 100
KEEPALIVE_SECONDS = 15.0

_NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.UnsupportedProtocol,
    httpx2.InvalidURL,
)


class Httpx2Transport:
    """A `Transport` over two clients: one with a pool, one that keeps no connection, for creates."""

    def __init__(self, *, base_url: str | None, connect_seconds: float, read_seconds: float) -> None:
        self._base = base_url.rstrip("/") if base_url else None
        timeout = httpx2.Timeout(read_seconds, connect=connect_seconds, pool=connect_seconds)
        self._pooled = _client(timeout, kept=MAX_CONNECTIONS)
        self._fresh = _client(timeout, kept=0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pooled.aclose()
        await self._fresh.aclose()

    async def send(self, request: HttpRequest) -> HttpReply:
        """The reply, whatever its status. TransportError when there is none, ReplyTooLarge past the cap."""
        client = self._fresh if request.unrepeatable else self._pooled
        url = (self._base or f"https://{request.host}") + request.target
        headers = {**request.headers, "accept-encoding": "identity"}
        try:
            out = client.build_request(request.method, url, headers=headers, content=request.body or None)
            reply = await client.send(out, stream=True)
            try:
                body = await _read(reply)
            finally:
                await reply.aclose()
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            sent, timed_out = not isinstance(error, _NOT_SENT), isinstance(error, httpx2.TimeoutException)
            raise TransportError(type(error).__name__, sent=sent, timed_out=timed_out) from error
        finally:
            client.cookies.clear()
        replied = {name.lower(): value for name, value in reply.headers.multi_items()}
        return HttpReply(reply.status_code, replied, inflated(body, replied.get("content-encoding", "")))


def _client(timeout: httpx2.Timeout, *, kept: int) -> httpx2.AsyncClient:
    limits = httpx2.Limits(
        max_connections=MAX_CONNECTIONS, max_keepalive_connections=kept, keepalive_expiry=KEEPALIVE_SECONDS
    )
    client = httpx2.AsyncClient(
        verify=ssl.create_default_context(), limits=limits, timeout=timeout, trust_env=False, follow_redirects=False
    )
    client.headers.clear()
    return client


async def _read(reply: httpx2.Response) -> bytes:
    """The body. ReplyTooLarge past the cap, so that an endless reply does not fill the memory."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in reply.aiter_raw():
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise ReplyTooLarge
        chunks.append(chunk)
    return b"".join(chunks)
