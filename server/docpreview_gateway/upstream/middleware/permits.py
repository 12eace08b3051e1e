"""Permits for calls to one host, as many as an adaptive limit allows, and the fair queue in front of them."""

from __future__ import annotations

import asyncio
import time
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.upstream.policies.adaptive_limit import AdaptiveLimit
from docpreview_gateway.upstream.policies.fair_queue import FairQueue

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.policies.adaptive_limit import LimitBounds
    from docpreview_gateway.upstream.policies.fair_queue import Entry


class NoPermitError(Exception):
    """No permit becomes free in time. `wait`: seconds until one is expected; `why`: `deadline` or `queue`."""

    def __init__(self, why: str, wait: float) -> None:
        super().__init__(why)
        self.why = why
        self.wait = wait


class QueueExpiredError(Exception):
    """The whole queue was expired while the call waited."""


class Outcome(Enum):
    """How waiting for a permit ended."""

    GRANTED = auto()
    LATE = auto()
    EVICTED = auto()
    EXPIRED = auto()


class Waiting(NamedTuple):
    """A call that waits for a permit."""

    call: Call
    outcome: asyncio.Future[Outcome]

    def end(self, outcome: Outcome) -> None:
        """End the waiting, unless the call was cancelled."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Permits:
    """Permits, given fairly: callers by weight, calls of one caller by deadline.

    `acquire` returns the number of the round, which `release` takes back: permits of an earlier round no longer count.
    """

    def __init__(self, bounds: LimitBounds) -> None:
        self.limit = AdaptiveLimit(bounds)
        self.in_flight = 0
        self._longest_queue = bounds.queue
        self._round = 0
        self._queue: FairQueue[Waiting] = FairQueue()

    @property
    def queued(self) -> int:
        """Calls that wait for a permit."""
        return len(self._queue)

    async def acquire(self, call: Call) -> int:
        """Take a permit. NoPermitError, immediately when it is foreseeable; QueueExpiredError."""
        if self._is_free:
            self.in_flight += 1
            return self._round
        self.shed_if_late(call)
        if len(self._queue) >= self._longest_queue and (evicted := self._eviction_for(call)) is not None:
            self._queue.remove(evicted)
            evicted.item.end(Outcome.EVICTED)
        return await self._wait(call)

    def shed_if_late(self, call: Call) -> None:
        """NoPermitError when `acquire` would raise it immediately."""
        if self._is_free:
            return
        caller, wanted_by = call.caller, call.wanted_by
        ahead = self._queue.ahead(flow=caller.name, weight=caller.weight, deadline=wanted_by)
        if not self.limit.in_time(ahead, wanted_by - time.monotonic()):
            raise NoPermitError("deadline", self.limit.expected_wait(ahead))
        if len(self._queue) >= self._longest_queue and self._eviction_for(call) is None:
            raise NoPermitError("queue", self.limit.expected_wait(ahead))

    def release(self, number: int) -> None:
        """Return a permit of that round; it goes to the next call in the queue unless the limit has shrunk.

        A call that could not be answered in time any more gets none: this process, or the host, was slower than was to
        be foreseen when it was admitted, and its request would only make those behind it late, too.
        """
        if number == self._round:
            self.in_flight -= 1
        while self.in_flight < self.limit.value and (waiting := self._queue.pop()) is not None:
            if waiting.outcome.done():
                continue
            if waiting.call.wanted_by - time.monotonic() < self.limit.latency:
                waiting.end(Outcome.LATE)
            else:
                self.in_flight += 1
                waiting.end(Outcome.GRANTED)

    def expire(self) -> None:
        """Reject all waiting calls and forget the permits of calls in flight, which may hang: a new round begins."""
        self._round += 1
        self.in_flight = 0
        while (waiting := self._queue.pop()) is not None:
            waiting.end(Outcome.EXPIRED)

    @property
    def _is_free(self) -> bool:
        return not self._queue and self.in_flight < self.limit.value

    def _eviction_for(self, call: Call) -> Entry[Waiting] | None:
        """The waiting call to evict for this one when the queue is full; None: this one is the one to reject."""
        return self._queue.greediest(flow=call.caller.name, weight=call.caller.weight)

    async def _wait(self, call: Call) -> int:
        waiting: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        caller = call.caller
        entry = self._queue.push(
            Waiting(call, waiting), flow=caller.name, weight=caller.weight, deadline=call.wanted_by
        )
        number = self._round
        try:
            async with asyncio.timeout_at(call.answer_by):
                outcome = await waiting
        except BaseException as error:
            self._queue.remove(entry)
            if waiting.done() and not waiting.cancelled() and waiting.result() is Outcome.GRANTED:
                # The permit was granted at the moment in which the call was cancelled.
                self.release(number)
            if isinstance(error, TimeoutError):
                raise NoPermitError("deadline", self.limit.expected_wait(len(self._queue))) from None
            raise
        if outcome is Outcome.LATE:
            raise NoPermitError("deadline", self.limit.expected_wait(len(self._queue)))
        if outcome is Outcome.EVICTED:
            raise NoPermitError("queue", self.limit.expected_wait(len(self._queue)))
        if outcome is Outcome.EXPIRED:
            raise QueueExpiredError
        return number
