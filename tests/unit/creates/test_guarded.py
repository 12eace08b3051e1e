"""The store, guarded against its own loss."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from docpreview_gateway.creates.guarded import GuardedStore
from docpreview_gateway.creates.ports import MAKING, Change, StoreError
from docpreview_gateway.creates.records import Record
from docpreview_gateway.creates.store_memory import Remembered, StoreMemory
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from tests.fakes.clock import FakeClock
from tests.fakes.creates import MemoryCreates, MemoryData
from tests.unit.creates.worlds import clock

if TYPE_CHECKING:
    from pathlib import Path

    from docpreview_gateway.creates.ports import StoreState


def record(key: str = "k") -> Record:
    return Record(key, b"b", "kid", "one", "docs-1250000000", b"", "place", "", 100.0, nonce=b"n")


class Guard:
    """A guarded store, and what it is made of."""

    def __init__(
        self,
        data: MemoryData,
        *,
        is_first: bool | Exception = True,
        path: Path | None = None,
        memory: Remembered | None = None,
        times: CloudTimes | None = None,
    ) -> None:
        self.is_first = is_first
        self.asked = 0
        self.data = data
        self.inner = MemoryCreates(data)
        self.memory = StoreMemory(path)
        if memory is not None:
            self.memory.keep(memory)
        self.store = GuardedStore(self.inner, self.memory, times or clock(), is_first_start=self._first)

    async def _first(self) -> bool:
        self.asked += 1
        if isinstance(self.is_first, Exception):
            raise self.is_first
        return self.is_first

    async def write(self) -> bool:
        return (await self.store.change([Change(None, record(str(self.data.seq)))]))[0]

    async def fails(self) -> bool:
        """Whether the next call fails; nothing was changed then."""
        before = dict(self.data.records)
        try:
            await self.write()
        except StoreError:
            assert self.data.records == before
            return True
        return False


def empty() -> MemoryData:
    return MemoryData(generation="")


async def test_an_empty_store_at_the_first_start_is_a_new_one() -> None:
    guard = Guard(empty())
    assert await guard.write()
    assert guard.data.generation
    assert guard.data.lost_since == 0
    assert guard.store.lost is None
    assert guard.memory.value.generation == guard.data.generation


class Overtaking(MemoryCreates):
    """The answer of the next call of `state` waits for `late`."""

    def __init__(self, data: MemoryData) -> None:
        super().__init__(data)
        self.late: asyncio.Event | None = None
        self.answered = asyncio.Event()

    async def state(self) -> StoreState:
        answer = await super().state()
        late, self.late = self.late, None
        if late is not None:
            self.answered.set()
            await late.wait()
        return answer


async def test_an_answer_that_a_later_one_overtakes_is_no_loss() -> None:
    """Two calls that ask for the state overlap, and the store is changed between them."""
    data = MemoryData()
    inner = Overtaking(data)
    memory = StoreMemory(None)
    store = GuardedStore(inner, memory, clock(), is_first_start=Guard(data)._first)
    await store.check()
    inner.late = late = asyncio.Event()
    overtaken = asyncio.create_task(store.check())
    await inner.answered.wait()
    assert await store.change([Change(None, record())])
    newest = (await store.check()).seq
    late.set()
    assert (await overtaken).seq < newest
    assert store.lost is None
    assert memory.value.seq == newest


async def test_a_store_that_is_as_a_restarted_process_left_it_has_lost_nothing() -> None:
    guard = Guard(MemoryData())
    await guard.store.check()
    left = guard.memory.value
    again = Guard(guard.data, memory=left, is_first=False)
    await again.store.check()
    assert again.store.lost is None
    assert again.memory.value == left


async def test_that_creates_are_refused_for_safety_is_logged_once_and_so_is_the_end_of_it() -> None:
    guard = Guard(MemoryData())
    with capture_logs() as lines:
        guard.store.refuse("the server may evict keys")
        guard.store.refuse("the server may evict keys")
        guard.store.refuse("")
    assert [line["event"] for line in lines] == ["creates cannot be recorded", "creates can be recorded again"]


async def test_an_empty_store_that_is_not_new_has_lost_everything() -> None:
    """The cloud has jobs with this deployment's markers."""
    guard = Guard(empty(), is_first=False)
    assert await guard.fails()
    assert guard.store.lost is not None
    assert guard.data.lost_since
    assert "lost" in guard.store.problem


