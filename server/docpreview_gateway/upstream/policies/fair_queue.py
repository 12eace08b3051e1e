"""Fair queueing: callers by weight, calls of one caller by deadline.

Start-time fair queueing: each caller is a flow, and each of its turns has a virtual start 1/weight after that of the
turn before. A caller that was idle starts at the current virtual time, so idle time earns no turns and costs none.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from math import inf
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Entry(NamedTuple, Generic[Item]):
    """A waiting call. Entries compare by deadline, then by order of arrival (`number`): no two are equal."""

    deadline: float
    number: int
    item: Item
    flow: Flow[Item]


@dataclass(slots=True)
class Flow(Generic[Item]):
    """The waiting calls of one caller, the most urgent one first."""

    name: str
    weight: float
    start: float
    entries: list[Entry[Item]] = field(default_factory=list, repr=False)


class FairQueue(Generic[Item]):
    """The waiting calls of all callers. Fast for few callers with many calls."""

    def __init__(self) -> None:
        self._flows: dict[str, Flow[Item]] = {}
        self._resume: dict[str, float] = {}
        """Virtual start of the next turn of flows that left the queue, while it is in the future."""
        self._now = 0.0
        self._numbers = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, item: Item, *, flow: str, weight: float, deadline: float) -> Entry[Item]:
        """Add a call. A caller's weight is that of its latest call."""
        found = self._flows.get(flow)
        if found is None:
            found = self._flows[flow] = Flow(flow, weight, max(self._now, self._resume.pop(flow, 0.0)))
        found.weight = weight
        self._numbers += 1
        entry = Entry(deadline, self._numbers, item, found)
        insort(found.entries, entry)
        self._count += 1
        return entry

    def pop(self) -> Item | None:
        """Remove and return the next call; None when the queue is empty."""
        if not self._flows:
            return None
        flow = min(self._flows.values(), key=lambda found: found.start)
        self._now = flow.start
        flow.start += 1 / flow.weight
        entry = flow.entries.pop(0)
        self._left(flow)
        return entry.item

    def remove(self, entry: Entry[Item]) -> None:
        """Remove a call without a turn. Does nothing for a call that is not in the queue any more."""
        entries = entry.flow.entries
        at = bisect_left(entries, entry)
        if at < len(entries) and entries[at] is entry:
            del entries[at]
            self._left(entry.flow)

    def greediest(self, *, flow: str, weight: float) -> Entry[Item] | None:
        """The least urgent call of the caller with most waiting calls by weight; None if `flow` would have as many."""
        greedy = max(self._flows.values(), key=lambda found: len(found.entries) / found.weight, default=None)
        own = self._flows.get(flow)
        would_wait = 1 + (len(own.entries) if own else 0)
        if greedy is None or would_wait / weight >= len(greedy.entries) / greedy.weight:
            return None
        return greedy.entries[-1]

    def ahead(self, *, flow: str, weight: float, deadline: float) -> int:
        """Estimated number of turns before that of a call that is added now."""
        own = self._flows.get(flow)
        before = bisect_right(own.entries, (deadline, inf)) if own else 0
        others = (
            min(len(found.entries), (before + 1) * found.weight / weight)
            for found in self._flows.values()
            if found is not own
        )
        return before + round(sum(others))

    def _left(self, flow: Flow[Item]) -> None:
        self._count -= 1
        if flow.entries:
            return
        del self._flows[flow.name]
        self._resume = {name: start for name, start in self._resume.items() if start > self._now}
        if flow.start > self._now:
            self._resume[flow.name] = flow.start
        if not self._flows:
            # An empty queue has no order left to keep.
            self._resume.clear()
