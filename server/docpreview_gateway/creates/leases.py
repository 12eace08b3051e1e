"""Leases of pages: what a replica may let its callers make while it cannot reach the store.

A lease is counted in the store before it is spent, so outages can make callers wait, but not overspend. Each page that
is spent is on this machine's disk before its create is sent.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from docpreview_gateway.creates.ports import Change, Lease, StoreError
from docpreview_gateway.model.callers import PageBudget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.creates.ports import CreateStore
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.upstream.cloud_clock import CloudTimes

log = structlog.get_logger("docpreview_gateway.creates")

LEASE_SECONDS = 60.0
"""How long a lease may be spent after it was renewed."""

RENEW_SECONDS = 15.0
"""Interval of renewals."""


class Journal(Protocol):
    """Creates that were paid from leases, on this machine's disk. StoreError from every method."""

    async def add(self, record: Record) -> None:
        """Keep a record, in place of one with its key."""
        ...

    async def remove(self, keys: Sequence[str]) -> None:
        """Forget records."""
        ...

    async def all(self) -> list[Record]:
        """The records that were not forgotten, of this process and of earlier ones."""
        ...


@dataclass(slots=True)
class _Leased:
    """A lease as this process knows it: the pages that are left, and when it was renewed (of `CloudTimes.elapsed`).

    What was spent and is not handed over yet, `unsettled`, and what is left are together never more than what the store
    has leased.
    """

    caller: Caller
    day: str
    left: int = 0
    renewed_at: float | None = None
    unsettled: dict[str, int] = field(default_factory=dict)
    """Pages by the record's key."""
    writing: set[str] = field(default_factory=set)
    """Keys of records that are on their way to the journal."""

    def written(self) -> list[str]:
        """Keys of unsettled records that are in the journal, if they can be."""
        return [key for key in self.unsettled if key not in self.writing]


def _unmeasured(caller: str, pages: int) -> None:
    """Leave the pages of a caller unmeasured."""


class PageLeases:
    """The leases of one replica; `replica` is its name in the store, the same after a restart.

    `measure` is told which caller may spend how many pages, after each change.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        store: CreateStore,
        journal: Journal,
        times: CloudTimes,
        *,
        replica: str,
        seconds: float = LEASE_SECONDS,
        measure: Callable[[str, int], None] = _unmeasured,
    ) -> None:
        self._store = store
        self._journal = journal
        self._times = times
        self._replica = replica
        self._seconds = seconds
        self._measure = measure
        self._leased: dict[tuple[str, str], _Leased] = {}
        self._days: dict[str, str] = {}
        self._handing_over = asyncio.Lock()
        self._earlier_ended = False

    def spent_with(self, caller: Caller, day: str) -> None:
        """A create of this caller was counted to this day: its lease is renewed from now on, if it may have one."""
        budget = caller.budget
        if budget is None or not budget.outage_pages:
            self._days.pop(caller.name, None)
            return
        self._days[caller.name] = day
        self._leased.setdefault((caller.name, day), _Leased(caller, day)).caller = caller

    async def spend(self, record: Record) -> bool:
        """Pay the record's pages from its caller's lease; whether they are paid, and noted on disk."""
        leased = self._leased.get((record.caller, record.day))
        if leased is None or leased.renewed_at is None or leased.left < record.asked:
            return False
        if self._times.elapsed() - leased.renewed_at > self._seconds:
            return False
        leased.left -= record.asked
        self._measure(record.caller, leased.left)
        leased.unsettled[record.key] = record.asked
        leased.writing.add(record.key)
        try:
            await self._journal.add(record)
        except StoreError as error:
            # It may be on disk all the same: its pages are free again after the next hand-over.
            log.warning("journal of page leases cannot be written", error=str(error))
            return False
        finally:
            leased.writing.discard(record.key)
        return True

    async def accept(self, record: Record, job: PreviewJob) -> None:
        """The job of a create that may have been paid from a lease."""
        if not self._is_unsettled(record):
            return
        try:
            await self._journal.add(record.accepted(job, record.sign_start))
        except StoreError as error:
            log.warning("journal of page leases cannot be written", error=str(error))

    async def give_back(self, record: Record) -> None:
        """The create was not made. What was handed over meanwhile is released in the store."""
        leased = self._leased.get((record.caller, record.day))
        if leased is None:
            return
        try:
            async with self._handing_over:
                if not self._is_unsettled(record):
                    await self._store.change([Change(record, None)])
                    return
                await self._journal.remove([record.key])
                leased.left += leased.unsettled.pop(record.key)
        except StoreError as error:
            log.warning("pages of a create that was not sent stay reserved for now", key=record.key, error=str(error))

    async def renew(self) -> None:
        """Hand over what was spent, and renew the leases. To be repeated every RENEW_SECONDS. StoreError."""
        async with self._handing_over:
            await self._hand_over()
        for (caller, day), leased in list(self._leased.items()):
            budget = leased.caller.budget
            pages = budget.outage_pages if budget is not None and self._days.get(caller) == day else 0
            now = self._times.elapsed()
            if pages == 0:
                leased.left = 0
                pages = sum(leased.unsettled.values())
            got = await self._store.lease(self._lease(leased, pages), budget or PageBudget())
            leased.left, leased.renewed_at = max(0, got.pages - sum(leased.unsettled.values())), now
            if self._days.get(caller, day) == day:
                self._measure(caller, leased.left)
            if got.pages == 0 and self._days.get(caller) != day and not leased.unsettled:
                del self._leased[caller, day]
        if not self._earlier_ended:
            await self._end_earlier()

    async def round(self) -> None:
        """`renew`, of which a failure is repeated in the next round: until then the lease goes on to be spent."""
        try:
            await self.renew()
        except StoreError as error:
            log.warning("page leases cannot be renewed", error=str(error))

    async def end(self) -> None:
        """Give all leases back."""
        self._days.clear()
        await self.round()

    async def _end_earlier(self) -> None:
        """Give back the leases of this replica's earlier processes, of which all that was spent is handed over."""
        for lease in await self._store.leases():
            if lease.replica == self._replica and (lease.caller, lease.day) not in self._leased:
                await self._store.lease(lease._replace(pages=0), PageBudget())
        self._earlier_ended = True

    async def _hand_over(self) -> None:
        written = [(leased, leased.written()) for leased in self._leased.values()]
        by_lease: dict[tuple[str, str], list[Record]] = {}
        for record in await self._journal.all():
            by_lease.setdefault((record.caller, record.day), []).append(record)
        for (caller, day), paid in by_lease.items():
            lease = Lease(self._replica, caller, day, 0, 0.0)
            await self._store.hand_over(lease, [(record, record.sign_end) for record in paid])
            await self._journal.remove([record.key for record in paid])
        # Those that are not in the journal were given back, or could not be written.
        for leased, keys in written:
            for key in keys:
                leased.unsettled.pop(key, None)

    def _is_unsettled(self, record: Record) -> bool:
        leased = self._leased.get((record.caller, record.day))
        return leased is not None and record.key in leased.unsettled

    def _lease(self, leased: _Leased, pages: int) -> Lease:
        return Lease(self._replica, leased.caller.name, leased.day, pages, self._times.latest() or 0.0)
