"""The admin port: metrics and health over HTTP, away from the callers' port."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from aiohttp import web
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from prometheus_client import CollectorRegistry

NOT_LISTENING = "the gRPC port is not listening"

STOP_SECONDS = 1.0
"""Grace for requests that run when the port is closed. With the library's own minute a probe could delay every stop."""


class Page(Protocol):
    """A page of HTML, rendered for each request."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its HTTP headers."""
        ...

    def html(self) -> str:
        """The page as it is now."""
        ...


@asynccontextmanager
async def admin_server(  # noqa: PLR0913 - what is served, named by wiring
    host: str,
    port: int,
    *,
    registry: CollectorRegistry,
    unready: Callable[[], str | None],
    unhealthy: Callable[[], Awaitable[str | None]] | None = None,
    refresh: Callable[[], Awaitable[None]] | None = None,
    page: Page | None = None,
) -> AsyncIterator[int]:
    """A server of `/metrics` in the requested format, `/healthz`, `/readyz` and the operator page.

    `host` may be the path of a Unix socket. Yields the port, which differs from `port` when that is 0. OSError when the
    port is taken. `/readyz` is 503 with the reason that `unready` gives, `/healthz` with that of `unhealthy`; without
    it `/healthz` says only that the process lives. `refresh` is awaited before metrics are read. `page` is served at
    `/`.
    """

    async def metrics(request: web.Request) -> web.Response:
        if refresh is not None:
            await refresh()
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def healthz(_request: web.Request) -> web.Response:
        reason = None if unhealthy is None else await unhealthy()
        return web.Response(text="ok\n") if reason is None else web.Response(status=503, text=f"{reason}\n")

    async def readyz(_request: web.Request) -> web.Response:
        reason = unready()
        return web.Response(text="ready\n") if reason is None else web.Response(status=503, text=f"{reason}\n")

    async def operator(_request: web.Request) -> web.Response:
        if page is None:
            raise web.HTTPNotFound
        if refresh is not None:
            await refresh()
        return web.Response(text=page.html(), headers=page.headers)

    application = web.Application()
    handlers = {"/": operator, "/metrics": metrics, "/healthz": healthz, "/readyz": readyz}
    application.add_routes(web.get(path, handler) for path, handler in handlers.items())
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=STOP_SECONDS)
    await runner.setup()
    try:
        is_path = host.startswith("/")
        await (web.UnixSite(runner, host) if is_path else web.TCPSite(runner, host, port)).start()
        yield 0 if is_path else runner.addresses[0][1]
    finally:
        await runner.cleanup()
