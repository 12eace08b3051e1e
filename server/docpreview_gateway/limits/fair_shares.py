"""Fair shares of the concurrent calls of a process, so that one caller cannot keep the others out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.limits.call_limits import CONCURRENCY_SECONDS
from docpreview_gateway.model.errors import LimitReached

if TYPE_CHECKING:
    from docpreview_gateway.limits.ports import LimitsTelemetry

PER_FREE_PLACE = 3
"""Most places that a caller may hold for each place that is free."""


class FairShares:
    """The `places` of a process, of which a caller may hold at most three times as many as are left free.

    So one caller alone may hold three quarters, two three sevenths each, and there is always room for another one. A
    caller that holds none is never refused one. `what` names the places in errors, such as "waits and watches".
    """

    def __init__(self, places: int, what: str, telemetry: LimitsTelemetry) -> None:
        self._free = places
        self._what = what
        self._telemetry = telemetry
        self._held: dict[str, int] = {}

    def enter(self, caller: str, places: int = 1) -> None:
        """Take places, or none, for the caller of this name. CONCURRENCY_LIMITED beyond its share."""
        held = self._held.get(caller, 0)
        wanted = held + places
        if wanted > 1 and wanted > PER_FREE_PLACE * (self._free - places):
            self._telemetry.limit(caller, "share", "refused")
            raise LimitReached(
                reasons.ERROR_REASON_CONCURRENCY_LIMITED,
                f"{caller} has {held} concurrent {self._what}; {places} more exceed its fair share of what the gateway "
                "accepts",
                subject=f"caller:{caller}:share",
                retry_after=CONCURRENCY_SECONDS,
            )
        self._held[caller] = wanted
        self._free -= places

    def leave(self, caller: str, places: int = 1) -> None:
        """Free places of the caller."""
        self._free += places
        left = self._held.pop(caller, 0) - places
        if left:
            self._held[caller] = left
