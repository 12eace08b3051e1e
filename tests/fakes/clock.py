"""A wall clock that tests set."""

from __future__ import annotations


class FakeClock:
    """A `Clock` that shows `time`."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time
