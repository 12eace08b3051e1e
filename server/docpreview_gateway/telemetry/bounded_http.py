"""An HTTP server for few clients: each connection carries one request, which has to come and be answered in time."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.log import server_logger

if TYPE_CHECKING:
    import asyncio

Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

MOST_CONNECTIONS = 100
"""Most open connections. Probes and scrapers need a few."""

HEAD_SECONDS = 5.0
"""Seconds in which the head of a request must have come."""

ANSWER_SECONDS = 30.0
"""Seconds in which its answer must have been made and read."""


NOT_HTTP_SECONDS = 60.0
"""Shortest time between log lines of requests that are no HTTP."""

_OURS = {"Server": "docpreview-gateway"}
"""In the place of the library's name and version, and Python's."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Open:
    """An open connection, the timer of its end, and whether its request has come."""

    transport: asyncio.Transport
    timer: asyncio.TimerHandle
    has_asked: bool = False


class _ServerLog(logging.LoggerAdapter[logging.Logger]):
    """The log of a port's server. What is no HTTP is no error of ours: any stranger can send it, at any rate."""

    _silent_until = 0.0

    def __init__(self, name: str) -> None:
        super().__init__(server_logger)
        self._no_http = f"a request to the {name} is no HTTP"

    def log(self, level: int, msg: object, *args: object, exc_info: Any = None, **kwargs: Any) -> None:  # noqa: ANN401 - the library's signature
        """Called for each line, such as for a request that failed."""
        if isinstance(exc_info, HttpProcessingError):
            if (now := time.monotonic()) >= self._silent_until:
                self._silent_until = now + NOT_HTTP_SECONDS
                log.info(self._no_http, error=type(exc_info).__name__, peer=args[0])
        else:
            super().log(level, msg, *args, exc_info=exc_info, **kwargs)


class _Connection(web.RequestHandler):
    """Answers what is no HTTP with its status alone: the library's own words quote the request."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called by aiohttp for a request that cannot be read, or whose handler has failed."""
        super().handle_error(request, status, exc, message)
        answer = web.Response(status=status, headers=_OURS)
        answer.force_close()
        return answer


class BoundedServer(web.Server):
    """Answers requests by `answer`, and closes each connection after its first request.

    Beyond `most` open connections the one that has been silent longest is closed for a new one; when all of them have
    asked something, the new one is. The log has the port's `name`.
    """

    def __init__(
        self,
        answer: Handler,
        *,
        most: int = MOST_CONNECTIONS,
        head_seconds: float = HEAD_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        name: str = "admin port",
    ) -> None:
        # A body is not read: what is left of it must not hold the connection open.
        # Nor is it unpacked, so that none is an error of ours, and few bytes never become many.
        super().__init__(
            self._answered, access_log=None, lingering_time=0, auto_decompress=False, logger=_ServerLog(name)
        )
        self._answer = answer
        self._most = most
        self._head_seconds, self._answer_seconds = head_seconds, answer_seconds
        self._open: dict[web.RequestHandler, _Open] = {}

    def __call__(self) -> web.RequestHandler:
        """Called by the loop for each connection."""
        return _Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Called by aiohttp for each accepted connection."""
        super().connection_made(handler, transport)
        if len(self._open) >= self._most:
            silent = next((one for one, state in self._open.items() if not state.has_asked), None)
            if silent is None:
                transport.abort()
                return
            self._forget(silent).abort()
        self._open[handler] = _Open(transport, self._loop.call_later(self._head_seconds, transport.abort))

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Called by aiohttp for each closed connection."""
        super().connection_lost(handler, exc)
        if handler in self._open:
            self._forget(handler)

    def _forget(self, handler: web.RequestHandler) -> asyncio.Transport:
        state = self._open.pop(handler)
        state.timer.cancel()
        return state.transport

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        state = self._open.get(request.protocol)
        if state is not None:
            state.has_asked = True
            state.timer.cancel()
            # Aborts, because closing would wait until the client has read everything.
            state.timer = self._loop.call_later(self._answer_seconds, state.transport.abort)
        try:
            response = await self._answer(request)
        except web.HTTPException as error:
            error.force_close()
            error.headers.update(_OURS)
            raise
        response.force_close()
        response.headers.update(_OURS)
        return response
