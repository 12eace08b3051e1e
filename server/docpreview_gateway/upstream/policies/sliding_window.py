"""What happened in the last seconds: two counts over a window that slides in ten steps."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_STEPS = 10


class Counts(NamedTuple):
    """How many calls there were, and how many of them were special: failed, or made again."""

    calls: int
    special: int


class SlidingCounts:
    """Counts of the last `seconds`, forgotten a tenth of that time at once. The clock must never go back."""

    def __init__(self, seconds: float) -> None:
        self._step = seconds / _STEPS
        self._steps: deque[tuple[int, int, int]] = deque()
        self._calls = self._special = 0

    def add(self, now: float, *, calls: int = 0, special: int = 0) -> None:
        """Count something that happens now."""
        self._forget(now)
        number = int(now / self._step)
        if self._steps and self._steps[-1][0] == number:
            _, old_calls, old_special = self._steps.pop()
            self._steps.append((number, old_calls + calls, old_special + special))
        else:
            self._steps.append((number, calls, special))
        self._calls += calls
        self._special += special

    def totals(self, now: float) -> Counts:
        """The counts of the window that ends now."""
        self._forget(now)
        return Counts(self._calls, self._special)

    def clear(self) -> None:
        """Nothing has happened."""
        self._steps.clear()
        self._calls = self._special = 0

    def _forget(self, now: float) -> None:
        oldest = int(now / self._step) - _STEPS
        while self._steps and self._steps[0][0] <= oldest:
            _, calls, special = self._steps.popleft()
            self._calls -= calls
            self._special -= special
