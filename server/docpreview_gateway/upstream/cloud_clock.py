"""The cloud's clock, by which it checks signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.upstream.wire.http import unix_time

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Clock


class CloudClock:
    """A `Clock` that is set by the `Date` of a refusal. `offset` is the cloud's time minus ours, in seconds."""

    def __init__(self, ours: Clock) -> None:
        self._ours = ours
        self.offset = 0.0

    def now(self) -> float:
        """The cloud's Unix time."""
        return self._ours.now() + self.offset

    def learn(self, date: str) -> bool:
        """Set the clock from a `Date` header. Returns False when the header has no valid time."""
        cloud = unix_time(date)
        if cloud is None:
            return False
        self.offset = cloud - self._ours.now()
        return True
