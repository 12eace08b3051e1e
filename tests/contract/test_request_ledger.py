"""The contract of `RequestLedger`, for every implementation."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates import rendered_records as rendered
from docpreview_gateway.creates.ports import LedgerError
from docpreview_gateway.creates.records import Record, Stage, Timing, new_record
from docpreview_gateway.creates.redis_ledger import RedisLedger
from docpreview_gateway.creates.sqlite_ledger import SqliteLedger
from docpreview_gateway.storage.redis_connections import redis_commands
from tests.fakes.ledger import FakeLedger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.creates.ports import RequestLedger

NOW = 4_000_000_000.0
"""Ahead of every real clock, because servers delete expired records by their own clock."""

TIMING = Timing()


def record(request_id: str = "a", *, owner: str = "one", output: str = "p-${Page}.jpg") -> Record:
    request = CreatePreviewJobRequest(
        bucket="docs-1250000000",
        input_object="a.pdf",
        output=ObjectLocation(object=output),
        request_id=request_id,
    )
    return new_record(request, caller="", secret=b"k", owner=owner, now=NOW, timing=TIMING)


@pytest.fixture(params=["fake", "sqlite", "redis", "cluster"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RequestLedger]:
    if request.param == "fake":
        yield FakeLedger()
        return
    if request.param in {"redis", "cluster"}:
        name = {"redis": "redis_server", "cluster": "redis_cluster"}[request.param]
        async with redis_commands(request.getfixturevalue(name).url) as send:
            yield RedisLedger(send)
        return
    async with SqliteLedger(tmp_path / "state" / "ledger.db") as ledger:
        yield ledger


async def test_a_new_create_is_committed_and_its_record_returned(ledger: RequestLedger) -> None:
    """`begin` returns the record unchanged."""
    first = record()
    assert await ledger.begin(first, NOW) == first


async def test_another_process_gets_the_stored_record(ledger: RequestLedger) -> None:
    """With its owner."""
    first = record()
    await ledger.begin(first, NOW)
    assert await ledger.begin(record(owner="two"), NOW) == first


async def test_every_field_of_a_record_is_stored(ledger: RequestLedger) -> None:
    """Byte for byte."""
    first = record()
    await ledger.begin(first, NOW)
    accepted = first.sent(NOW, TIMING).accepted(PreviewJob(job_id="d1", user_data="ü"), NOW + 1, TIMING)
    assert await ledger.replace(first, accepted)
    assert await ledger.begin(record(), NOW + 2) == accepted


async def test_an_expired_record_is_replaced(ledger: RequestLedger) -> None:
    """A new create with its key begins."""
    await ledger.begin(record(), NOW)
    again = record(owner="two")
    assert await ledger.begin(again, NOW + TIMING.keep) == again


async def test_a_replaced_owner_can_neither_change_nor_delete_the_record(ledger: RequestLedger) -> None:
    """Writes compare the owner."""
    first = record()
    await ledger.begin(first, NOW)
    mine = first.taken_over("two", NOW, TIMING)
    assert await ledger.replace(first, mine)
    assert not await ledger.replace(first, first.sent(NOW, TIMING))
    await ledger.remove(first)
    assert await ledger.begin(record(), NOW) == mine


async def test_an_earlier_attempt_of_the_same_owner_cannot_write(ledger: RequestLedger) -> None:
    """Writes compare the attempt too, for an older task of the same process."""
    first = record()
    await ledger.begin(first, NOW)
    await ledger.replace(first, first.taken_over("one", NOW, TIMING))
    assert not await ledger.replace(first, first.sent(NOW, TIMING))


async def test_a_create_whose_record_was_removed_begins_anew(ledger: RequestLedger) -> None:
    """A removed record is gone."""
    await ledger.begin(record(), NOW)
    await ledger.remove(record())
    again = record(owner="two")
    assert await ledger.begin(again, NOW) == again


async def test_open_creates_were_sent_and_have_an_expired_lease(ledger: RequestLedger) -> None:
    """INTENT, ACCEPTED and leased records are not open."""
    stages = {}
    for name in ("intent", "sent", "unknown", "accepted", "fresh"):
        stages[name] = record(name)
        await ledger.begin(stages[name], NOW)
        if name != "intent":
            await ledger.replace(stages[name], stages[name].sent(NOW, TIMING))
    await ledger.replace(stages["unknown"], stages["unknown"].sent(NOW, TIMING).unknown(NOW, TIMING))
    await ledger.replace(stages["accepted"], stages["accepted"].accepted(PreviewJob(job_id="d"), NOW, TIMING))
    await ledger.replace(stages["fresh"], stages["fresh"].sent(NOW + 100, TIMING))
    found = await ledger.open(NOW + TIMING.lease)
    assert {entry.stage for entry in found} == {Stage.SENT, Stage.UNKNOWN}
    assert len(found) == 2


async def test_others_open_finds_unfinished_creates_of_the_same_target(ledger: RequestLedger) -> None:
    """Two creates find each other while neither has an outcome."""
    first, second, elsewhere = record("a"), record("b"), record("c", output="q-${Page}.jpg")
    for each in (first, second, elsewhere):
        await ledger.begin(each, NOW)
    assert await ledger.others_open(first)
    assert not await ledger.others_open(elsewhere)
    await ledger.replace(second, second.accepted(PreviewJob(job_id="d"), NOW, TIMING))
    assert not await ledger.others_open(first)


async def test_a_record_is_found_by_its_key(ledger: RequestLedger) -> None:
    """An unknown key is None."""
    first = record()
    assert await ledger.find(first.key) is None
    await ledger.begin(first, NOW)
    assert await ledger.find(first.key) == first


async def test_a_deduplication_record_is_never_open_and_filled_by_its_last_claimer_only(ledger: RequestLedger) -> None:
    """It is stored until it expires."""
    first = rendered.claim("place-1", b"f", owner="one", now=NOW, seconds=60)
    assert await ledger.begin(first, NOW) == first
    assert not await ledger.open(NOW + 30)
    again = rendered.reclaimed(first, rendered.claim("place-1", b"g", owner="one", now=NOW + 1, seconds=60))
    assert await ledger.replace(first, again)
    job = PreviewJob(bucket="docs-1250000000", job_id="d1")
    assert not await ledger.replace(first, rendered.filled(first, job, now=NOW, seconds=60))
    filled = rendered.filled(again, job, now=NOW + 2, seconds=60)
    assert await ledger.replace(again, filled)
    assert await ledger.begin(first, NOW + 61.9) == filled
    assert await ledger.begin(first, NOW + 62) == first


async def test_the_secret_is_long_and_stays_the_same(ledger: RequestLedger) -> None:
    """All calls return the same random bytes."""
    assert await ledger.secret() == await ledger.secret()
    assert len(await ledger.secret()) == 32


async def test_a_reopened_file_has_its_records_and_secret(tmp_path: Path) -> None:
    """Commits survive the process."""
    path = tmp_path / "ledger.db"
    async with SqliteLedger(path) as ledger:
        await ledger.begin(record(), NOW)
        secret = await ledger.secret()
    async with SqliteLedger(path) as ledger:
        assert await ledger.begin(record(owner="two"), NOW) == record()
        assert await ledger.secret() == secret


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be one" * 100, None], ids=["garbage", "folder"]
)
async def test_a_file_that_is_not_a_ledger_is_rejected(tmp_path: Path, content: bytes | None) -> None:
    """The error has the path, and the file is not changed."""
    path = tmp_path / "ledger.db"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        await SqliteLedger(path).__aenter__()
    assert content is None or path.read_bytes() == content


async def test_a_file_of_a_newer_version_is_rejected(tmp_path: Path) -> None:
    """Its records may have meanings that this version does not know."""
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerError, match="newer version"):
        await SqliteLedger(path).__aenter__()


async def test_a_locked_file_is_a_ledger_error_until_it_is_unlocked(tmp_path: Path) -> None:
    """Another process holds the lock."""
    path = tmp_path / "ledger.db"
    async with SqliteLedger(path) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerError, match="locked"):
            await ledger.begin(record(), NOW)
        other.execute("ROLLBACK")
        other.close()
        assert await ledger.begin(record(), NOW) == record()


async def test_taking_over_changes_owner_and_attempt() -> None:
    """Both are compared by the next write."""
    first = record()
    assert replace(first.taken_over("two", NOW, TIMING), owner="one", attempt=1) == first
