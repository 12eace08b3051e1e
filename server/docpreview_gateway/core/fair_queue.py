"""Who is next when several callers wait: callers by their weight, calls of one caller by their deadline.

Start-time fair queueing: each caller's next turn has a virtual start, 1/weight after that of its turn before. A caller
that was idle begins where the others are now, so it neither owns the past nor pays for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(slots=True, order=True)
class Entry(Generic[Item]):
    """A place in the queue."""

    deadline: float
    number: int
    item: Item = field(compare=False)
    flow: Flow[Item] = field(compare=False, repr=False)
    waits: bool = field(default=True, compare=False)


@dataclass(slots=True)
class Flow(Generic[Item]):
    """The waiting calls of one caller: `count` of `entries` still wait."""

    name: str
    weight: float
    start: float
    entries: list[Entry[Item]] = field(default_factory=list)
    count: int = 0


class FairQueue(Generic[Item]):
    """The waiting calls of all callers. There are few callers, and possibly many calls."""

    def __init__(self) -> None:
        self._flows: dict[str, Flow[Item]] = {}
        self._resume: dict[str, float] = {}
        """Where callers that left the queue go on, while the others are not there yet."""
        self._now = 0.0
        self._numbers = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, item: Item, *, flow: str, weight: float, deadline: float) -> Entry[Item]:
        """Wait. A caller's weight is that of its latest call."""
        found = self._flows.get(flow)
        if found is None:
            found = self._flows[flow] = Flow(flow, weight, max(self._now, self._resume.pop(flow, 0.0)))
        found.weight = weight
        self._numbers += 1
        entry = Entry(deadline, self._numbers, item, found)
        heappush(found.entries, entry)
        found.count += 1
        self._count += 1
        return entry

    def pop(self) -> Item | None:
        """The next, who waits no more; None when nobody does."""
        if not self._flows:
            return None
        flow = min(self._flows.values(), key=lambda found: found.start)
        self._now = flow.start
        flow.start += 1 / flow.weight
        entry = heappop(flow.entries)
        while not entry.waits:
            entry = heappop(flow.entries)
        self._gone(entry)
        return entry.item

    def remove(self, entry: Entry[Item]) -> None:
        """Wait no more, without a turn. Harmless for who has had it."""
        if entry.waits:
            self._gone(entry)
            if len(entry.flow.entries) > 2 * entry.flow.count + 8:
                entry.flow.entries = [found for found in entry.flow.entries if found.waits]
                heapify(entry.flow.entries)

    def make_room(self, *, flow: str, weight: float) -> Item | None:
        """Take out the last call of the caller that waits with most for its weight, if `flow` has less than that."""
        greedy = max(self._flows.values(), key=lambda found: found.count / found.weight, default=None)
        own = self._flows.get(flow)
        if greedy is None or (1 + (own.count if own else 0)) / weight >= greedy.count / greedy.weight:
            return None
        entry = max(found for found in greedy.entries if found.waits)
        self.remove(entry)
        return entry.item

    def ahead(self, *, flow: str, weight: float, deadline: float) -> int:
        """How many turns, about, come before that of a call which would wait now."""
        own = self._flows.get(flow)
        before = sum(entry.waits and entry.deadline <= deadline for entry in own.entries) if own else 0
        others = (
            min(found.count, (before + 1) * found.weight / weight) for found in self._flows.values() if found is not own
        )
        return before + round(sum(others))

    def _gone(self, entry: Entry[Item]) -> None:
        entry.waits = False
        self._count -= 1
        flow = entry.flow
        flow.count -= 1
        if flow.count:
            return
        del self._flows[flow.name]
        self._resume = {name: start for name, start in self._resume.items() if start > self._now}
        if flow.start > self._now:
            self._resume[flow.name] = flow.start
        if not self._flows:
            # All were served: nobody is ahead of anybody.
            self._resume.clear()
