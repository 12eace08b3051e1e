"""Rounds over the health of the store's server, against real servers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from docpreview_gateway.creates.guarded import GuardedStore
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.creates.redis_creates import RedisCreates, key_names
from docpreview_gateway.creates.server_health import ServerHealth
from docpreview_gateway.creates.store_memory import StoreMemory
from docpreview_gateway.storage.redis_connections import redis_commands
from docpreview_gateway.storage.redis_health import RedisHealth, read_health
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from tests.fakes.clock import FakeClock
from tests.fakes.creates import MemoryCreates
from tests.fakes.telemetry import FakeTelemetry
from tests.integration.conftest import until
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.redis_server import RedisServer

KEYS = CreateKeys("unit", [bytes(range(32))])
DURABLE = ("--appendonly", "yes")
RESTARTED = RedisHealth(appendonly=True, appendfsync="always", server="b:two", replays=True, replid_before="0" * 40)
META = key_names("unit")[3]
PLACE = "redis://cache:6379/0"


@dataclass
class Side:
    """A guarded store at a server, and the rounds over its health. `send` may be set to that of another server."""

    send: Callable[..., Awaitable[Any]]
    strict: bool = False

    def __post_init__(self) -> None:
        self.telemetry = FakeTelemetry()
        times = CloudTimes(FakeClock())
        self.store = GuardedStore(
            RedisCreates(self._send, KEYS), StoreMemory(None), times, is_first_start=_always, place=PLACE
        )
        read = partial(read_health, self._send, key_names("unit")[0])
        self.health = ServerHealth(read, self.store, strict=self.strict, place=PLACE, telemetry=self.telemetry)

    async def _send(self, *command: Any) -> object:
        return await self.send(*command)


async def _always() -> bool:
    return True


@asynccontextmanager
async def side(server: RedisServer, *, strict: bool = False) -> AsyncIterator[Side]:
    async with redis_commands(server.url) as send:
        found = Side(send, strict=strict)
        await found.store.open()
        yield found


async def test_what_may_lose_records_is_told_once_and_when_it_is_over(tmp_path: Path) -> None:
    """In the log with the server, and as metrics with every round."""
    with running_redis(tmp_path, "--maxmemory-policy", "allkeys-lru", *DURABLE) as server:
        async with side(server) as here:
            with structlog.testing.capture_logs() as lines:
                for _ in range(3):
                    await here.health.round()
            assert here.telemetry.health == {"maxmemory_policy"}
            ((why, place),) = [(line["why"], line["place"]) for line in lines]
            assert ("allkeys-lru" in why, place) == (True, PLACE)
            assert here.store.problem == ""
            server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            with structlog.testing.capture_logs() as lines:
                for _ in range(3):
                    await here.health.round()
            assert here.telemetry.health == set()
            assert [line["check"] for line in lines] == ["maxmemory_policy"]


async def test_with_strict_creates_are_refused_until_the_server_says_that_it_evicts_nothing(tmp_path: Path) -> None:
    """Also before the first round."""
    with running_redis(tmp_path, "--maxmemory-policy", "allkeys-lru", *DURABLE) as server:
        async with side(server, strict=True) as here:
            assert PLACE in here.store.problem
            await here.health.round()
            assert "allkeys-lru" in here.store.unsafe
            assert PLACE in here.store.problem
            server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await here.health.round()
            assert (here.store.unsafe, here.store.problem) == ("", "")


async def test_with_strict_a_healthy_start_is_no_error_and_a_server_that_says_nothing_is_one(tmp_path: Path) -> None:
    """What is not known yet is told when the first question had no answer; then the server is asked every second."""
    with running_redis(tmp_path, *DURABLE) as server, structlog.testing.capture_logs() as lines:
        async with side(server, strict=True) as here:
            await here.store.look()
            await here.health.round()
            assert (here.store.problem, lines) == ("", [])
        async with side(server, strict=True) as here:
            server.kill()
            round_ = asyncio.create_task(here.health.round())
            await until(lambda: bool(lines))
            assert [(line["event"], PLACE in line["why"]) for line in lines] == [("creates cannot be recorded", True)]
            server.start()
            await asyncio.wait_for(round_, 20)
            assert here.store.problem == ""


async def test_evicted_keys_are_counted(tmp_path: Path) -> None:
    with running_redis(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "volatile-lru", *DURABLE) as server:
        async with side(server) as here:
            for number in range(40):
                server.command("SET", f"other:{number}", "x" * 60_000, "EX", "1000")
            await here.health.round()
            assert here.telemetry.evicted_keys > 0
            assert "evicted_keys" in here.telemetry.health


async def test_a_replica_that_took_over_counts_as_a_loss_once(tmp_path: Path) -> None:
    """Although it lacks nothing that this process knows of: others may have written what it lacks."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with running_redis(tmp_path / "first", *DURABLE) as first:
        follows = ("--replicaof", "127.0.0.1", str(first.port))
        with running_redis(tmp_path / "second", *DURABLE, *follows) as second:
            async with side(first) as here, side(first) as other, redis_commands(second.url) as send_to_second:
                await here.health.round()
                await other.health.round()
                await until(lambda: b"master_link_status:up" in second.command("INFO", "replication"))
                await until(lambda: second.command("HGET", META, "seq") == first.command("HGET", META, "seq"))
                first.kill()
                second.command("REPLICAOF", "NO", "ONE")
                here.send = other.send = send_to_second
                for _ in range(2):
                    await here.health.round()
                assert (here.store.losses, here.store.lost is not None) == (1, True)
                assert PLACE in here.store.problem
                # The other one joins the loss with its next call, and does not begin another when that is over.
                await other.store.look()
                assert other.store.losses == 1
                assert here.store.lost is not None
                assert await here.store.end_rebuild(here.store.lost.lost_since, 0.0, [])
                for each in (here, other):
                    await each.store.reopen()
                    await each.health.round()
                    assert (each.store.losses, each.store.problem) == (1, "")


