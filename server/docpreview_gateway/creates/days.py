"""The day to which pages are counted: the store's, moved on by the cloud's clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.model.errors import GatewayError

if TYPE_CHECKING:
    from docpreview_gateway.creates.lists import JobHistory
    from docpreview_gateway.creates.ports import CreateStore
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.upstream.cloud_clock import CloudTimes

log = structlog.get_logger("docpreview_gateway.creates")

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

    async def keep_up(self, history: JobHistory, bucket: Bucket) -> None:
        """Move the day on without a create: to be repeated every half APART_SECONDS. Failures are left to the next.

        A caller whose budget is used up makes none, and asks for its usage instead.
        """
        if not self._day or day_of(self._times.now(bucket.ci_host)) <= self._day:
            return
        try:
            await history.hear(bucket)
            await self.move_on(bucket.ci_host)
        except (GatewayError, StoreError) as error:
            log.info("the day of page budgets is not moved on yet", bucket=bucket.name, error=str(error))


def day_of(now: float) -> str:
    """The day (UTC) of a Unix time."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
