"""Secrets of a store: a process that lacks one of them makes no create there."""

from __future__ import annotations

from contextlib import suppress

import pytest
import structlog

from docpreview_gateway.creates.guarded import GuardedStore
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.ports import Change, SecretUse, StoreError
from docpreview_gateway.creates.records import Record
from docpreview_gateway.creates.secret_use import MARGIN_SECONDS, in_use, problem, unknown
from docpreview_gateway.creates.store_memory import Remembered, StoreMemory
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from tests.fakes.clock import FakeClock
from tests.fakes.creates import MemoryCreates, MemoryData

KEEP = 3600.0
OLD, NEW, OTHER = (bytes(range(first, first + 32)) for first in range(3))


class Replica:
    """A process with these secrets, the current one first, at the store of `data`."""

    def __init__(self, data: MemoryData, *secrets: bytes, known: Remembered | None = None) -> None:
        self.data = data
        self.keys = CreateKeys("tests", secrets)
        self.elapsed = 0.0
        self.times = CloudTimes(FakeClock(), lambda: self.elapsed)
        self.times.hear("host", "Sun, 29 Nov 2026 08:50:52 GMT")
        memory = StoreMemory(None)
        if known is not None:
            memory.keep(known)
        self.store = GuardedStore(
            MemoryCreates(data, secrets=self.keys.ids),
            memory,
            self.times,
            is_first_start=_always,
            place="/state/creates.db",
            missing_secrets=lambda state: problem(unknown(state.secrets, self.keys.ids, self.times.latest(), KEEP)),
        )

    async def creates(self) -> bool:
        """Whether a create can be recorded; nothing was changed if not."""
        before = len(self.data.records)
        with suppress(StoreError):
            record = Record(str(self.data.seq), b"", self.keys.id, "one", "b-1", b"", "", "", KEEP, nonce=b"n")
            return (await self.store.change([Change(None, record)]))[0]
        assert len(self.data.records) == before
        return False


async def _always() -> bool:
    return True


@pytest.fixture
def data() -> MemoryData:
    return MemoryData(generation="")


async def test_a_replica_with_another_secret_records_no_create_and_says_what_to_do(data: MemoryData) -> None:
    """In the log once, with the setting, for all creates that meet it."""
    assert await Replica(data, OLD).creates()
    stranger = Replica(data, OTHER)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            assert not await stranger.creates()
            await stranger.store.look()
    assert "ledger.key_file" in stranger.store.problem
    assert CreateKeys("tests", [OLD]).id in stranger.store.problem
    assert [line["event"] for line in lines] == ["creates cannot be recorded"]
    assert set(data.secrets) == {CreateKeys("tests", [OLD]).id}


async def test_a_replica_with_another_secret_does_not_take_the_store_for_a_lost_one(data: MemoryData) -> None:
    """It remembers another store than that of the others, whose creates must go on."""
    right = Replica(data, OLD)
    assert await right.creates()
    assert not await Replica(data, OTHER, known=Remembered("another", 7)).creates()
    assert await right.creates()
    assert not data.lost_since


async def test_a_secret_is_replaced_in_two_steps_while_replicas_run(data: MemoryData) -> None:
    """Old and new replicas record creates side by side at each moment, in any order of restarts."""
    steps = [(OLD,), (OLD, NEW), (NEW, OLD)]
    running = [Replica(data, *steps[0]) for _ in range(2)]
    for secrets in steps[1:]:
        for at in range(2):
            running[at] = Replica(data, *secrets)
            for replica in [*running, *running]:
                assert await replica.creates()
                await replica.store.look()
                assert not replica.store.problem


async def test_a_secret_that_takes_the_first_line_at_once_stops_the_replicas_without_it(data: MemoryData) -> None:
    """They would not find the records of the new one. They go on when they have it."""
    before = Replica(data, OLD)
    assert await before.creates()
    assert await Replica(data, NEW, OLD).creates()
    assert not await before.creates()
    await before.store.look()
    assert "ledger.key_file" in before.store.problem
    assert await Replica(data, OLD, NEW).creates()


async def test_a_secret_may_be_taken_away_when_its_creates_are_forgotten(data: MemoryData) -> None:
    assert await Replica(data, OLD).creates()
    rotated = Replica(data, NEW, OLD)
    await rotated.store.look()
    assert await rotated.creates()
    data.secrets[CreateKeys("tests", [OLD]).id] = rotated.times.latest() or 0.0
    alone = Replica(data, NEW)
    assert not await alone.creates()
    alone.elapsed += KEEP + MARGIN_SECONDS
    assert await alone.creates()
    await alone.store.look()
    assert not alone.store.problem


async def test_a_rebuilt_store_is_not_used_by_a_replica_that_lacks_its_secret(data: MemoryData) -> None:
    """It was emptied, and replicas with another secret were first to begin it again."""
    before = Replica(data, OLD)
    assert await before.creates()
    data.empty()
    assert not await before.creates()
    assert before.store.lost is not None
    await before.store.end_rebuild(before.store.lost.lost_since, 0.0, [])
    data.secrets = {CreateKeys("tests", [OTHER]).id: 0.0}
    with pytest.raises(StoreError, match="key_file"):
        await before.store.reopen()
    assert before.store.lost is not None


@pytest.mark.parametrize(("minutes", "may_be"), [(10, True), (20, False)])
def test_a_use_that_was_noted_a_quarter_of_an_hour_ago_may_still_go_on(minutes: int, *, may_be: bool) -> None:
    """Notes are behind; so a secret is in use, and its records are remembered, for so much longer."""
    use = SecretUse("ab", 10_000.0)
    now = use.used_at + 60 * minutes
    assert in_use([use], now) == ([use] if may_be else [])
    assert unknown([use], (), now + KEEP, KEEP) == ([use] if may_be else [])


def test_a_secret_whose_last_use_is_not_known_is_never_forgotten() -> None:
    used, never = SecretUse("a", 1000.0), SecretUse("b", 0.0)
    assert unknown([used, never], ["c"], None, KEEP) == [used, never]
    assert unknown([used, never], ["c"], 1000 + KEEP, KEEP) == [used, never]
    assert unknown([used, never], ["c"], 1000 + KEEP + MARGIN_SECONDS, KEEP) == [never]
    assert unknown([used, never], ["b", "a"], None, KEEP) == []
