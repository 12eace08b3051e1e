"""The admin port: metrics and health over HTTP, away from the callers' port."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from prometheus_client import CollectorRegistry

STOP_SECONDS = 1.0
"""For requests that run when the port is closed. The library's own minute would be waited out whenever a probe
connects at the wrong moment."""


@asynccontextmanager
async def admin_server(
    host: str,
    port: int,
    *,
    registry: CollectorRegistry,
    unready: Callable[[], str | None],
    refresh: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[int]:
    """Serve `/metrics`, `/healthz` (the process lives) and `/readyz` (503 with the reason that `unready` gives).

    `host` may be the path of a Unix socket. Yields the port, which differs from `port` when that is 0. OSError when it
    is taken. `refresh` is awaited before the metrics are read.
    """

    async def metrics(_request: web.Request) -> web.Response:
        if refresh is not None:
            await refresh()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        reason = unready()
        return web.Response(text="ready\n") if reason is None else web.Response(status=503, text=f"{reason}\n")

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=STOP_SECONDS)
    await runner.setup()
    try:
        is_path = host.startswith("/")
        await (web.UnixSite(runner, host) if is_path else web.TCPSite(runner, host, port)).start()
        yield 0 if is_path else runner.addresses[0][1]
    finally:
        await runner.cleanup()
