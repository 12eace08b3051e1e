"""The contract of `DeliveryQueue`, for every implementation: a real Redis, and a SQLite file."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.storage.redis_connections import redis_commands
from docpreview_gateway.webhooks.deliveries import DamagedDeliveryError, Delivery, Depth, Unreadable, packed, unpacked
from docpreview_gateway.webhooks.redis_queue import RedisDeliveries
from docpreview_gateway.webhooks.sqlite_queue import SqliteDeliveries
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.webhooks.deliveries import DeliveryQueue
    from tests.redis_server import RedisServer

KEYS = CreateKeys("contract", [bytes(range(32))])
OTHER_KEYS = CreateKeys("contract", [bytes(32)])
LEASE = 60.0


def delivery(name: str = "evt_1") -> Delivery:
    return Delivery(name, "orders", "shop", "docs-1250000000", "d1", promised_at=1000.0)


async def taken(queue: DeliveryQueue, lease: float = LEASE) -> list[Delivery]:
    """What is due, all of which can be read."""
    found = await queue.take(5, lease)
    assert all(isinstance(each, Delivery) for each in found)
    return [each for each in found if isinstance(each, Delivery)]


@dataclass
class Queues:
    """One queue, with any number of connections to it."""

    folder: Path
    stack: AsyncExitStack
    server: RedisServer | None = None

    async def connect(self, keys: CreateKeys = KEYS) -> DeliveryQueue:
        """The connection of another process."""
        if self.server is not None:
            send = await self.stack.enter_async_context(redis_commands(self.server.url))
            return RedisDeliveries(send, keys, seconds=2.0)
        queue = SqliteDeliveries(self.folder / "webhooks.db", keys, SystemClock())
        self.stack.push_async_callback(queue.close)
        return queue


@pytest.fixture(params=["redis", "sqlite"])
async def queues(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Queues]:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running_redis(tmp_path)) if request.param == "redis" else None
        yield Queues(tmp_path, stack, server)


@pytest.fixture
async def queue(queues: Queues) -> DeliveryQueue:
    return await queues.connect()


async def test_what_is_due_is_taken_once_and_by_one(queues: Queues) -> None:
    one, other = await queues.connect(), await queues.connect()
    await one.put(delivery(), 0.0)
    assert await other.take(5, LEASE) == [replace(delivery(), lease=1)]
    assert await one.take(5, LEASE) == []


async def test_what_is_not_due_is_not_taken(queue: DeliveryQueue) -> None:
    await queue.put(delivery(), 600.0)
    assert await queue.take(5, LEASE) == []


async def test_no_more_are_taken_than_asked_for_the_longest_due_first(queue: DeliveryQueue) -> None:
    await queue.put(delivery("evt_young"), -1.0)
    await queue.put(delivery("evt_old"), -5.0)
    assert [found.id for found in await queue.take(1, LEASE)] == ["evt_old"]
    assert await queue.take(0, LEASE) == []


async def test_a_second_put_of_an_id_changes_nothing(queue: DeliveryQueue) -> None:
    await queue.put(delivery(), 0.0)
    await queue.put(replace(delivery(), caller="else"), 600.0)
    assert [found.caller for found in await taken(queue)] == ["shop"]


async def test_a_lease_that_has_ended_is_taken_by_another_and_the_first_changes_nothing_more(queues: Queues) -> None:
    """As when a process stops in the middle of an attempt."""
    one, other = await queues.connect(), await queues.connect()
    await one.put(delivery(), 0.0)
    (first,) = await taken(one, 0.0)
    (second,) = await taken(other)
    assert (first.lease, second.lease) == (1, 2)
    assert not await one.replace(replace(first, body="{}", ended_at=2000.0), 0.0)
    assert not await one.remove(first)
    assert await other.replace(replace(second, body="{}", ended_at=2000.0), LEASE)
    assert await other.remove(second)
    assert await other.depth() == Depth(0, 0, None)


async def test_what_is_replaced_is_due_later_with_what_it_says_now(queue: DeliveryQueue) -> None:
    await queue.put(delivery(), 0.0)
    (found,) = await taken(queue)
    assert await queue.replace(replace(found, body='{"ü":1}', ended_at=2000.5, attempts=3), 0.0)
    (again,) = await taken(queue)
    assert (again.body, again.ended_at, again.attempts, again.lease) == ('{"ü":1}', 2000.5, 3, 2)


async def test_what_waits_for_an_end_can_be_hastened_and_a_pause_after_a_failure_cannot(queue: DeliveryQueue) -> None:
    await queue.put(delivery("evt_waiting"), 600.0)
    await queue.put(delivery("evt_failed"), -1.0)
    (failed,) = await taken(queue)
    assert await queue.replace(replace(failed, body="{}", ended_at=2000.0), 600.0)
    await queue.hasten(["evt_waiting", "evt_failed", "evt_unknown"])
    assert [found.id for found in await queue.take(5, LEASE)] == ["evt_waiting"]
    assert await queue.depth() == Depth(1, 1, 2000.0)


async def test_what_was_written_by_somebody_else_is_not_delivered(queues: Queues) -> None:
    """Whoever may write to the store, or has an old secret's copy of it, has no event signed."""
    ours, theirs = await queues.connect(), await queues.connect(OTHER_KEYS)
    await theirs.put(delivery("evt_theirs"), -2.0)
    await ours.put(delivery("evt_ours"), -1.0)
    unreadable, found = await ours.take(5, LEASE)
    assert isinstance(unreadable, Unreadable)
    assert (unreadable.id, unreadable.promised_at, unreadable.lease) == ("evt_theirs", 1000.0, 1)
    assert "not in ledger.key_file" in unreadable.why
    assert found == replace(delivery("evt_ours"), lease=1)


