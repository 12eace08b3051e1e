"""Connections to Redis or Valkey (a server, the master of Sentinels, a cluster) that would rather fail than wait.

Nothing is tried twice: the library's ten retries take four seconds where nobody listens. Nothing has a time limit of
its own, its caller sets one for all of it, waiting for a connection included: time-outs of single reads never end a
reply that drips. What is cancelled closes its connection, so that none can read a reply that was not for it. RESP2: no
hand-shake, and no messages that nobody asked for.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.asyncio import ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from docpreview_gateway.storage import redis_urls
from docpreview_gateway.storage.background import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from docpreview_gateway.storage.redis_urls import RedisAddress

CONNECTIONS = 16
"""Most connections of a client. A command takes a tenth of a millisecond, so more would only wait at the server."""

CONNECT_SECONDS = 1.0
"""Of connecting, also when all have left who wanted it: a server that is slow to connect to is there for the next."""

SENTINEL_SECONDS = 0.3
"""Of one question to one Sentinel. The next one is asked then."""

SILENCE_SECONDS = 5.0
"""A subscription that heard nothing for so long asks whether the server is there, and ends when that stays silent."""

_ONCE: dict[str, Any] = {
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_SECONDS,
    "retry": Retry(NoBackoff(), 0),
    "health_check_interval": 0,
    "protocol": 2,
}


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

    A crowd of a thousand small commands takes a tenth of the time so. Who leaves takes nothing from the others; a
    second after the last one has left the connection is closed, unless the answers came.
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
        self._exchanges = BackgroundTasks()

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
        await self._exchanges.cancel()

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, []
        loop = asyncio.get_running_loop()
        exchange = self._exchanges.start(self._exchange(batch), "redis batch")
        interested = len(batch)

        def lost_one(_answer: asyncio.Future[object]) -> None:
            nonlocal interested
            interested -= 1
            if not interested and not exchange.done():
                loop.call_later(CONNECT_SECONDS, exchange.cancel)

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
    async with _client(url, for_messages=True) as client, client.pubsub() as subscription:
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
async def _client(url: str, *, for_messages: bool = False) -> AsyncIterator[Any]:
    address = redis_urls.parse(url)
    async with AsyncExitStack() as stack:
        if address.kind == "cluster":
            cluster = _cluster(address)
            stack.push_async_callback(_closed, partial(_leave, cluster))
            if not for_messages:
                yield cluster
                return
            # Any node passes on what is published at any other.
            cluster = await cluster.initialize()
            node = cluster.get_random_node()
            pool = ConnectionPool(host=node.host, port=node.port, **_credentials(address))
        elif address.kind == "sentinel":
            pool = _master(address, stack)
        else:
            pool = ConnectionPool.from_url(url, **_ONCE)
        stack.push_async_callback(_closed, pool.aclose)
        yield Redis(connection_pool=pool)


async def _leave(cluster: RedisCluster) -> None:
    await cluster.aclose()
    # A cluster that was about to look for its nodes anew counts as closed already, with its connections open.
    for known in ("nodes_cache", "startup_nodes"):
        await cluster.nodes_manager.aclose(known)


def _cluster(address: RedisAddress) -> RedisCluster:
    nodes = [ClusterNode(host, port) for host, port in address.hosts]
    return RedisCluster(startup_nodes=nodes, ssl=address.tls, **_options(address))


def _master(address: RedisAddress, stack: AsyncExitStack) -> ConnectionPool:
    """Connections to whatever server the Sentinels call the master, which is asked for each new one."""
    own = {name: address.options.get(f"sentinel_{name}") for name in ("username", "password")}
    brief = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}
    tls = {"ssl": address.tls, **_tls(address)} if address.tls else {}
    sentinels = Sentinel(address.hosts, sentinel_kwargs={**_ONCE, **own, **brief, **tls})  # type: ignore[no-untyped-call]
    for sentinel in sentinels.sentinels:
        stack.push_async_callback(_closed, sentinel.aclose)
    options = {**_options(address), "db": address.database, "ssl": address.tls}
    return SentinelConnectionPool(address.service, sentinels, **options)  # type: ignore[no-untyped-call]


def _credentials(address: RedisAddress) -> dict[str, Any]:
    """Of a connection of its own to a server of the address."""
    return _options(address) | ({"connection_class": SSLConnection} if address.tls else {})


def _options(address: RedisAddress) -> dict[str, Any]:
    return {**_ONCE, "username": address.username, "password": address.password, **_tls(address)}


def _tls(address: RedisAddress) -> dict[str, Any]:
    found: dict[str, Any] = {name: value for name, value in address.options.items() if name.startswith("ssl_")}
    if "ssl_check_hostname" in found:
        found["ssl_check_hostname"] = found["ssl_check_hostname"].lower() in {"1", "true", "yes"}
    return found


async def _closed(close: Callable[[], Awaitable[object]]) -> None:
    with suppress(RedisError, OSError):
        await close()
