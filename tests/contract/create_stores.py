"""The stores that the contract of `CreateStore` is checked against, and what a test does to them behind their back.

One entry of `STORES` for each implementation: a context manager that gives an empty store's `Stores`.
"""

from __future__ import annotations

import copy
import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from typing import TYPE_CHECKING, Any, Protocol

from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004 - the library names them so

from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.redis_creates import RedisCreates, key_names
from docpreview_gateway.creates.sqlite_creates import SqliteCreates
from docpreview_gateway.storage.redis_connections import redis_commands
from tests.fakes.creates import MemoryCreates, MemoryData

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import pytest

    from docpreview_gateway.creates.ports import CreateStore

KEYS = CreateKeys("contract", [bytes(range(32))])
NAMES = key_names(KEYS.namespace)
RECORDS = NAMES[0]


class Stores(Protocol):
    """One store, with any number of connections to it."""

    async def connect(self, keys: CreateKeys = KEYS) -> CreateStore:
        """The connection of another replica, with these secrets. It has not called `state` yet."""
        ...

    async def empty(self) -> None:
        """Delete everything, the generation too."""
        ...

    async def save(self) -> None:
        """Make a copy of everything."""
        ...

    async def restore(self) -> None:
        """Put the copy in place of everything."""
        ...

    async def tamper(self, key: str) -> None:
        """Change one byte in the stored record of this key."""
        ...

    async def swap(self, one: str, other: str) -> None:
        """Exchange the stored (packed) records of two keys."""
        ...


class _Memory:
    def __init__(self) -> None:
        self._data = MemoryData()
        self._copy = MemoryData()

    async def connect(self, keys: CreateKeys = KEYS) -> CreateStore:
        return MemoryCreates(self._data, secrets=keys.ids)

    async def empty(self) -> None:
        self._data.empty()

    async def save(self) -> None:
        self._copy = copy.deepcopy(self._data)

    async def restore(self) -> None:
        self._data.__dict__.update(copy.deepcopy(self._copy).__dict__)

    async def tamper(self, key: str) -> None:
        self._data.unreadable.add(key)

    async def swap(self, one: str, other: str) -> None:
        self._data.unreadable.update((one, other))


class _Sqlite:
    def __init__(self, path: Path, stack: AsyncExitStack) -> None:
        self._path = path
        self._stack = stack
        self._copy = path.with_name("copy.db")

    async def connect(self, keys: CreateKeys = KEYS) -> CreateStore:
        return await self._stack.enter_async_context(SqliteCreates(self._path, keys))

    async def empty(self) -> None:
        """Delete all rows. A file that is deleted is a test of its own (`tests/unit/creates`)."""
        with closing(sqlite3.connect(self._path)) as other, other:
            for table in ("creates", "accepted", "places", "pages", "leases", "meta", "secrets"):
                other.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names

    async def save(self) -> None:
        self._back_up(self._path, self._copy)

    async def restore(self) -> None:
        self._back_up(self._copy, self._path)

    def _back_up(self, one: Path, other: Path) -> None:
        with closing(sqlite3.connect(one)) as source, closing(sqlite3.connect(other)) as target:
            source.backup(target)

    async def tamper(self, key: str) -> None:
        stored = self._packed(key)
        middle = len(stored) // 2
        self._put(key, stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :])

    async def swap(self, one: str, other: str) -> None:
        ones, others = self._packed(one), self._packed(other)
        self._put(one, others)
        self._put(other, ones)

    def _packed(self, key: str) -> bytes:
        with closing(sqlite3.connect(self._path)) as other:
            (stored,) = other.execute("SELECT packed FROM creates WHERE key = ?", (key,)).fetchone()
        assert isinstance(stored, bytes)
        return stored

    def _put(self, key: str, stored: bytes) -> None:
        with closing(sqlite3.connect(self._path)) as other, other:
            assert other.execute("UPDATE creates SET packed = ? WHERE key = ?", (stored, key)).rowcount == 1


@asynccontextmanager
async def memory(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Stores]:
    """The store of `tests/fakes/creates.py`."""
    del request, folder
    yield _Memory()


@asynccontextmanager
async def sqlite(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Stores]:
    """The store in a file."""
    del request
    async with AsyncExitStack() as stack:
        yield _Sqlite(folder / "state" / "creates.db", stack)


class _Redis:
    """A namespace on a server or a cluster. Each connection is a client of its own."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        self._copies: dict[str, bytes] = {}

    async def connect(self, keys: CreateKeys = KEYS) -> CreateStore:
        return RedisCreates(await self._send(), keys, seconds=10)

    async def _send(self) -> Callable[..., Awaitable[Any]]:
        send = await self._stack.enter_async_context(redis_commands(self._url))
        # On a crowded machine connecting may take longer than a gateway waits for it.
        for _ in range(5):
            with suppress(ConnectionError, TimeoutError):
                await send("EXISTS", RECORDS)
                break
        return send

    async def empty(self) -> None:
        await (await self._send())("DEL", *NAMES)

    async def save(self) -> None:
        send = await self._send()
        self._copies = {name: await send("DUMP", name) for name in NAMES}

    async def restore(self) -> None:
        await self.empty()
        send = await self._send()
        for name, copied in self._copies.items():
            await send("RESTORE", name, 0, copied)

    async def tamper(self, key: str) -> None:
        send = await self._send()
        row = bytearray(await send("HGET", RECORDS, key))
        row[len(row) // 2] ^= 1
        await send("HSET", RECORDS, key, bytes(row))

    async def swap(self, one: str, other: str) -> None:
        send = await self._send()
        rows = [await send("HGET", RECORDS, key) for key in (one, other)]
        await send("HSET", RECORDS, one, rows[1], other, rows[0])


@asynccontextmanager
async def redis(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Stores]:
    """A store on a real server."""
    del folder
    async with AsyncExitStack() as stack:
        yield _Redis(request.getfixturevalue("redis_server").url, stack)


@asynccontextmanager
async def cluster(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Stores]:
    """A store on a cluster of real servers."""
    del folder
    async with AsyncExitStack() as stack:
        yield _Redis(request.getfixturevalue("redis_cluster").url, stack)


STORES: dict[str, Callable[[pytest.FixtureRequest, Path], AbstractAsyncContextManager[Stores]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "redis": redis,
    "cluster": cluster,
}


async def opened(stores: Stores, keys: CreateKeys = KEYS) -> CreateStore:
    """A connection that knows its store, which has a generation and no loss."""
    store = await stores.connect(keys)
    state = await store.state()
    if not state.generation:
        state = await store.begin_rebuild(1.0)
    if state.lost_since:
        assert await store.end_rebuild(state.lost_since, 0.0, [])
    return store
