"""What `doctor` and `store status` ask the Redis server of the store, beside the store's own calls.

Imported only with shared state.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.creates.redis_creates import key_names
from docpreview_gateway.storage.redis_client import RedisCallError, RedisClient, expect, script_command
from docpreview_gateway.storage.redis_connections import redis_commands
from docpreview_gateway.storage.redis_health import read_health
from docpreview_gateway.storage.redis_keys import slot_prefix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from docpreview_gateway.storage.redis_health import RedisHealth

# One field of the records' key is the generation.
_COUNT = "return redis.call('HLEN', KEYS[1]) - redis.call('HEXISTS', KEYS[1], 'generation')"
_WRITE = "redis.call('SET', KEYS[1], 'doctor', 'PX', 1000) return redis.call('DEL', KEYS[1])"


class RedisProbe:
    """Questions to the server that holds a namespace's records. StoreError when it does not answer, or refuses."""

    def __init__(self, send: Callable[..., Awaitable[object]], namespace: str, *, seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self._client = RedisClient(send, name="store of creates", seconds=seconds)
        self._records, *_ = key_names(namespace)
        self._own = slot_prefix(namespace) + "doctor"

    async def count(self) -> int:
        """The number of records."""
        return await self._ask(_COUNT, self._records)

    async def write(self) -> None:
        """Write a key of the namespace, and delete it."""
        await self._ask(_WRITE, self._own)

    async def health(self) -> RedisHealth:
        """What the server says of its settings."""
        try:
            return await read_health(self._send, self._records, seconds=self._seconds)
        except RedisCallError as error:
            raise StoreError(str(error)) from error

    async def _ask(self, script: str, key: str) -> int:
        try:
            return await self._client.execute(*script_command(script, [key]), read=lambda answer: expect(int, answer))
        except RedisCallError as error:
            raise StoreError(str(error)) from error


@asynccontextmanager
async def redis_probe(url: str, namespace: str, *, seconds: float) -> AsyncIterator[RedisProbe]:
    """A probe with connections of its own."""
    async with redis_commands(url) as send:
        yield RedisProbe(send, namespace, seconds=seconds)
