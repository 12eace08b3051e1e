"""Signed requests through httpx's interface, for those who have transports or hooks for it in Python.

Beneath it is the built-in client unless another transport is given: httpx's own pool dies of cancellations (httpcore
issue 1093), and every missed deadline is one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx

from docpreview_gateway.model.errors import ReplyTooLarge
from docpreview_gateway.upstream import causes
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire.http import MAX_REPLY_BYTES, HttpReply, HttpRequest, inflated

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from docpreview_gateway.upstream.http_proxy import Proxy

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL)


class HttpxTransport:
    """A `Transport` that sends by an `httpx.AsyncClient`, without redirects, cookies and environment proxies.

    `transport` replaces what is beneath the client. It has to raise httpx's errors as httpx documents them: a create
    counts as not sent after `ConnectError`, `ConnectTimeout` and `PoolTimeout` only. The extension `unrepeatable` of a
    request asks it for a new connection. `proxy` is the built-in client's: another transport has its own, if any.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        connect_seconds: float,
        read_seconds: float,
        proxy: Proxy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._base = base_url.rstrip("/") if base_url else None
        beneath = transport or _Beneath(
            BuiltinTransport(base_url=base_url, connect_seconds=connect_seconds, read_seconds=read_seconds, proxy=proxy)
        )
        timeout = httpx.Timeout(read_seconds, connect=connect_seconds, pool=connect_seconds)
        self._client = httpx.AsyncClient(transport=beneath, timeout=timeout, trust_env=False, follow_redirects=False)
        self._client.headers.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def send(self, request: HttpRequest) -> HttpReply:
        """The reply, whatever its status. TransportError when there is none, ReplyTooLarge past the cap.

        UPSTREAM_BAD_RESPONSE when it is not HTTP, or its body is not what its `Content-Encoding` says.
        """
        url = (self._base or f"https://{request.host}") + request.target
        headers = {**request.headers, "accept-encoding": "identity"}
        extensions = {"unrepeatable": request.unrepeatable}
        try:
            out = self._client.build_request(
                request.method, url, headers=headers, content=request.body or None, extensions=extensions
            )
            reply = await self._client.send(out, stream=True)
            try:
                body = await _read(reply)
            finally:
                await reply.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            if isinstance(error.__cause__, TransportError):
                raise error.__cause__ from None
            sent, timed_out = not isinstance(error, _NOT_SENT), isinstance(error, httpx.TimeoutException)
            raise TransportError(_words(error), sent=sent, timed_out=timed_out) from error
        finally:
            self._client.cookies.clear()
        replied = {name.lower(): value for name, value in reply.headers.multi_items()}
        return HttpReply(reply.status_code, replied, inflated(body, replied.get("content-encoding", "")))


class _Beneath(httpx.AsyncBaseTransport):
    """The built-in client as a transport of httpx."""

    def __init__(self, client: BuiltinTransport) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange, its body read whole. httpx.ConnectError, httpx.ReadError, or its timeouts; ReplyTooLarge."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers.raw}
        try:
            reply = await self._client.send_raw(
                request.method,
                request.url.raw_path.decode(),
                headers,
                await request.aread(),
                host=request.url.netloc.decode(),
                unrepeatable=bool(request.extensions.get("unrepeatable")),
            )
        except TransportError as error:
            raise _as_httpx(error, request) from error
        pairs = [(name, value) for name, value in reply.headers.items() if name != "transfer-encoding"]
        return httpx.Response(reply.status, headers=pairs, stream=httpx.ByteStream(reply.body), request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.__aexit__(None, None, None)


def _as_httpx(error: TransportError, request: httpx.Request) -> httpx.TransportError:
    if error.sent:
        kind: type[httpx.TransportError] = httpx.ReadTimeout if error.timed_out else httpx.ReadError
    else:
        kind = httpx.ConnectTimeout if error.timed_out else httpx.ConnectError
    return kind(str(error), request=request)


def _words(error: Exception) -> str:
    """Why there was no reply: by the system's error beneath httpx's, if there is one."""
    beneath: BaseException | None = error
    while beneath is not None and not isinstance(beneath, (OSError, UnicodeError)):
        beneath = beneath.__cause__ or beneath.__context__
    if beneath is not None:
        return causes.of_connecting(beneath)
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()


async def _read(reply: httpx.Response) -> bytes:
    """The body. ReplyTooLarge past the cap, so that an endless reply does not fill the memory."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in reply.aiter_raw():
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise ReplyTooLarge
        chunks.append(chunk)
    return b"".join(chunks)
