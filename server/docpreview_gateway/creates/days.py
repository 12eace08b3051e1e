"""The day to which pages are counted: the store's, moved on by the cloud's clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docpreview_gateway.creates.ports import CreateStore
    from docpreview_gateway.upstream.cloud_clock import CloudTimes

APART_SECONDS = 30.0
"""Two dates of a later day, at least this far apart, move the day on: a single wrong one does not."""


class Days:
    """The store's day, as this process knows it."""

    def __init__(self, store: CreateStore, times: CloudTimes) -> None:
        self._store = store
        self._times = times
        self._day = ""
        self._later: tuple[str, float] | None = None
        """A later day, and when a `Date` first said so."""

    def current(self, host: str) -> str:
        """The day to count to: the store's, or as long as that is not known the cloud's."""
        return self._day or day_of(self._times.now(host))

    def today(self, ours: float) -> str:
        """The day to which pages are counted; `ours` is our own Unix time, used while nothing better is known."""
        return self._day or day_of(self._times.latest() or ours)

    def learn(self, day: str) -> None:
        """The store said to which day it counts."""
        if day and day != self._day:
            self._day, self._later = day, None

    async def move_on(self, host: str) -> None:
        """Move the store's day on if the host's clock has shown a later one for long enough. StoreError."""
        heard = self._times.heard(host)
        if heard is None or not self._day:
            return
        if (day := day_of(heard.date)) <= self._day:
            # What said so was wrong, and the next that does is a first one again.
            self._later = None
            return
        if self._later is None or self._later[0] != day:
            self._later = day, heard.at
        elif heard.at - self._later[1] >= APART_SECONDS:
            self.learn(await self._store.advance(self._day, day))


def day_of(now: float) -> str:
    """The day (UTC) of a Unix time."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
