"""A gateway as a process: it serves until a signal, and drains."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

import structlog

from docpreview_gateway.wiring.event_loop import freeze_startup_objects
from docpreview_gateway.wiring.gateway import Gateway
from docpreview_gateway.wiring.hangups import ignore_hangups

if TYPE_CHECKING:
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.wiring.gateway import Worker

log = structlog.get_logger("docpreview_gateway")

ENDED_UNASKED = 1
"""Exit code of a process that cannot listen again."""


async def serve(settings: Settings, worker: Worker | None = None) -> int:
    """Run until SIGTERM or SIGINT, or until a worker's input ends. A second signal ends the drain at once.

    Returns the exit code: 0, or ENDED_UNASKED so that whoever started the process starts it again.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    ignore_hangups(loop)
    gateway = Gateway(settings, worker)
    await gateway.__aenter__()
    freeze_startup_objects()
    if worker is None:
        log.info("serving", grpc_port=gateway.port, admin_port=gateway.admin_port)
    else:
        _report(stop)
    lost = asyncio.ensure_future(gateway.lost())
    lost.add_done_callback(lambda _lost: stop.set())
    await stop.wait()
    code = ENDED_UNASKED if lost.done() else 0
    lost.cancel()
    log.info("stopping")
    leaving = asyncio.ensure_future(gateway.__aexit__(None, None, None))
    hurried = asyncio.ensure_future(hurry.wait())
    await asyncio.wait((leaving, hurried), return_when=asyncio.FIRST_COMPLETED)
    if hurried.done():
        log.warning("stopping before the calls have ended")
        leaving.cancel()
    hurried.cancel()
    await asyncio.gather(leaving, hurried, return_exceptions=True)
    log.info("stopped")
    return code


def _report(stop: asyncio.Event) -> None:
    """Report readiness to the supervisor, and stop when the supervisor is gone."""
    loop, supervisor = asyncio.get_running_loop(), sys.stdin.fileno()

    def on_end() -> None:
        loop.remove_reader(supervisor)
        stop.set()

    loop.add_reader(supervisor, on_end)
    log.info("worker serves")
    print("ready", flush=True)  # noqa: T201 - the supervisor reads it
