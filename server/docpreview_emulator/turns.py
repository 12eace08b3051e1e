"""Fair turns at a few workers: the party that has fewest goes first, and none takes all."""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Turns:
    """Turns of parties at `workers` workers; where there are two or more, one party gets all but one at most."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._most_of_one = max(1, workers - 1)
        self._working: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        self._latest: dict[Hashable, int] = {}  # of each party the number of its latest turn
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def of(self, party: Hashable) -> AsyncIterator[None]:
        """A turn of a party, until the block ends."""
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(party, deque()).append(granted)
        self._grant()
        try:
            await granted
            yield
        finally:
            if granted.cancelled():
                self._leave_line(party, granted)
            else:
                self._working[party] -= 1
            if not self._working[party]:
                del self._working[party]
                if party not in self._waiting:
                    self._latest.pop(party, None)
            self._grant()

    def _grant(self) -> None:
        while self._working.total() < self._workers and (party := self._next()) is not None:
            granted = self._waiting[party][0]
            self._leave_line(party, granted)
            if not granted.done():  # it was not cancelled meanwhile
                self._working[party] += 1
                self._latest[party] = next(self._numbers)
                granted.set_result(None)

    def _next(self) -> Hashable | None:
        """The waiting party with the fewest turns; of equals, the one whose latest began first."""
        able = [party for party in self._waiting if self._working[party] < self._most_of_one]
        return min(able, key=lambda party: (self._working[party], self._latest.get(party, 0)), default=None)

    def _leave_line(self, party: Hashable, granted: "asyncio.Future[None]") -> None:
        line = self._waiting.get(party, deque())
        if granted in line:
            line.remove(granted)
        if not line:
            self._waiting.pop(party, None)
