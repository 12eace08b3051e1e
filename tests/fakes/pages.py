"""A book of pages in memory."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from docpreview_gateway.creates.pages import PageCount, Pages, Periods, Reservation, ReservationResult, refusing
from docpreview_gateway.creates.ports import PageQuotaStoreError

if TYPE_CHECKING:
    from docpreview_gateway.model.callers import PageBudget


class FakePages:
    """The port `PageQuotaStore`; as durable as the test. While `down`, nothing works."""

    def __init__(self) -> None:
        self.open: dict[str, tuple[Reservation, float]] = {}
        self.charged: dict[str, int] = {}
        self.pages: dict[tuple[str, str], Pages] = defaultdict(Pages)
        self.down = False

    async def reserve(self, wanted: Reservation, budget: PageBudget | None, look_at: float) -> ReservationResult:
        count = await self.count(wanted.caller, Periods(wanted.day, wanted.month))
        if wanted.id in self.open or wanted.id in self.charged:
            return ReservationResult("known", count)
        if budget is not None and (refused := refusing(wanted.pages, count, budget)) is not None:
            return ReservationResult(refused, count)
        self.open[wanted.id] = wanted, look_at
        self._add(wanted, 0, wanted.pages)
        return ReservationResult("new", await self.count(wanted.caller, Periods(wanted.day, wanted.month)))

    async def bind(self, reservation: str, job_id: str, look_at: float) -> bool:
        self._check()
        if reservation in self.open:
            self.open[reservation] = replace(self.open[reservation][0], job_id=job_id), look_at
        return reservation in self.open or reservation in self.charged

    async def charge(self, reservation: str, pages: int) -> None:
        self._check()
        if reservation in self.open:
            found, _ = self.open.pop(reservation)
            self.charged[reservation] = pages
            self._add(found, pages, -found.pages)

    async def release(self, reservation: str) -> None:
        self._check()
        if reservation in self.open:
            found, _ = self.open.pop(reservation)
            self._add(found, 0, -found.pages)

    async def claim(self, now: float, until: float) -> list[Reservation]:
        self._check()
        due = [found for found, look_at in self.open.values() if look_at <= now]
        for found in due:
            self.open[found.id] = found, until
        return due

    async def count(self, caller: str, periods: Periods) -> PageCount:
        self._check()
        return PageCount(*(self.pages[caller, period] for period in periods))

    def _add(self, to: Reservation, used: int, reserved: int) -> None:
        for period in (to.day, to.month):
            old = self.pages[to.caller, period]
            self.pages[to.caller, period] = Pages(old.used + used, old.reserved + reserved)

    def _check(self) -> None:
        if self.down:
            raise PageQuotaStoreError("down")
