"""The ledger in Redis, beyond the contract of all ledgers in tests/contract/test_request_ledger.py."""

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
async def test_a_reply_of_an_unexpected_type_is_a_ledger_error(answer: object) -> None:
    """A reply of an unexpected type never counts as success: the create would be sent without a record."""

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


async def test_one_of_many_processes_that_begin_the_same_create_owns_it(redis_server: RedisServer) -> None:
    """One process owns the record, and all of them get that record."""
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


async def test_two_processes_that_create_the_secret_get_the_same_one(redis_server: RedisServer) -> None:
    """Concurrent first uses of the ledger agree on one secret."""
    async with ledger_of(redis_server) as one, ledger_of(redis_server) as other:
        secrets = await asyncio.gather(*(ledger.secret() for ledger in (one, other) * 10))
    assert len(set(secrets)) == 1


async def test_the_server_deletes_a_record_an_hour_after_its_end(redis_server: RedisServer) -> None:
    """The hour is for clocks that differ: the record has expired by all of them when the server deletes it."""
    async with ledger_of(redis_server) as ledger:
        await ledger.begin(record(), NOW)
        await ledger.replace(record(), record().sent(NOW, TIMING))
    gone_at = int((NOW + TIMING.keep + KEEP_LONGER) * 1000)
    for kind, name in (("create", record().key), ("target", record().target)):
        assert redis_server.command("PEXPIRETIME", f"{PREFIX}{kind}:{name}") == b":%d\r\n" % gone_at


async def test_a_record_that_the_server_deleted_is_not_open_and_leaves_nothing(redis_server: RedisServer) -> None:
    """The record is neither open nor counted among others of its target, and its index entries are removed."""
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
    """Open creates of several batches are each returned once."""
    records = [record(str(number)) for number in range(2 * BATCH + 1)]
    async with ledger_of(redis_server, seconds=10) as ledger:
        for each in records:
            await ledger.begin(each, NOW)
            await ledger.replace(each, each.sent(NOW, TIMING))
        found = await ledger.open(NOW + TIMING.lease)
    assert sorted(each.key for each in found) == sorted(each.key for each in records)


async def test_a_server_that_lost_its_data_has_an_empty_ledger_and_a_new_secret(redis_server: RedisServer) -> None:
    """After FLUSHALL and SCRIPT FLUSH the ledger works, without records and with another secret."""
    async with ledger_of(redis_server) as ledger:
        secret = await ledger.secret()
        await ledger.begin(record(), NOW)
        redis_server.command("FLUSHALL")
        redis_server.command("SCRIPT", "FLUSH")
        assert await ledger.secret() != secret
        again = record(owner="two")
        assert await ledger.begin(again, NOW) == again


async def test_a_record_of_another_version_is_a_ledger_error(redis_server: RedisServer) -> None:
    """An unknown stage is a LedgerError, so that nothing is sent."""
    async with ledger_of(redis_server) as ledger:
        await ledger.begin(record(), NOW)
        redis_server.command("HSET", f"{PREFIX}create:{record().key}", "stage", "paid")
        with pytest.raises(LedgerError, match="this version"):
            await ledger.begin(record(), NOW)


async def test_a_stopped_server_is_a_ledger_error_until_it_is_back(tmp_path: Path) -> None:
    """Calls fail immediately while the server is down and succeed as soon as it is up."""
    with running_redis(tmp_path) as server:
        async with ledger_of(server) as ledger:
            await ledger.secret()
            server.kill()
            for _ in range(3):
                with pytest.raises(LedgerError, match=r"^shared_state: "):
                    await ledger.begin(record(), NOW)
            server.start()
            assert await ledger.begin(record(), NOW) == record()


async def test_a_server_that_hangs_is_a_ledger_error_in_time(tmp_path: Path) -> None:
    """A command that the server carries out late does not change later writes."""
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


async def test_a_full_server_is_a_ledger_error_and_stores_nothing(tmp_path: Path) -> None:
    """A write that the server refuses for lack of memory leaves no part of a record."""
    with running_redis(tmp_path, "--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
        async with ledger_of(server) as ledger:
            with pytest.raises(LedgerError, match="maxmemory"):
                await ledger.begin(record(), NOW)
        assert server.command("KEYS", "*") == b"*0\r\n"
