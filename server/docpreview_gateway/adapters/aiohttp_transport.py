"""HTTP over httpx's transport interface with aiohttp beneath it.

httpx's own pool dies of cancelled requests (httpcore issue 1093), and a deadline is a cancellation; aiohttp's does not.
`httpx_aiohttp` reports every aiohttp connection error, also one after sending, as a connect time-out; whether a byte
may have left is therefore read from aiohttp's own exception, the cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport as HttpxTransport

from docpreview_gateway.core.exchange import MAX_REPLY_BYTES, HttpReply, HttpRequest
from docpreview_gateway.ports import ReplyTooLarge, TransportError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

MAX_CONNECTIONS = 100
KEEPALIVE_SECONDS = 15.0
"""Shorter than a server's usual idle time, so that it rarely closes a connection as we take it."""

_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class AiohttpTransport:
    """The port `Transport`: one pool for the process, no redirects, no proxies of the environment, a cap on replies.

    `base_url` says where to connect instead of the request's own host, for the emulator and for private endpoints; the
    Host that is sent and signed stays the request's.
    """

    def __init__(self, *, base_url: str | None, connect_seconds: float, read_seconds: float) -> None:
        self._base = base_url.rstrip("/") if base_url else None
        self._timeout = {"connect": connect_seconds, "pool": connect_seconds, "read": read_seconds}
        self._pooled = HttpxTransport(client=lambda: _session(force_close=False))
        # Creates are sent once: a connection of their own cannot have been closed by the server while it was idle.
        self._fresh = HttpxTransport(client=lambda: _session(force_close=True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pooled.aclose()
        await self._fresh.aclose()

    async def send(self, request: HttpRequest) -> HttpReply:
        """The reply, whatever its status. TransportError when there is none, ReplyTooLarge past the cap."""
        outgoing = httpx.Request(
            request.method,
            (self._base or f"https://{request.host}") + request.target,
            headers={**request.headers, "accept-encoding": "identity"},
            content=request.body,
            extensions={"timeout": self._timeout},
        )
        transport = self._fresh if request.unrepeatable else self._pooled
        try:
            reply = await transport.handle_async_request(outgoing)
            try:
                body = await _read(reply)
            finally:
                await reply.aclose()
        except (httpx.TransportError, aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in reply.headers.raw}
        return HttpReply(reply.status_code, headers, body)


def _session(*, force_close: bool) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=MAX_CONNECTIONS,
        force_close=force_close,
        keepalive_timeout=None if force_close else KEEPALIVE_SECONDS,
        ttl_dns_cache=30,
    )
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
    )


async def _read(reply: httpx.Response) -> bytes:
    """The body, at most the cap: a reply that never ends must not fill the memory."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in reply.aiter_raw():
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise ReplyTooLarge
        chunks.append(chunk)
    return b"".join(chunks)


def _translated(error: Exception) -> TransportError:
    cause = error.__cause__ or error
    sent = not isinstance(cause, _NOT_SENT)
    timed_out = isinstance(cause, TimeoutError)
    return TransportError(type(cause).__name__, sent=sent, timed_out=timed_out)
