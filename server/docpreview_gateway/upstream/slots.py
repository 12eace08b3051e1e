"""Places for calls at the cloud, as many as an adaptive limit allows, and the queue before them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from docpreview_gateway.core.concurrency import AdaptiveLimit

if TYPE_CHECKING:
    from docpreview_gateway.core.concurrency import LimitBounds
    from docpreview_gateway.ports import Call

ANSWER_MARGIN = 0.05
"""Seconds of a caller's time that are kept for answering it."""


class NoSlotError(Exception):
    """There is no place in time. `wait` is in seconds, how long it would take; `why` is for telemetry."""

    def __init__(self, why: str, wait: float) -> None:
        super().__init__(why)
        self.why = why
        self.wait = wait


class WrittenOffError(Exception):
    """The queue was sent away."""


class Slots:
    """First come, first served. Who took a place gives it back with the round number that came with it."""

    def __init__(self, bounds: LimitBounds) -> None:
        self.limit = AdaptiveLimit(bounds)
        self.in_flight = 0
        self._longest_queue = bounds.queue
        self._round = 0
        self._queue: OrderedDict[asyncio.Future[bool], None] = OrderedDict()

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._queue)

    async def take(self, call: Call) -> int:
        """A place, when there will be one soon enough for the call to be of use.

        NoSlotError, at once when that can be foreseen; WrittenOffError.
        """
        if not self._queue and self.in_flight < self.limit.value:
            self.in_flight += 1
            return self._round
        self._refuse_hopeless(min(call.deadline, call.wanted_by))
        return await self._wait(call.deadline)

    def give_back(self, number: int) -> None:
        """A call with the round number ended. The next in the queue gets its place, unless the limit has shrunk."""
        if number == self._round:
            self.in_flight -= 1
        while self._queue and self.in_flight < self.limit.value:
            turn, _ = self._queue.popitem(last=False)
            if not turn.done():
                self.in_flight += 1
                turn.set_result(True)

    def write_off(self) -> None:
        """Who waits is sent away, and the places of those who are under way and may hang are given out anew."""
        self._round += 1
        self.in_flight = 0
        while self._queue:
            turn, _ = self._queue.popitem(last=False)
            if not turn.done():
                turn.set_result(False)

    def _refuse_hopeless(self, wanted_by: float) -> None:
        wait = self.limit.expected_wait(len(self._queue))
        if len(self._queue) >= self._longest_queue:
            raise NoSlotError("queue", wait)
        if not self.limit.in_time(len(self._queue), wanted_by - time.monotonic()):
            raise NoSlotError("deadline", wait)

    async def _wait(self, until: float) -> int:
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue[turn] = None
        number = self._round
        try:
            async with asyncio.timeout_at(until - ANSWER_MARGIN):
                granted = await turn
        except BaseException as error:
            self._queue.pop(turn, None)
            if turn.done() and not turn.cancelled() and turn.result():
                # The place came in the very moment in which the caller left.
                self.give_back(number)
            if isinstance(error, TimeoutError):
                raise NoSlotError("deadline", self.limit.expected_wait(len(self._queue))) from None
            raise
        if not granted:
            raise WrittenOffError
        return number
