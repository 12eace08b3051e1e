"""Connections to a Redis or Valkey server, made for callers that would rather do without than wait."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

CONNECTIONS = 16
"""Most connections of a client. A command takes a tenth of a millisecond, so more would only wait at the server."""

CLOSE_SECONDS = 1.0


@asynccontextmanager
async def redis_commands(url: str) -> AsyncIterator[Callable[..., Awaitable[object]]]:
    """A function that sends one command to `redis://`, `rediss://` or `unix://`: its answer, or redis's own errors.

    Connects when it is first called, so it starts without a server. Nothing is tried twice: the library's ten retries
    take four seconds where nobody listens. A call has no time limit, its caller sets one for all of it, waiting for a
    connection included: time-outs of single reads never end a reply that drips. A call that is cancelled closes its
    connection, so that none can read a reply that was not for it. RESP2: no hand-shake, and no messages that nobody
    asked for.
    """
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=None,
        socket_connect_timeout=CLOSE_SECONDS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
    )
    client = Redis(connection_pool=pool)
    # Not the library's own waiting pool: it can lose a connection when the one who gives it back is cancelled.
    slots = asyncio.Semaphore(CONNECTIONS)

    async def send(*command: str | bytes | float) -> object:
        async with slots:
            answer: object = await client.execute_command(*command)  # type: ignore[no-untyped-call]
            return answer

    try:
        yield send
    finally:
        with suppress(RedisError, OSError):
            await pool.aclose()