async def test_an_empty_store_is_neither_new_nor_lost_while_nobody_can_tell() -> None:
    guard = Guard(empty(), is_first=StoreError("the cloud does not answer"))
    assert await guard.fails()
    assert guard.store.lost is None
    guard.is_first = True
    assert await guard.write()


async def test_creates_of_a_place_need_not_be_alone_unless_they_say_so() -> None:
    guard = Guard(MemoryData())
    first, second, third = (record(name) for name in "abc")
    begun = [await guard.store.begin(each, 0.0, None, dedupe_since=None) for each in (first, second)]
    assert [each.outcome for each in begun] == ["new", "new"]
    assert (await guard.store.begin(third, 0.0, None, dedupe_since=None, alone=True)).outcome == "occupied"


@pytest.mark.parametrize("changes", [1, 5])
async def test_a_store_that_is_used_is_not_asked_about(changes: int) -> None:
    """A replica that starts for the first time joins the others."""
    guard = Guard(MemoryData(seq=changes))
    assert await guard.write()
    assert guard.asked == 0


async def test_a_store_that_another_replica_began_to_use_meanwhile_is_new() -> None:
    guard = Guard(empty(), is_first=False)
    other = Guard(guard.data)

    async def first() -> bool:
        await other.write()
        return False

    guard.store._is_first_start = first
    assert await guard.store.find(["unknown"]) == [None]
    assert guard.store.lost is None


@pytest.mark.parametrize(
    "known", [Remembered("another", 1), Remembered("generation-1", 100)], ids=["other generation", "seq back"]
)
async def test_a_store_that_is_not_the_one_of_before_the_start_has_lost_something(known: Remembered) -> None:
    guard = Guard(MemoryData(seq=50), memory=known)
    assert await guard.fails()
    assert guard.store.lost is not None
    assert guard.asked == 0


async def test_a_store_that_went_on_is_the_same_at_the_next_start() -> None:
    guard = Guard(MemoryData(seq=500), memory=Remembered("generation-1", 100))
    assert await guard.write()


async def test_a_store_that_is_emptied_is_noticed_by_the_next_call() -> None:
    guard = Guard(empty())
    await guard.write()
    guard.data.empty()
    assert await guard.fails()
    assert guard.store.lost is not None
    assert guard.data.lost_since


async def test_a_store_that_is_replaced_is_noticed_by_the_next_call() -> None:
    guard = Guard(empty())
    await guard.write()
    guard.data.__dict__.update(MemoryData(generation="another", seq=10**6).__dict__)
    assert await guard.fails()
    assert guard.store.lost is not None


async def test_a_restored_backup_is_noticed_by_the_next_look() -> None:
    """Its generation is the same, its `seq` is of before."""
    guard = Guard(empty())
    for _ in range(5):
        await guard.write()
    await guard.store.look()
    guard.data.seq -= 3
    await guard.store.look()
    assert guard.store.lost is not None
    assert await guard.fails()


async def test_a_lost_store_is_not_asked_for_anything() -> None:
    guard = Guard(empty(), is_first=False)
    await guard.fails()
    calls = sum(guard.inner.calls.values())
    for _ in range(3):
        assert await guard.fails()
    assert sum(guard.inner.calls.values()) == calls


async def test_callers_of_an_overdue_rebuild_try_again_every_minute() -> None:
    """Before, when its quarantine ends; nobody knows when an overdue one does."""
    elapsed = 0.0
    guard = Guard(empty(), is_first=False, times=CloudTimes(FakeClock(1_000_000_000.0), elapsed=lambda: elapsed))
    await guard.fails()
    guard.store.quarantine = 100.0
    waits = []
    for elapsed in (0.0, 90.0, 105.0, 130.0, 1000.0):  # noqa: B007 - read by the clock
        with pytest.raises(StoreError) as caught:
            await guard.write()
        waits.append(caught.value.wait)
    assert waits == [100.0, 10.0, 5.0, 30.0, 60.0]


