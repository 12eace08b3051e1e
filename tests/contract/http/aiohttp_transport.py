"""aiohttp as the gateway had it: a candidate under the contract, no part of the product (docs/adr/0001)."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from docpreview_gateway.model.errors import ReplyTooLarge
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire.http import MAX_REPLY_BYTES, HttpReply, HttpRequest, inflated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

MAX_CONNECTIONS = 100
KEEPALIVE_SECONDS = 15.0
"""Shorter than the usual idle timeout of servers, so that they rarely close a connection just before its reuse."""

_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class AiohttpTransport:
    """A `Transport` with one connection pool, without redirects and environment proxies, and with a cap on replies.

    `base_url` is the endpoint to connect to instead of the request's host, for the emulator and for private endpoints.
    The Host header is the request's own in any case.
    """

    def __init__(self, *, base_url: str | None, connect_seconds: float, read_seconds: float) -> None:
        self._base = base_url.rstrip("/") if base_url else None
        # `connect` includes the wait for a connection of the pool.
        timeout = aiohttp.ClientTimeout(total=None, connect=connect_seconds, sock_read=read_seconds)
        self._pooled = _session(timeout, force_close=False)
        # Creates are sent once, on new connections: a server may close an idle one just as it is reused.
        self._fresh = _session(timeout, force_close=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pooled.close()
        await self._fresh.close()

    async def send(self, request: HttpRequest) -> HttpReply:
        """The reply, whatever its status. TransportError when there is none, ReplyTooLarge past the cap.

        UPSTREAM_BAD_RESPONSE when its body is not what its `Content-Encoding` says.
        """
        session = self._fresh if request.unrepeatable else self._pooled
        url = URL((self._base or f"https://{request.host}") + request.target, encoded=True)
        headers = {**request.headers, "accept-encoding": "identity"}
        try:
            async with session.request(
                request.method, url, headers=headers, data=request.body or None, allow_redirects=False
            ) as reply:
                body = await _read(reply)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            # UnicodeError: of Python's resolver, for a host with a part that is too long.
            raise _translated(error) from error
        replied = {name.lower(): value for name, value in reply.headers.items()}
        return HttpReply(reply.status, replied, inflated(body, replied.get("content-encoding", "")))


def _session(timeout: aiohttp.ClientTimeout, *, force_close: bool) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        ssl=ssl.create_default_context(),  # aiohttp's own is made at its import, too early for an authority of a test
        limit=MAX_CONNECTIONS,
        force_close=force_close,
        keepalive_timeout=None if force_close else KEEPALIVE_SECONDS,
        ttl_dns_cache=30,
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        middlewares=(_once,),
        skip_auto_headers=("accept", "user-agent", "content-type"),
    )


async def _once(
    request: aiohttp.ClientRequest, send: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]
) -> aiohttp.ClientResponse:
    """Send a request once: aiohttp repeats reads on broken connections, but only for errors of its own kind.

    Repeated attempts would be beside the retry budget, the metrics and the rate of the account.
    """
    try:
        return await send(request)
    except (aiohttp.ClientError, OSError) as error:
        raise _translated(error) from error


async def _read(reply: aiohttp.ClientResponse) -> bytes:
    """The body. ReplyTooLarge past the cap, so that an endless reply does not fill the memory."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in reply.content.iter_any():
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            reply.close()
            raise ReplyTooLarge
        chunks.append(chunk)
    return b"".join(chunks)


def _translated(error: Exception) -> TransportError:
    sent = not isinstance(error, _NOT_SENT)
    return TransportError(type(error).__name__, sent=sent, timed_out=isinstance(error, TimeoutError))
