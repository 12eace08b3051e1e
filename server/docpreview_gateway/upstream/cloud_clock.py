"""The cloud's clocks, one for each host, by the `Date` of its replies."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.upstream.wire.http import unix_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.model.call import Clock


def elapsed() -> float:
    """Seconds that never go back, and go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Heard(NamedTuple):
    """A `Date`, in Unix seconds, and the instant of `elapsed` at which its reply arrived."""

    date: float
    at: float


class CloudTimes:
    """What the cloud's clocks show. A host that was not heard is taken to show what our wall clock shows.

    A host's clock is its last `Date` and the time that has passed since: a jump of our own clock changes nothing.
    """

    def __init__(self, ours: Clock, elapsed: Callable[[], float] = elapsed) -> None:
        self._ours = ours
        self._heard: dict[str, Heard] = {}
        self.elapsed = elapsed

    def now(self, host: str) -> float:
        """The Unix time that the host shows now, to about a second."""
        heard = self._heard.get(host)
        return self._ours.now() if heard is None else heard.date + (self.elapsed() - heard.at)

    def latest(self) -> float | None:
        """The Unix time by the host that was heard last; None: none was heard."""
        last = max(self._heard.values(), key=lambda heard: heard.at, default=None)
        return None if last is None else last.date + (self.elapsed() - last.at)

    def heard(self, host: str) -> Heard | None:
        """The last `Date` of a host; None: there was none."""
        return self._heard.get(host)

    def hear(self, host: str, date: str) -> bool:
        """Set a host's clock by the `Date` of a reply of its own. False: it has no valid time, and changes nothing."""
        cloud = unix_time(date)
        if cloud is None:
            return False
        self._heard[host] = Heard(cloud, self.elapsed())
        return True

    def restore(self, host: str, heard: Heard | None) -> None:
        """Set a host's clock back to what was heard before."""
        if heard is None:
            self._heard.pop(host, None)
        else:
            self._heard[host] = heard
