"""A wall clock that stands still until it is told otherwise."""

from __future__ import annotations


class FakeClock:
    """The port `Clock`."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time
