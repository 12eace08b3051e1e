"""Connections to a Redis or Valkey server, made for callers that would rather do without than wait.

Nothing is tried twice: the library's ten retries take four seconds where nobody listens. Nothing has a time limit of
its own, its caller sets one for all of it, waiting for a connection included: time-outs of single reads never end a
reply that drips. What is cancelled closes its connection, so that none can read a reply that was not for it. RESP2: no
hand-shake, and no messages that nobody asked for.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

CONNECTIONS = 16
"""Most connections of a client. A command takes a tenth of a millisecond, so more would only wait at the server."""

CLOSE_SECONDS = 1.0
SILENCE_SECONDS = 5.0
"""A subscription that heard nothing for so long asks whether the server is there, and ends when that stays silent."""


@asynccontextmanager
async def redis_commands(url: str) -> AsyncIterator[Callable[..., Awaitable[object]]]:
    """A function that sends one command to the server: its answer, or redis's own errors.

    Connects when it is first called, so it starts without a server.
    """
    async with _client(url) as client:
        # Not the library's own waiting pool: it can lose a connection when the one who gives it back is cancelled.
        slots = asyncio.Semaphore(CONNECTIONS)

        async def send(*command: str | bytes | float) -> object:
            async with slots:
                answer: object = await client.execute_command(*command)
                return answer

        yield send


@asynccontextmanager
async def redis_batches(url: str) -> AsyncIterator[Callable[..., Awaitable[object]]]:
    """The same, but the commands of one turn of the event loop travel together.

    A crowd of a thousand small commands takes a tenth of the time so. Who leaves takes nothing from the others; the
    last one who leaves closes the connection.
    """
    async with _client(url) as client:
        batches = _Batches(client)
        yield batches.send
        await batches.close()


class _Batches:
    """The commands that wait for the end of this turn, and the exchanges under way."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - of the server or of a cluster
        self._client = client
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._waiting: list[tuple[tuple[str | bytes | float, ...], asyncio.Future[object]]] = []
        self._exchanges: set[asyncio.Task[None]] = set()

    async def send(self, *command: str | bytes | float) -> object:
        """The answer to one command, or redis's own error."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[object] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._begin)
        self._waiting.append((command, answer))
        return await answer

    async def close(self) -> None:
        """End what is under way."""
        for exchange in self._exchanges:
            exchange.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, []
        exchange = asyncio.create_task(self._exchange(batch), name="redis batch")
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._exchanges.discard)
        interested = len(batch)

        def lost_one(_answer: asyncio.Future[object]) -> None:
            nonlocal interested
            interested -= 1
            if not interested:
                exchange.cancel()

        for _, answer in batch:
            answer.add_done_callback(lost_one)

    async def _exchange(self, batch: list[tuple[tuple[str | bytes | float, ...], asyncio.Future[object]]]) -> None:
        try:
            async with self._slots:
                pipeline = self._client.pipeline(transaction=False)
                for command, _ in batch:
                    pipeline.execute_command(*command)
                outcomes = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            outcomes = [error] * len(batch)
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if answer.done():
                continue
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)


@asynccontextmanager
async def redis_messages(url: str, *channels: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """What is published on these channels from now on. OSError or redis's own errors when the connection is lost."""
    async with _client(url) as client, client.pubsub() as subscription:
        await subscription.subscribe(*channels)
        for _ in channels:
            # The server's word that it listens for us; only then are others told that somebody hears them.
            await _message(subscription, kinds={"subscribe"})
        yield _heard(subscription)


async def _heard(subscription: Any) -> AsyncIterator[bytes]:  # noqa: ANN401 - the library's is not typed
    while True:
        yield bytes(await _message(subscription, kinds={"message"}))


async def _message(subscription: Any, kinds: set[str]) -> bytes:  # noqa: ANN401 - as above
    asked = False
    while True:
        found = await subscription.get_message(timeout=SILENCE_SECONDS)
        if found is None and asked:
            raise TimeoutError("the server is silent")
        if found is None:
            await subscription.ping()
        elif found["type"] in kinds:
            return found["data"]  # type: ignore[no-any-return]  # bytes of a message, a number otherwise
        asked = found is None


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[Any]:
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=None,
        socket_connect_timeout=CLOSE_SECONDS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
    )
    try:
        yield Redis(connection_pool=pool)
    finally:
        with suppress(RedisError, OSError):
            await pool.aclose()
