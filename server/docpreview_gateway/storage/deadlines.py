"""Deadlines of calls, many of which share one timer: a timer for each would be a tenth of the gateway's own work.

In the lowest part that may use an event loop, because edges and the way to the cloud have deadlines alike.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType


class Deadlines:
    """Deadlines that come at most `tick` seconds late: those that fall in the same tick have one timer."""

    __slots__ = ("_tick", "_ticks")

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._ticks: dict[int, tuple[asyncio.TimerHandle, set[_Until]]] = {}

    def until(self, deadline: float) -> _Until:
        """A context whose body is cancelled at the deadline, by the loop's clock; it then raises TimeoutError.

        As `asyncio.timeout_at`, with one use, and without a way to move the deadline.
        """
        return _Until(self, deadline)

    def add(self, deadline: float, until: _Until) -> int:
        """Cancel the body of `until` at its deadline. Returns the number of its tick."""
        number = int(deadline / self._tick) + 1
        found = self._ticks.get(number)
        if found is None:
            timer = until.task.get_loop().call_at(number * self._tick, self._come, number)
            found = self._ticks[number] = (timer, set())
        found[1].add(until)
        return number

    def remove(self, number: int, until: _Until) -> None:
        """Leave the body of `until` alone, if its tick has not come."""
        found = self._ticks.get(number)
        if found is None:
            return
        timer, waiting = found
        waiting.discard(until)
        if not waiting:
            timer.cancel()
            del self._ticks[number]

    def _come(self, number: int) -> None:
        for until in self._ticks.pop(number)[1]:
            until.expire()


class _Until:
    """The context of one deadline."""

    __slots__ = ("_cancelling", "_deadline", "_deadlines", "_is_expired", "_number", "task")

    def __init__(self, deadlines: Deadlines, deadline: float) -> None:
        self._deadlines = deadlines
        self._deadline = deadline
        self._is_expired = False
        self._number = self._cancelling = 0
        self.task: asyncio.Task[Any]

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task")
        self.task = task
        self._cancelling = task.cancelling()
        self._number = self._deadlines.add(self._deadline, self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if not self._is_expired:
            self._deadlines.remove(self._number, self)
        # As asyncio.timeout: whoever else has cancelled the task meanwhile comes first.
        elif self.task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the body."""
        self._is_expired = True
        self.task.cancel()
