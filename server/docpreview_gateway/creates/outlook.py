"""How long the loss of a store will last, in words for operators, by what one process knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docpreview_gateway.creates.rebuild import OnLoss

MINUTE, HOUR = 60.0, 3600.0

ACCEPT = "`docpreview-gateway store accept-loss` (a repeated request_id may then make, and bill, a second job)"
"""How an operator ends a loss by hand, with its price."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What ends a loss. Times are seconds since it was noticed.

    `quarantine` is the earliest end of a rebuild, and `keep` that where the cloud does not show whose the jobs are.
    """

    on_loss: OnLoss
    quarantine: float
    keep: float

    def words(self, waited: float, *, shows_markers: bool) -> str:
        """When the loss ends that was noticed `waited` seconds ago.

        `shows_markers`: lists of the last hour have shown whose the jobs are, in every bucket.
        """
        if self.on_loss == "refuse":
            return f"only {ACCEPT} ends that (ledger.on_loss: refuse)"
        if self.on_loss == "accept":
            return "it goes on without them within seconds (ledger.on_loss: accept)"
        left = self.quarantine - waited
        first = (
            f"they are read back from the cloud's lists in {spoken(left)} at the earliest"
            if left > 0
            else "they could not be read back from the cloud's lists yet (the log says why)"
        )
        if shows_markers:
            return first
        return (
            f"{first}. No list of the last hour has shown whose the jobs are: where none does, creates go on in "
            f"{spoken(self.keep - waited)} (ledger.retention_seconds, anew after a restart), or after {ACCEPT}"
        )


def spoken(seconds: float) -> str:
    """A duration for a person, rounded to a unit that fits."""
    seconds = max(1.0, seconds)
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.0f} h"
