"""Hints that one worker passes on to the others."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from docpreview_gateway.callbacks.siblings import SUFFIX, Siblings

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_hint_reaches_every_other_worker_once_and_not_its_sender(tmp_path: Path) -> None:
    """However many come at once: none is dropped."""
    heard: dict[str, list[str]] = {"0": [], "1": [], "2": []}
    wanted = sorted(f"docs d{number}" for number in range(200))
    async with AsyncExitStack() as stack, asyncio.timeout(20):
        workers = {number: Siblings(tmp_path, number) for number in heard}
        for number, worker in workers.items():
            got = heard[number]
            await stack.enter_async_context(worker.listening(lambda *hint, got=got: got.append(" ".join(hint))))
        for hint in wanted:
            workers["1"].tell(*hint.split(" "))
        while any(len(heard[number]) < len(wanted) for number in ("0", "2")):  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)
    assert sorted(heard["0"]) == sorted(heard["2"]) == wanted
    assert heard["1"] == []


async def test_a_worker_that_was_killed_has_left_its_socket_and_is_passed_over(tmp_path: Path) -> None:
    """The next one of its number takes the place."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / f"0{SUFFIX}"))
    worker, heard = Siblings(tmp_path, "1"), asyncio.Event()
    async with worker.listening(lambda _bucket, _job_id: None), asyncio.timeout(10):
        worker.tell("docs", "d1")
        async with Siblings(tmp_path, "0").listening(lambda _bucket, _job_id: heard.set()):
            worker.tell("docs", "d2")
            await heard.wait()
