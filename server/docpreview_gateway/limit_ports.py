"""What counts calls and pages of callers, and who hears of it. Beside `ports`, for callers' limits alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from docpreview_gateway.core.pages import Booking, PageCount, Pages, Periods, Reservation
    from docpreview_gateway.limits.gcra import LimitKind
    from docpreview_gateway.model.callers import PageBudget


class PageBookError(Exception):
    """The book of pages cannot be read or written."""


class PageBook(Protocol):
    """The durable count of callers' pages. Every change is atomic; every method raises PageBookError."""

    async def reserve(self, wanted: Reservation, budget: PageBudget | None, look_at: float) -> Booking:
        """Set pages aside, unless a reservation of this id stands or was settled, or the budget has no room.

        None: whatever there is room for. At `look_at` (Unix time) somebody should see what became of it.
        """
        ...

    async def bind(self, reservation: str, job_id: str, look_at: float) -> bool:
        """The create has this job, to be looked at again at `look_at`; False when there is no such reservation."""
        ...

    async def settle(self, reservation: str, pages: int) -> None:
        """So many pages were made. Only the first settlement counts."""
        ...

    async def release(self, reservation: str) -> None:
        """Nothing was made, and the id is as if it never was. Nothing happens to what was settled."""
        ...

    async def claim(self, now: float, until: float) -> list[Reservation]:
        """Some open reservations that are due; nobody else gets them before `until`."""
        ...

    async def count(self, caller: str, periods: Periods) -> PageCount:
        """A caller's pages."""
        ...


class BudgetTelemetry(Protocol):
    """Hears of callers' pages."""

    def limit(
        self, caller: str, limit: LimitKind, outcome: Literal["allowed", "refused", "shadowed", "degraded"]
    ) -> None:
        """A create came to a budget."""
        ...

    def pages(self, caller: str, period: Literal["day", "month"], pages: Pages, budget: int | None) -> None:
        """A caller's pages of the present period, and its budget."""
        ...