async def test_a_server_that_does_not_answer_is_left_to_the_store(tmp_path: Path) -> None:
    """No round fails, and what was found before stays."""
    with running_redis(tmp_path, *DURABLE) as server:
        async with side(server) as here:
            await here.health.round()
            server.kill()
            with structlog.testing.capture_logs() as lines:
                await here.health.round()
            assert lines == []
            with pytest.raises(StoreError):
                await here.store.check()
            assert PLACE in here.store.problem


@pytest.mark.parametrize(
    ("after", "losses"),
    [
        (RESTARTED, 0),
        (RESTARTED._replace(appendfsync="everysec"), 1),
        (RESTARTED._replace(replays=False), 1),
        (RESTARTED._replace(replays=None), 1),
        (RESTARTED._replace(replid_before="one"), 1),
        (RedisHealth(server="b:two"), 1),
        (RedisHealth(server="a:two", replid_before="0" * 40), 0),
        (RedisHealth(server="a:two", replid_before="three"), 1),
    ],
    ids=[
        "restarted, and syncs each change",
        "restarted, and syncs each second",
        "restarted, and leaves transactions out",
        "restarted, and does not say what it leaves out",
        "promoted",
        "does not say how it writes",
        "runs on without replicas",
        "was a replica meanwhile",
    ],
)
async def test_a_restart_is_a_loss_unless_the_server_has_written_every_change(after: RedisHealth, losses: int) -> None:
    """One that took another's place may lack what that one had acknowledged, however it writes."""
    healths = [RedisHealth(server="a:one"), after]

    async def read() -> RedisHealth:
        return healths.pop(0)

    async def first() -> bool:
        return True

    store = GuardedStore(MemoryCreates(), StoreMemory(None), CloudTimes(FakeClock()), is_first_start=first)
    health = ServerHealth(read, store, strict=False, place="redis://x", telemetry=FakeTelemetry())
    for _ in range(2):
        await health.round()
    assert store.losses == losses
