"""Counters over a sliding window: the calls of the last seconds, and those of them that were failures or retries."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_STEPS = 10


class Counts(NamedTuple):
    """Calls within the window, and the special ones among them: failures for a breaker, retries for a retry budget."""

    calls: int
    special: int


class SlidingCounts:
    """Two counters over the last `seconds`, which slide in steps of a tenth. The clock must never go back."""

    def __init__(self, seconds: float) -> None:
        self._step = seconds / _STEPS
        self._steps: deque[tuple[int, int, int]] = deque()
        self._calls = self._special = 0

    def add(self, now: float, *, calls: int = 0, special: int = 0) -> None:
        """Count events of this instant."""
        self._drop_old(now)
        number = int(now / self._step)
        if self._steps and self._steps[-1][0] == number:
            _, old_calls, old_special = self._steps.pop()
            self._steps.append((number, old_calls + calls, old_special + special))
        else:
            self._steps.append((number, calls, special))
        self._calls += calls
        self._special += special

    def totals(self, now: float) -> Counts:
        """Sums over the window that ends now."""
        self._drop_old(now)
        return Counts(self._calls, self._special)

    def clear(self) -> None:
        """Reset both counters to zero."""
        self._steps.clear()
        self._calls = self._special = 0

    def _drop_old(self, now: float) -> None:
        oldest = int(now / self._step) - _STEPS
        while self._steps and self._steps[0][0] <= oldest:
            _, calls, special = self._steps.popleft()
            self._calls -= calls
            self._special -= special
