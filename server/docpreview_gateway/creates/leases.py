"""Leases of pages: what a replica may let its callers make while it cannot reach the store.

A lease is counted in the store before it is spent, so outages can make callers wait, but not overspend. Each page that
is spent is on this machine's disk before its create is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from docpreview_gateway.creates.ports import Lease, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """A lease as this process knows it: the pages that are left, and when it was renewed (of `CloudTimes.elapsed`)."""

    caller: Caller
    day: str
    left: int = 0
    renewed_at: float = 0.0


class PageLeases:
    """The leases of one replica; `replica` is its name in the store, the same after a restart."""

    def __init__(
        self, store: CreateStore, journal: Journal, times: CloudTimes, *, replica: str, seconds: float = LEASE_SECONDS
    ) -> None:
        self._store = store
        self._journal = journal
        self._times = times
        self._replica = replica
        self._seconds = seconds
        self._leased: dict[str, _Leased] = {}

    def spent_with(self, caller: Caller, day: str) -> None:
        """A create of this caller was counted to this day: its lease is renewed from now on."""
        budget = caller.budget
        if budget is None or not budget.outage_pages:
            return
        leased = self._leased.get(caller.name)
        if leased is None or leased.day != day:
            self._leased[caller.name] = _Leased(caller, day)
        else:
            leased.caller = caller

    async def spend(self, record: Record) -> bool:
        """Pay the record's pages from its caller's lease; whether they are paid, and noted on disk."""
        leased = self._leased.get(record.caller)
        if leased is None or self._times.elapsed() - leased.renewed_at > self._seconds or leased.left < record.asked:
            return False
        leased.left -= record.asked
        try:
            await self._journal.add(record)
        except StoreError as error:
            log.warning("journal of page leases cannot be written", error=str(error))
            leased.left += record.asked
            return False
        return True

    async def accept(self, record: Record, job: PreviewJob) -> None:
        """The job of a create that may have been paid from a lease."""
        await self._note(record.accepted(job, record.sign_start))

    async def give_back(self, record: Record) -> None:
        """The create was not made."""
        if record.caller not in self._leased or not record.day:
            return
        try:
            await self._journal.remove([record.key])
        except StoreError as error:
            log.warning("journal of page leases cannot be written", error=str(error))
            return
        self._leased[record.caller].left += record.asked

    async def renew(self) -> None:
        """Hand over what was spent, and renew the leases. To be repeated every RENEW_SECONDS. StoreError."""
        await self._hand_over()
        for leased in list(self._leased.values()):
            budget = leased.caller.budget
            if budget is None:
                continue
            now = self._times.elapsed()
            got = await self._store.lease(self._lease(leased, budget.outage_pages), budget)
            leased.left, leased.renewed_at = got.pages, now

    async def round(self) -> None:
        """`renew`, of which a failure is repeated in the next round: until then the lease goes on to be spent."""
        try:
            await self.renew()
        except StoreError as error:
            log.warning("page leases cannot be renewed", error=str(error))

    async def end(self) -> None:
        """Give all leases back."""
        try:
            await self._hand_over()
            for leased in self._leased.values():
                if leased.caller.budget is not None:
                    await self._store.lease(self._lease(leased, 0), leased.caller.budget)
        except StoreError as error:
            log.warning("page leases cannot be given back", error=str(error))

    async def _hand_over(self) -> None:
        records = await self._journal.all()
        by_lease: dict[tuple[str, str], list[Record]] = {}
        for record in records:
            by_lease.setdefault((record.caller, record.day), []).append(record)
        for (caller, day), paid in by_lease.items():
            lease = Lease(self._replica, caller, day, 0, 0.0)
            await self._store.hand_over(lease, [(record, record.sign_end) for record in paid])
            await self._journal.remove([record.key for record in paid])

    async def _note(self, record: Record) -> None:
        if record.caller not in self._leased or not record.day:
            return
        try:
            await self._journal.add(record)
        except StoreError as error:
            log.warning("journal of page leases cannot be written", error=str(error))

    def _lease(self, leased: _Leased, pages: int) -> Lease:
        return Lease(self._replica, leased.caller.name, leased.day, pages, 0.0)
