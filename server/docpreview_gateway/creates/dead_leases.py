"""Leases of replicas that are gone: what they paid for is found in the cloud's lists, the rest is given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from docpreview_gateway.creates.keys import new_nonce
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.creates.records import Record, State
from docpreview_gateway.model.callers import PageBudget
from docpreview_gateway.model.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.ports import CreateStore, Lease
    from docpreview_gateway.creates.rebuild import Scans
    from docpreview_gateway.creates.records import Timing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.upstream.cloud_clock import CloudTimes

log = structlog.get_logger("docpreview_gateway.creates")

SPAN_MARGIN_SECONDS = 60.0


class DeadLeases:
    """Accounts for leases that are not renewed any more. One loop per process calls `round` at intervals.

    A replica that lives renews its leases; one that cannot reach the store does not, and may spend them until their
    term ends. So a lease is dead when this process has seen it unchanged for its term and the fence of what it paid.
    If the replica comes back, what it hands over is known already.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        store: CreateStore,
        scans: Scans,
        buckets: Sequence[Bucket],
        keys: CreateKeys,
        times: CloudTimes,
        *,
        timing: Timing,
        replica: str,
        seconds: float,
    ) -> None:
        self._store = store
        self._scans = scans
        self._buckets = buckets
        self._keys = keys
        self._times = times
        self._unknown: set[Lease] = set()
        self._timing = timing
        self._replica = replica
        self._seconds = seconds
        self._seen: dict[Lease, float] = {}

    async def round(self) -> None:
        """Account for the leases that are dead. Failures are repeated in the next round."""
        try:
            leases = [lease for lease in await self._store.leases() if lease.replica != self._replica]
            now = self._times.elapsed()
            self._seen = {lease: self._seen.get(lease, now) for lease in leases}
            self._unknown.intersection_update(leases)
            for lease in leases:
                if now - self._seen[lease] > self._seconds + self._timing.watch:
                    await self._account_for(lease)
        except (GatewayError, StoreError) as error:
            log.warning("page leases cannot be compared with the replicas that hold them", error=str(error))

    async def _account_for(self, lease: Lease) -> None:
        is_found = await self._is_found(lease)
        if not is_found and lease not in self._unknown:
            # It may be a wrong `Date`: only a second one ends it.
            self._unknown.add(lease)
        elif is_found:
            await self._store.lease(lease._replace(pages=0), PageBudget())
            log.info("a lease of a replica that is gone is given back", replica=lease.replica, pages=lease.pages)
        else:
            # Nobody can tell what it paid for: all of it counts as made.
            await self._store.hand_over(lease, [(self._charge_of(lease), 0.0)])
            log.warning("a lease of a replica that is gone is charged", replica=lease.replica, pages=lease.pages)

    async def _is_found(self, lease: Lease) -> bool:
        """Whether all that was paid from the lease has a record now; False: the cloud's lists do not show it."""
        begin = lease.renewed_at - SPAN_MARGIN_SECONDS
        end = lease.renewed_at + self._seconds + self._timing.signature + self._timing.fence_slack + SPAN_MARGIN_SECONDS
        for bucket in self._buckets:
            if await self._scans.now(bucket) - begin > self._timing.keep:
                # Records of that time may have been forgotten: their jobs would be counted again.
                return False
            # A longer list may prove the echo, where this span has only jobs of others.
            await self._scans.shows_markers(bucket, begin - 3600, begin)
            scan = await self._scans.scan(bucket, self._store, begin, end)
            if not scan.complete:
                raise StoreError(f"the list of bucket {bucket.name} is not shown to its end")
            if scan.is_blind:
                return False
        return True

    def _charge_of(self, lease: Lease) -> Record:
        """A record that charges a lease; the same one for each replica that does so."""
        key = self._keys.place("\n".join(("lease", *lease[:3], str(lease.renewed_at))))
        return Record(
            key=key,
            body=b"",
            kid=self._keys.id,
            caller=lease.caller,
            bucket="",
            request=b"",
            place="",
            render="",
            keep=0.0,
            day=lease.day,
            asked=lease.pages,
            nonce=new_nonce(),
            state=State.CHARGED,
            made=lease.pages,
        )