async def test_what_cannot_be_read_is_put_off_unchanged_and_read_when_its_secret_is_back(queues: Queues) -> None:
    ours, theirs = await queues.connect(), await queues.connect(OTHER_KEYS)
    await theirs.put(delivery(), 0.0)
    (unreadable,) = await ours.take(5, LEASE)
    assert await ours.put_off(unreadable, 600.0)
    assert await theirs.take(5, LEASE) == []
    assert await ours.put_off(unreadable, 0.0)
    assert await theirs.take(5, LEASE) == [replace(delivery(), lease=2)]
    assert not await ours.put_off(unreadable, 0.0)
    assert not await ours.remove(unreadable)


async def test_what_cannot_be_read_can_be_removed(queues: Queues) -> None:
    ours, theirs = await queues.connect(), await queues.connect(OTHER_KEYS)
    await theirs.put(delivery(), 0.0)
    (unreadable,) = await ours.take(5, LEASE)
    assert await ours.remove(unreadable)
    assert await theirs.depth() == Depth(0, 0, None)


async def test_a_server_that_is_away_is_a_store_error(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with redis_commands(server.url) as send:
            queue = RedisDeliveries(send, KEYS, seconds=0.5)
            server.kill()
            with pytest.raises(StoreError):
                await queue.put(delivery(), 0.0)


async def test_a_file_that_cannot_be_opened_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "webhooks.db").mkdir()
    queue = SqliteDeliveries(tmp_path / "webhooks.db", KEYS, SystemClock())
    with pytest.raises(StoreError):
        await queue.put(delivery(), 0.0)


@pytest.mark.parametrize("place", [0, 10, -2])
def test_one_changed_byte_is_found(place: int) -> None:
    stored = bytearray(packed(delivery(), KEYS))
    stored[place] ^= 1
    with pytest.raises(DamagedDeliveryError):
        unpacked(bytes(stored), 1, KEYS)


async def test_a_queue_without_webhooks_makes_no_file(tmp_path: Path) -> None:
    queue = SqliteDeliveries(tmp_path / "webhooks.db", KEYS, SystemClock())
    assert await queue.take(5, LEASE) == []
    await queue.hasten(["evt_1"])
    assert await queue.depth() == Depth(0, 0, None)
    assert not (tmp_path / "webhooks.db").exists()
