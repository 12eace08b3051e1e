"""What is special to a ledger in Redis; the contract of all ledgers is in tests/contract/test_request_ledger.py."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.ports import LedgerError
from docpreview_gateway.creates.records import Record, Timing, new_record
from docpreview_gateway.creates.redis_ledger import BATCH, KEEP_LONGER, RedisLedger
from docpreview_gateway.storage.redis_connections import redis_commands
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.creates.ports import RequestLedger
    from tests.redis_server import RedisServer

NOW = 4_000_000_000.0
TIMING = Timing()
PREFIX = "docpreview:1:{ledger}:"


def record(request_id: str = "a", *, owner: str = "one") -> Record:
    request = CreatePreviewJobRequest(
        bucket="docs-1250000000",
        input_object="a.pdf",
        output=ObjectLocation(object="p-${Page}.jpg"),
        request_id=request_id,
    )
    return new_record(request, caller="", secret=b"k", owner=owner, now=NOW, timing=TIMING)


@asynccontextmanager
async def ledger_of(server: RedisServer, *, seconds: float = 1.0) -> AsyncIterator[RequestLedger]:
    async with redis_commands(server.url) as send:
        yield RedisLedger(send, seconds=seconds)


@pytest.mark.parametrize("answer", [None, b"yes", [1, b"abc"], 1.5, "OK"])
async def test_answer_of_another_kind(answer: object) -> None:
    """It is an error and never taken for a yes: the create would leave without a record."""

    async def send(*_command: object) -> object:
        return answer

    ledger, mine = RedisLedger(send), record()
    with pytest.raises(LedgerError):
        await ledger.replace(mine, mine.taken_over("two", NOW, TIMING))
    with pytest.raises(LedgerError):
        await ledger.others_open(mine)
    with pytest.raises(LedgerError):
        await ledger.open(NOW)
    with pytest.raises(LedgerError):
        await ledger.begin(mine, NOW)


async def test_many_processes_that_begin_the_same_create(redis_server: RedisServer) -> None:
    """One of them owns it, and all of them learn which."""
    async with ledger_of(redis_server) as one, ledger_of(redis_server) as other:
        begun = await asyncio.gather(
            *((one, other)[number % 2].begin(record(owner=str(number)), NOW) for number in range(50))
        )
        assert len({found.owner for found in begun}) == 1
        mine = begun[0]
        taken = await asyncio.gather(
            *((one, other)[number % 2].replace(mine, mine.taken_over(str(number), NOW, TIMING)) for number in range(50))
        )
    assert sum(taken) == 1


async def test_secret_that_two_processes_make(redis_server: RedisServer) -> None:
    """It is the same for both."""
    async with ledger_of(redis_server) as one, ledger_of(redis_server) as other:
        secrets = await asyncio.gather(*(ledger.secret() for ledger in (one, other) * 10))
    assert len(set(secrets)) == 1


async def test_record_that_nobody_asks_for_again(redis_server: RedisServer) -> None:
    """The server itself deletes it, an hour after its end: by then no clock says that it still stands."""
    async with ledger_of(redis_server) as ledger:
        await ledger.begin(record(), NOW)
        await ledger.replace(record(), record().sent(NOW, TIMING))
    gone_at = int((NOW + TIMING.keep + KEEP_LONGER) * 1000)
    for kind, name in (("create", record().key), ("target", record().target)):
        assert redis_server.command("PEXPIRETIME", f"{PREFIX}{kind}:{name}") == b":%d\r\n" % gone_at


async def test_record_that_the_server_deleted(redis_server: RedisServer) -> None:
    """It is neither open nor in the way of others, and nothing of it is left."""
    first, second = record("a"), record("b")
    async with ledger_of(redis_server) as ledger:
        for each in (first, second):
            await ledger.begin(each, NOW)
            await ledger.replace(each, each.sent(NOW, TIMING))
        redis_server.command("DEL", f"{PREFIX}create:{first.key}")
        assert [found.key for found in await ledger.open(NOW + TIMING.lease)] == [second.key]
        assert not await ledger.others_open(second)
        assert not await ledger.replace(first, first)
        await ledger.remove(second)
    assert redis_server.command("KEYS", "*") == b"*0\r\n"


async def test_more_open_creates_than_one_batch_are_all_found_once(redis_server: RedisServer) -> None:
    """All of them are found, once."""
    records = [record(str(number)) for number in range(2 * BATCH + 1)]
    async with ledger_of(redis_server, seconds=10) as ledger:
        for each in records:
            await ledger.begin(each, NOW)
            await ledger.replace(each, each.sent(NOW, TIMING))
        found = await ledger.open(NOW + TIMING.lease)
    assert sorted(each.key for each in found) == sorted(each.key for each in records)


async def test_server_that_forgot_everything(redis_server: RedisServer) -> None:
    """It goes on, with an empty ledger and a new secret."""
    async with ledger_of(redis_server) as ledger:
        secret = await ledger.secret()
        await ledger.begin(record(), NOW)
        redis_server.command("FLUSHALL")
        redis_server.command("SCRIPT", "FLUSH")
        assert await ledger.secret() != secret
        again = record(owner="two")
        assert await ledger.begin(again, NOW) == again


async def test_record_of_another_version(redis_server: RedisServer) -> None:
    """A LedgerError, so that nothing is sent."""
    async with ledger_of(redis_server) as ledger:
        await ledger.begin(record(), NOW)
        redis_server.command("HSET", f"{PREFIX}create:{record().key}", "stage", "paid")
        with pytest.raises(LedgerError, match="this version"):
            await ledger.begin(record(), NOW)


async def test_server_that_is_gone(tmp_path: Path) -> None:
    """A LedgerError at once, and all is well again as soon as it is back."""
    with running_redis(tmp_path) as server:
        async with ledger_of(server) as ledger:
            await ledger.secret()
            server.kill()
            for _ in range(3):
                with pytest.raises(LedgerError, match=r"^shared_state: "):
                    await ledger.begin(record(), NOW)
            server.start()
            assert await ledger.begin(record(), NOW) == record()


async def test_server_that_hangs(tmp_path: Path) -> None:
    """A LedgerError in time. What it does when it wakes up changes nothing that came later."""
    loop = asyncio.get_running_loop()
    with running_redis(tmp_path) as server:
        async with ledger_of(server, seconds=0.2) as ledger:
            await ledger.begin(record(), NOW)
            server.freeze()
            begin = loop.time()
            with pytest.raises(LedgerError, match="no answer in time"):
                await ledger.replace(record(), record().sent(NOW, TIMING))
            assert 0.15 < loop.time() - begin < 1
            server.thaw()
            standing = await ledger.begin(record(owner="two"), NOW)
            assert standing in {record(), record().sent(NOW, TIMING)}
            mine = standing.taken_over("two", NOW, TIMING)
            assert await ledger.replace(standing, mine) or await ledger.replace(record().sent(NOW, TIMING), mine)
            assert await ledger.begin(record(), NOW) == mine


async def test_server_that_is_full(tmp_path: Path) -> None:
    """A LedgerError, and nothing half done."""
    with running_redis(tmp_path, "--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
        async with ledger_of(server) as ledger:
            with pytest.raises(LedgerError, match="maxmemory"):
                await ledger.begin(record(), NOW)
        assert server.command("KEYS", "*") == b"*0\r\n"
