"""pyreqwest (reqwest and hyper in Rust): a candidate under the contract, no part of the product (docs/adr/0001)."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    BuilderError,
    ConnectError,
    ConnectTimeoutError,
    PoolTimeoutError,
    PyreqwestError,
    RequestTimeoutError,
)

from docpreview_gateway.model.errors import ReplyTooLarge
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire.http import MAX_REPLY_BYTES, HttpReply, HttpRequest, inflated

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

MAX_CONNECTIONS = 100
_NOT_SENT = (BuilderError, ConnectError, ConnectTimeoutError, PoolTimeoutError)


class PyreqwestTransport:
    """A `Transport` over two clients: one with a pool, one without for creates."""

    def __init__(self, *, base_url: str | None, connect_seconds: float, read_seconds: float) -> None:
        self._base = base_url.rstrip("/") if base_url else None
        self._pooled = _client(connect_seconds, read_seconds, kept=MAX_CONNECTIONS)
        self._fresh = _client(connect_seconds, read_seconds, kept=0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pooled.close()
        await self._fresh.close()

    async def send(self, request: HttpRequest) -> HttpReply:
        """The reply, whatever its status. TransportError when there is none, ReplyTooLarge past the cap."""
        client = self._fresh if request.unrepeatable else self._pooled
        url = (self._base or f"https://{request.host}") + request.target
        try:
            building = client.request(request.method, url).headers({**request.headers, "accept-encoding": "identity"})
            if request.body:
                building = building.body_bytes(request.body)
            async with building.build_streamed() as reply:
                body = await _read(reply)
                replied = {name.lower(): value for name, value in reply.headers.items()}
                return HttpReply(reply.status, replied, inflated(body, replied.get("content-encoding", "")))
        except (PyreqwestError, OSError) as error:
            sent, timed_out = not isinstance(error, _NOT_SENT), isinstance(error, RequestTimeoutError)
            raise TransportError(type(error).__name__, sent=sent, timed_out=timed_out) from error


async def _read(reply: Any) -> bytes:
    """The body. ReplyTooLarge past the cap, so that an endless reply does not fill the memory."""
    reader = reply.body_reader
    chunks: list[bytes] = []
    size = 0
    while (chunk := await reader.read_chunk()) is not None:
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise ReplyTooLarge
        chunks.append(bytes(chunk))
    return b"".join(chunks)


def _client(connect: float, read: float, *, kept: int) -> Client:
    builder = (
        ClientBuilder()
        .no_proxy()
        .follow_redirects(enable=False)
        .gzip(enable=False)
        .brotli(enable=False)
        .zstd(enable=False)
        .deflate(enable=False)
        .http1_only()
        .http1_lower_case_headers()
        .connect_timeout(timedelta(seconds=connect))
        .pool_timeout(timedelta(seconds=connect))
        .read_timeout(timedelta(seconds=read))
        .pool_idle_timeout(timedelta(seconds=15))
        .pool_max_idle_per_host(kept)
        .max_connections(MAX_CONNECTIONS)
    )
    authority = os.environ.get("SSL_CERT_FILE")
    if authority:
        builder = builder.add_root_certificate_pem(Path(authority).read_bytes())
    return builder.build()
