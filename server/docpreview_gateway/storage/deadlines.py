"""Deadlines of calls, many of which share one timer: a timer for each would be a tenth of the gateway's own work.

In the lowest part that may use an event loop, because edges and the way to the cloud have deadlines alike.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType


class Deadlines:
    """Deadlines that come at most `tick` seconds late: those that fall in the same tick have one timer.

    One that is less than a tick away, or past, comes at its time.
    """

    __slots__ = ("_tick", "_ticks")

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._ticks: dict[float, tuple[asyncio.TimerHandle, set[_Until]]] = {}

    def until(self, deadline: float) -> _Until:
        """A context whose body is cancelled at the deadline, by the loop's clock; it then raises TimeoutError.

        As `asyncio.timeout_at`, with one use, and without a way to move the deadline.
        """
        return _Until(self, deadline)

    def add(self, deadline: float, until: _Until) -> float:
        """Cancel the body of `until` at its deadline. Returns the number of its tick."""
        loop = until.task.get_loop()
        if deadline - loop.time() < self._tick:
            number, at = -deadline, deadline  # below zero: no number of a tick
        else:
            number = int(deadline / self._tick) + 1
            at = number * self._tick
        found = self._ticks.get(number)
        if found is None:
            found = self._ticks[number] = (loop.call_at(at, self._come, number), set())
        found[1].add(until)
        return number

    def remove(self, number: float, until: _Until) -> None:
        """Leave the body of `until` alone, if its tick has not come."""
        found = self._ticks.get(number)
        if found is None:
            return
        timer, waiting = found
        waiting.discard(until)
        if not waiting:
            timer.cancel()
            del self._ticks[number]

    def _come(self, number: float) -> None:
        for until in self._ticks.pop(number)[1]:
            until.expire()


class _Until:
    """The context of one deadline."""

    __slots__ = ("_cancelling", "_deadline", "_deadlines", "_is_expired", "_number", "task")

    def __init__(self, deadlines: Deadlines, deadline: float) -> None:
        self._deadlines = deadlines
        self._deadline = deadline
        self._is_expired = False
        self._number = 0.0
        self._cancelling = 0
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
