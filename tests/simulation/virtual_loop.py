"""An event loop in virtual time: nothing waits, the clock goes on to the next timer as soon as nothing can run."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

Result = TypeVar("Result")

CLEAN_UP_TURNS = 20
"""Turns of the loop in which tasks that are left over can end."""


class StandstillError(Exception):
    """Nothing can run, and no timer will change that."""


class _TimeSelector(selectors.BaseSelector):
    """Watches no file: its `select` lets the time pass."""

    def __init__(self) -> None:
        self.now = 0.0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StandstillError
        self.now += max(0.0, timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` begins at 0."""

    def __init__(self) -> None:
        self._virtual = _TimeSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """The result of `main`, run in virtual time. Tasks that it leaves behind are cancelled."""
    loop = VirtualLoop()
    # What a killed process leaves behind ends with errors that nobody waits for.
    loop.set_exception_handler(lambda _loop, _context: None)
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(_clean_up())
        loop.close()


async def _clean_up() -> None:
    for _ in range(CLEAN_UP_TURNS):
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if not left:
            return
        for task in left:
            task.cancel()
        await asyncio.sleep(0)
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run to its end what waits for seconds that nobody has."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()
