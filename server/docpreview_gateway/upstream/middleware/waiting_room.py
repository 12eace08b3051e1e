"""Places for calls at the cloud, as many as an adaptive limit allows, and the queue before them."""

from __future__ import annotations

import asyncio
import time
from enum import Enum, auto
from typing import TYPE_CHECKING

from docpreview_gateway.upstream.policies.adaptive_limit import AdaptiveLimit
from docpreview_gateway.upstream.policies.fair_queue import FairQueue

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.policies.adaptive_limit import LimitBounds
    from docpreview_gateway.upstream.policies.fair_queue import Entry

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


class Turn(Enum):
    """What waiting came to."""

    COME = auto()
    PUSHED_OUT = auto()
    WRITTEN_OFF = auto()


class Slots:
    """Callers by their weight, calls of one by their deadline. Who took a place gives it back with its round number."""

    def __init__(self, bounds: LimitBounds) -> None:
        self.limit = AdaptiveLimit(bounds)
        self.in_flight = 0
        self._longest_queue = bounds.queue
        self._round = 0
        self._queue: FairQueue[asyncio.Future[Turn]] = FairQueue()

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._queue)

    async def take(self, call: Call) -> int:
        """A place, when there will be one soon enough for the call to be of use.

        NoSlotError, at once when that can be foreseen; WrittenOffError.
        """
        if self._is_free:
            self.in_flight += 1
            return self._round
        self.shed_if_late(call)
        if len(self._queue) >= self._longest_queue and (last := self._greedier(call)) is not None:
            self._queue.remove(last)
            if not last.item.done():
                last.item.set_result(Turn.PUSHED_OUT)
        return await self._wait(call)

    def shed_if_late(self, call: Call) -> None:
        """NoSlotError when `take` would raise it at once."""
        if self._is_free:
            return
        caller, wanted_by = call.caller, min(call.deadline, call.wanted_by)
        ahead = self._queue.ahead(flow=caller.name, weight=caller.weight, deadline=wanted_by)
        if not self.limit.in_time(ahead, wanted_by - time.monotonic()):
            raise NoSlotError("deadline", self.limit.expected_wait(ahead))
        if len(self._queue) >= self._longest_queue and self._greedier(call) is None:
            raise NoSlotError("queue", self.limit.expected_wait(ahead))

    def give_back(self, number: int) -> None:
        """A call with the round number ended. The next in the queue gets its place, unless the limit has shrunk."""
        if number == self._round:
            self.in_flight -= 1
        while self.in_flight < self.limit.value and (turn := self._queue.pop()) is not None:
            if not turn.done():
                self.in_flight += 1
                turn.set_result(Turn.COME)

    def write_off(self) -> None:
        """Who waits is sent away, and the places of those who are under way and may hang are given out anew."""
        self._round += 1
        self.in_flight = 0
        while (turn := self._queue.pop()) is not None:
            if not turn.done():
                turn.set_result(Turn.WRITTEN_OFF)

    @property
    def _is_free(self) -> bool:
        return not self._queue and self.in_flight < self.limit.value

    def _greedier(self, call: Call) -> Entry[asyncio.Future[Turn]] | None:
        """Who has to go for a call when the queue is full: not always who comes last."""
        return self._queue.greediest(flow=call.caller.name, weight=call.caller.weight)

    async def _wait(self, call: Call) -> int:
        turn: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        caller, wanted_by = call.caller, min(call.deadline, call.wanted_by)
        place = self._queue.push(turn, flow=caller.name, weight=caller.weight, deadline=wanted_by)
        number = self._round
        try:
            async with asyncio.timeout_at(call.deadline - ANSWER_MARGIN):
                outcome = await turn
        except BaseException as error:
            self._queue.remove(place)
            if turn.done() and not turn.cancelled() and turn.result() is Turn.COME:
                # The place came in the very moment in which the caller left.
                self.give_back(number)
            if isinstance(error, TimeoutError):
                raise NoSlotError("deadline", self.limit.expected_wait(len(self._queue))) from None
            raise
        if outcome is Turn.PUSHED_OUT:
            raise NoSlotError("queue", self.limit.expected_wait(len(self._queue)))
        if outcome is Turn.WRITTEN_OFF:
            raise WrittenOffError
        return number
