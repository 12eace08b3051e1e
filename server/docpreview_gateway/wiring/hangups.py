"""SIGHUP, which asks other servers to read their files again, and would end this one without a drain."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    import asyncio

log = structlog.get_logger("docpreview_gateway")


def ignore_hangups(loop: asyncio.AbstractEventLoop) -> None:
    """Answer SIGHUP by a log line from now on."""
    loop.add_signal_handler(
        signal.SIGHUP,
        lambda: log.info("SIGHUP is ignored: changed files are reloaded without it, settings need a restart"),
    )
