"""Connections to Redis or Valkey: one server, the master of Sentinels, or a cluster.

Commands fail fast. They are not retried: the library's ten retries take four seconds at a port where nothing listens.
They have no time limit of their own. The caller sets one for the whole command, the wait for a connection included,
because a timeout of single reads never ends a reply that comes byte by byte. A cancelled command closes its connection,
so that no other command reads its reply. RESP2 is spoken, which has no handshake and no unsolicited messages.
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
"""Most connections of a client. A command takes the server 0.1 ms, so more connections would only queue there."""

CONNECT_SECONDS = 1.0
"""Time limit of connecting. It goes on after its callers have left, so that the next ones find a connection."""

SENTINEL_SECONDS = 0.3
"""Time limit of one query of one Sentinel, after which the next Sentinel is queried."""

SILENCE_SECONDS = 5.0
"""Time without messages after which a subscription sends a PING, and after which it ends without an answer to that."""

_NO_RETRIES: dict[str, Any] = {
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_SECONDS,
    "retry": Retry(NoBackoff(), 0),
    "health_check_interval": 0,
    "protocol": 2,
}


@asynccontextmanager
async def redis_commands(url: str) -> AsyncIterator[Callable[..., Awaitable[object]]]:
    """A function that sends one command and returns its answer, or raises the library's errors.

    It connects at its first call, so the server may be down at start.
    """
    async with _client(url) as client:
        # Not the library's blocking pool: it can lose a connection when the task that returns it is cancelled.
        permits = asyncio.Semaphore(CONNECTIONS)

        async def send(*command: str | bytes | float) -> object:
            async with permits:
                answer: object = await client.execute_command(*command)
                return answer

        yield send


@asynccontextmanager
async def redis_batches(url: str) -> AsyncIterator[Callable[..., Awaitable[object]]]:
    """As `redis_commands`, with the commands of one turn of the event loop in one pipeline.

    A thousand small commands at once take a tenth of the time that way. A caller that is cancelled does not disturb the
    others. A second after the last caller of a pipeline is cancelled, the pipeline is cancelled too.
    """
    async with _client(url) as client:
        batches = _Batches(client)
        yield batches.send
        await batches.close()


class _Batches:
    """The commands of this turn of the event loop, and the pipelines in flight."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - of the server or of a cluster
        self._client = client
        self._permits = asyncio.Semaphore(CONNECTIONS)
        self._waiting: list[tuple[tuple[str | bytes | float, ...], asyncio.Future[object]]] = []
        self._exchanges = BackgroundTasks()

    async def send(self, *command: str | bytes | float) -> object:
        """The answer to one command, or the library's error."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[object] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._begin)
        self._waiting.append((command, answer))
        return await answer

    async def close(self) -> None:
        """Cancel the pipelines in flight."""
        await self._exchanges.cancel()

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, []
        loop = asyncio.get_running_loop()
        exchange = self._exchanges.start(self._exchange(batch), "redis batch")
        waiting = len(batch)

        def count_down(_answer: asyncio.Future[object]) -> None:
            nonlocal waiting
            waiting -= 1
            if not waiting and not exchange.done():
                loop.call_later(CONNECT_SECONDS, exchange.cancel)

        for _, answer in batch:
            answer.add_done_callback(count_down)

    async def _exchange(self, batch: list[tuple[tuple[str | bytes | float, ...], asyncio.Future[object]]]) -> None:
        try:
            async with self._permits:
                pipeline = self._client.pipeline(transaction=False)
                for command, _ in batch:
                    pipeline.execute_command(*command)
                outcomes = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - any error is one of the callers'
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
    """Messages on these channels from now on. OSError or the library's errors when the connection is lost."""
    async with _client(url, for_messages=True) as client, client.pubsub() as subscription:
        await subscription.subscribe(*channels)
        for _ in channels:
            # The server confirms the subscription. From here on no message is missed.
            await _next_message(subscription, kinds={"subscribe"})
        yield _messages(subscription)


async def _messages(subscription: Any) -> AsyncIterator[bytes]:  # noqa: ANN401 - the library's is not typed
    while True:
        yield bytes(await _next_message(subscription, kinds={"message"}))


async def _next_message(subscription: Any, kinds: set[str]) -> bytes:  # noqa: ANN401 - as above
    pinged = False
    while True:
        found = await subscription.get_message(timeout=SILENCE_SECONDS)
        if found is None and pinged:
            raise TimeoutError("the server is silent")
        if found is None:
            await subscription.ping()
        elif found["type"] in kinds:
            return found["data"]  # type: ignore[no-any-return]  # bytes of a message, a number otherwise
        pinged = found is None


@asynccontextmanager
async def _client(url: str, *, for_messages: bool = False) -> AsyncIterator[Any]:
    address = redis_urls.parse(url)
    async with AsyncExitStack() as stack:
        if address.kind == "cluster":
            cluster = _cluster(address)
            stack.push_async_callback(_close_quietly, partial(_close_cluster, cluster))
            if not for_messages:
                yield cluster
                return
            # Every node forwards the messages that are published at any other.
            cluster = await cluster.initialize()
            node = cluster.get_random_node()
            pool = ConnectionPool(host=node.host, port=node.port, **_node_options(address))
        elif address.kind == "sentinel":
            pool = _master_pool(address, stack)
        else:
            pool = ConnectionPool.from_url(url, **_NO_RETRIES)
        stack.push_async_callback(_close_quietly, pool.aclose)
        yield Redis(connection_pool=pool)


async def _close_cluster(cluster: RedisCluster) -> None:
    await cluster.aclose()
    # The library takes a cluster that is about to refresh its nodes for closed and leaves its connections open.
    for known in ("nodes_cache", "startup_nodes"):
        await cluster.nodes_manager.aclose(known)


def _cluster(address: RedisAddress) -> RedisCluster:
    nodes = [ClusterNode(host, port) for host, port in address.hosts]
    return RedisCluster(startup_nodes=nodes, ssl=address.tls, **_options(address))


def _master_pool(address: RedisAddress, stack: AsyncExitStack) -> ConnectionPool:
    """Connections to the current master. The Sentinels are queried for each new connection."""
    credentials = {name: address.options.get(f"sentinel_{name}") for name in ("username", "password")}
    timeouts = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}
    tls = {"ssl": address.tls, **_tls(address)} if address.tls else {}
    sentinels = Sentinel(address.hosts, sentinel_kwargs={**_NO_RETRIES, **credentials, **timeouts, **tls})  # type: ignore[no-untyped-call]
    for sentinel in sentinels.sentinels:
        stack.push_async_callback(_close_quietly, sentinel.aclose)
    options = {**_options(address), "db": address.database, "ssl": address.tls}
    return SentinelConnectionPool(address.service, sentinels, **options)  # type: ignore[no-untyped-call]


def _node_options(address: RedisAddress) -> dict[str, Any]:
    """Options of a connection to one node of a cluster."""
    return _options(address) | ({"connection_class": SSLConnection} if address.tls else {})


def _options(address: RedisAddress) -> dict[str, Any]:
    return {**_NO_RETRIES, "username": address.username, "password": address.password, **_tls(address)}


def _tls(address: RedisAddress) -> dict[str, Any]:
    found: dict[str, Any] = {name: value for name, value in address.options.items() if name.startswith("ssl_")}
    if "ssl_check_hostname" in found:
        found["ssl_check_hostname"] = found["ssl_check_hostname"].lower() in {"1", "true", "yes"}
    return found


async def _close_quietly(close: Callable[[], Awaitable[object]]) -> None:
    with suppress(RedisError, OSError):
        await close()
