"""The gateway's own HTTP client: requests as bytes, one write each, over its own pool (docs/adr/0001)."""

from __future__ import annotations

import re
import ssl
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from docpreview_gateway.upstream.http_pool import Names, Origin, Pool
from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest, inflated

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from docpreview_gateway.upstream.http_connection import RawReply
    from docpreview_gateway.upstream.http_proxy import Proxy

_TARGET = re.compile(r"/[!-~]*", re.ASCII)
_ONE_WRITE_BYTES = 64 * 1024
_OURS = frozenset({"accept-encoding", "connection", "transfer-encoding"})
_PORTS = {"http": 80, "https": 443}


class BuiltinTransport:
    """A `Transport` that repeats nothing, follows no redirect, knows no cookie, and caps replies.

    `base_url` is the endpoint to connect to instead of the request's host, for the emulator and for private endpoints.
    The Host header is the request's own at any endpoint; a request without one has that of the address. Creates have
    connections of their own, so that none is lost to a server that closes an idle connection just as it is reused.
    With a proxy every connection is a tunnel by CONNECT, to plain http too; proxies of the environment are not used.
    """

    def __init__(
        self, *, base_url: str | None, connect_seconds: float, read_seconds: float, proxy: Proxy | None = None
    ) -> None:
        self._base = urlsplit(base_url.rstrip("/")) if base_url else None
        self._prefix = self._base.path if self._base else ""
        self._base_origin = _origin(self._base.scheme, self._base.netloc) if self._base else None
        tls = ssl.create_default_context()
        tls.set_alpn_protocols(["http/1.1"])
        names = Names()
        make = partial(Pool, names, tls, connect_seconds=connect_seconds, read_seconds=read_seconds, proxy=proxy)
        self._pooled = make(keep=True)
        self._fresh = make(keep=False)
        self._origins: dict[str, Origin] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pooled.close()
        await self._fresh.close()

    async def send(self, request: HttpRequest) -> HttpReply:
        """The reply, whatever its status. TransportError when there is none, ReplyTooLarge past the cap.

        UPSTREAM_BAD_RESPONSE when it is not HTTP, or its body is not what its `Content-Encoding` says; ValueError, and
        nothing is sent, for a request that is not HTTP, such as one with a line break in a header.
        """
        reply = await self.send_raw(
            request.method,
            self._prefix + request.target,
            request.headers,
            request.body,
            host=request.host,
            unrepeatable=request.unrepeatable,
        )
        encoding = reply.headers.get("content-encoding", "")
        return HttpReply(reply.status, reply.headers, inflated(reply.body, encoding) if encoding else reply.body)

    async def send_raw(  # noqa: PLR0913 - the parts of a request
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, *, host: str, unrepeatable: bool
    ) -> RawReply:
        """As `send`, with the target whole and percent-encoded, and the body of the reply as it came."""
        address = self._base.netloc if self._base else host
        head = _head(method, target, headers, len(body), host=address, closing=unrepeatable)
        if body and len(body) < _ONE_WRITE_BYTES:
            head, body = head + body, b""
        pool = self._fresh if unrepeatable else self._pooled
        origin = self._base_origin or self._origin(host)
        connection = await pool.take(origin)
        try:
            return await connection.exchange(head, body, is_head=method == "HEAD")
        finally:
            pool.give_back(origin, connection)

    def _origin(self, host: str) -> Origin:
        if (known := self._origins.get(host)) is None:
            if len(self._origins) > 1000:  # noqa: PLR2004 - hosts are of the buckets: never as many, but never endless
                self._origins.clear()
            known = self._origins[host] = _origin("https", host)
        return known


def _origin(scheme: str, netloc: str) -> Origin:
    parts = urlsplit(f"{scheme}://{netloc}")
    return Origin(scheme, parts.hostname or "", parts.port or _PORTS[scheme])


def _head(  # noqa: PLR0913 - the parts of a request
    method: str, target: str, headers: Mapping[str, str], length: int, *, host: str, closing: bool
) -> bytes:
    """Request line and headers. ValueError for what would be more than that at the server."""
    if not _TARGET.fullmatch(target) or not (method.isascii() and method.isalpha()):
        raise ValueError("the request line is not one of HTTP")
    lines = [f"{method} {target} HTTP/1.1"]
    if "host" not in headers:
        lines.append("host: " + host)
    lines += [f"{name}: {value}" for name, value in headers.items() if name not in _OURS]
    lines.append("accept-encoding: identity")
    if (told := headers.get("content-length")) is not None and told != str(length):
        raise ValueError("the content-length is not that of the body")
    if told is None and (length or method in {"POST", "PUT"}):
        lines.append(f"content-length: {length}")
    if closing:
        lines.append("connection: close")
    head = "\r\n".join(lines) + "\r\n\r\n"
    count = len(lines) + 1
    if head.count("\n") != count or head.count("\r") != count or "\0" in head:
        raise ValueError("a header has a line break or a zero byte")
    return head.encode()