async def test_a_store_is_compared_once_and_after_an_unknown_secret_again() -> None:
    """An error of another kind says nothing of what the store is."""
    guard = Guard(MemoryData(seq=5))
    for _ in range(3):
        await guard.write()
    compared = guard.inner.calls["state"]
    guard.inner.fail_before = 1
    assert await guard.fails()
    await guard.write()
    assert guard.inner.calls["state"] == compared
    guard.data.secrets["other"] = 0.0
    assert await guard.fails()
    del guard.data.secrets["other"]
    await guard.write()
    assert guard.inner.calls["state"] > compared


async def test_a_restored_backup_that_another_replica_took_for_a_new_store_has_lost_something() -> None:
    guard = Guard(empty())
    for _ in range(5):
        await guard.write()
    await guard.store.look()
    guard.data.seq -= 3
    await guard.inner.beside().begin_rebuild(MAKING)
    await guard.store.look()
    assert guard.store.lost is not None


async def test_a_loss_that_another_replica_noted_is_one_to_all() -> None:
    guard = Guard(MemoryData(seq=5, lost_since=77.0))
    assert await guard.fails()
    assert guard.store.lost is not None
    assert guard.store.lost.lost_since == 77


async def test_a_store_that_cannot_be_reached_has_lost_nothing() -> None:
    guard = Guard(MemoryData(seq=5))
    guard.inner.fail_before = 2
    assert [await guard.fails() for _ in range(3)] == [True, True, False]
    assert guard.store.lost is None


async def test_a_problem_is_told_as_long_as_it_lasts() -> None:
    guard = Guard(MemoryData(seq=5))
    await guard.write()
    guard.inner.fail_before = 1
    await guard.fails()
    assert guard.store.problem == "out of order"
    await guard.store.look()
    assert guard.store.problem == ""


async def test_what_is_known_of_the_store_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    guard = Guard(empty(), path=path)
    await guard.write()
    await guard.store.look()
    assert path.stat().st_mode & 0o777 == 0o600
    again = Guard(empty(), path=path)
    assert again.memory.value.generation == guard.data.generation
    assert 0 < again.memory.value.seq <= guard.data.seq
    assert await again.fails()
    assert again.store.lost is not None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"generation": "a"}', '{"generation": "a", "seq": "x"}'])
def test_a_file_that_cannot_be_read_is_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "store.json"
    path.write_text(text)
    assert StoreMemory(path).value == Remembered()


def test_a_file_that_is_not_there_yet_is_no_news(tmp_path: Path) -> None:
    with capture_logs() as lines:
        assert StoreMemory(tmp_path / "store.json").value == Remembered()
    assert lines == []


def test_a_file_that_cannot_be_written_keeps_what_is_known_in_memory(tmp_path: Path) -> None:
    memory = StoreMemory(tmp_path / "missing" / "store.json")
    memory.keep(Remembered("a", 1))
    assert memory.value == Remembered("a", 1)


def test_the_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    StoreMemory(path).keep(Remembered("a", 1))
    StoreMemory(path).keep(Remembered("b", 2))
    assert json.loads(path.read_text()) == {"generation": "b", "seq": 2}
    assert list(tmp_path.iterdir()) == [path]


async def test_a_store_in_use_that_another_replica_took_for_a_new_one_has_lost_nothing() -> None:
    """Both started at the same time; it may have been killed before it was done."""
    guard = Guard(empty())
    await guard.write()
    await guard.inner.beside().begin_rebuild(MAKING)
    await guard.store.look()
    assert (guard.store.lost, guard.data.lost_since) == (None, 0)
    assert await guard.write()


async def test_a_store_that_was_emptied_and_taken_for_a_new_one_has_lost_everything() -> None:
    guard = Guard(empty())
    await guard.write()
    guard.data.empty()
    await guard.inner.beside().begin_rebuild(MAKING)
    await guard.store.look()
    assert guard.store.lost is not None
    assert await guard.fails()
