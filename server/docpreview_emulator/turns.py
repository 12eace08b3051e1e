"""Fair turns at a few workers: the party that has fewest goes first, and none takes all."""

import asyncio
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
            if granted.done() and not granted.cancelled():
                self._working[party] -= 1
                self._working += Counter()  # without those that have none
            else:
                self._forget(party, granted)
            self._grant()

    def _grant(self) -> None:
        while self._working.total() < self._workers and (party := self._next()) is not None:
            granted = self._waiting[party][0]
            self._forget(party, granted)
            if not granted.done():  # it was not cancelled meanwhile
                self._working[party] += 1
                granted.set_result(None)

    def _next(self) -> Hashable | None:
        """The waiting party with the fewest turns; of equals, the one that has waited longest."""
        able = [party for party in self._waiting if self._working[party] < self._most_of_one]
        return min(able, key=self._working.__getitem__, default=None)

    def _forget(self, party: Hashable, granted: "asyncio.Future[None]") -> None:
        """Take one out of the line; its party goes behind all others."""
        line = self._waiting.pop(party, deque())
        if granted in line:
            line.remove(granted)
        if line:
            self._waiting[party] = line
