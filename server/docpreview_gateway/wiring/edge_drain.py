"""The edge's part of a drain: the Envoy before the gateway stops to take connections, and goes on with its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import structlog

if TYPE_CHECKING:
    from docpreview_gateway.settings.edge import EdgeSettings

SECONDS = 2.0

log = structlog.get_logger("docpreview_gateway.edge")


async def drain_edge(edge: EdgeSettings) -> None:
    """Tell Envoy to drain its listeners, at most SECONDS long. A failure is logged: the gateway's own drain goes on."""
    if edge.listen is None:
        return
    url = f"http://{edge.admin_listen}/drain_listeners?graceful"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session,
            session.post(url) as answer,
        ):
            problem = None if answer.ok else f"status {answer.status}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        problem = type(error).__name__
    if problem is None:
        log.info("the edge drains")
    else:
        log.warning("the edge was not told to drain", admin_listen=edge.admin_listen, problem=problem)
