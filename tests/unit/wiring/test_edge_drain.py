"""The gateway tells Envoy to drain, and goes on whatever Envoy says."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from docpreview_gateway.settings.edge import EdgeSettings
from docpreview_gateway.wiring import edge_drain
from docpreview_gateway.wiring.edge_drain import drain_edge
from tests.edge_process import free_port


@pytest.mark.parametrize("status", [200, 500])
async def test_envoys_admin_interface_is_asked_once_for_a_graceful_drain(status: int) -> None:
    """Also when it refuses."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path_qs}")
        return web.Response(status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        await drain_edge(EdgeSettings(listen="0.0.0.0:50051", admin_listen=f"127.0.0.1:{server.port}"))
    assert asked == ["POST /drain_listeners?graceful"]


async def test_an_envoy_that_is_gone_does_not_hold_the_drain_up() -> None:
    """Within its time limit."""
    await drain_edge(EdgeSettings(listen="0.0.0.0:50051", admin_listen=f"127.0.0.1:{free_port()}"))
    assert edge_drain.SECONDS <= 2


async def test_without_an_edge_nobody_is_asked() -> None:
    """Not even the default address."""
    await drain_edge(EdgeSettings())
