"""Turns at the workers are fair between buckets."""

import asyncio

from docpreview_emulator.turns import Turns


class Line:
    """Who has a turn, in the order in which they got it."""

    def __init__(self, workers: int) -> None:
        self.turns = Turns(workers)
        self.got: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> None:
        """Each name asks for a turn of the bucket that is its first letter."""
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._take(name))
        await settled()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await settled()

    async def give_up(self, name: str) -> None:
        self.tasks[name].cancel()
        await settled()

    async def _take(self, name: str) -> None:
        async with self.turns.of(name[0]):
            self.got.append(name)
            await self.ends[name].wait()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_bucket_gets_all_workers_but_one() -> None:
    line = Line(3)
    await line.come("a1", "a2", "a3", "a4")
    assert line.got == ["a1", "a2"]
    await line.end("a1")
    assert line.got == ["a1", "a2", "a3"]


async def test_a_document_of_another_bucket_begins_while_the_first_bucket_is_full() -> None:
    line = Line(2)
    await line.come("a1", "a2", "a3", "b1")
    assert line.got == ["a1", "b1"]


async def test_a_free_worker_goes_to_the_bucket_that_has_fewest() -> None:
    line = Line(4)
    await line.come("a1", "a2", "a3", "b1", "a4", "a5", "b2", "c1")
    assert line.got == ["a1", "a2", "a3", "b1"]
    await line.end("a1")
    assert line.got[4:] == ["c1"]
    await line.end("a2")
    assert line.got[5:] in (["b2"], ["a4"])  # both have one


async def test_buckets_that_wait_take_turns() -> None:
    line = Line(1)
    await line.come("a1", "a2", "a3", "b1", "b2")
    for name in ("a1", "b1", "a2", "b2", "a3"):
        assert line.got[-1] == name
        await line.end(name)


async def test_a_job_that_is_cancelled_leaves_the_line_or_its_worker() -> None:
    line = Line(1)
    await line.come("a1", "b1", "c1")
    await line.give_up("b1")
    await line.give_up("a1")
    assert line.got == ["a1", "c1"]
    await line.end("c1")
    assert not line.turns._waiting
    assert not line.turns._working
    assert not line.turns._latest
