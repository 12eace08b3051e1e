"""The cloud's clocks, one for each host, by the `Date` of its replies."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.upstream.wire.http import unix_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.model.call import Clock


EARLIEST, LATEST = 1_577_836_800.0, 4_102_444_800.0
"""The Unix times, of 2020 and 2100, between which a `Date` is believed: others are of a box without a clock."""

ACCEPTED_SECONDS = 900.0
"""Most by which a host's clock can differ from what is known of it when it has accepted a signature made by that.

Windows of signatures are shorter. Replies that are no answer to a signature say nothing against what is known either.
"""


def cloud_time(date: str) -> float | None:
    """The Unix time in the `Date` of a reply; None when it has none, or none that a cloud's clock can show."""
    seconds = unix_time(date)
    return seconds if seconds is not None and EARLIEST <= seconds < LATEST else None


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

    def hear(self, host: str, date: str, *, most: float = math.inf) -> bool:
        """Set a host's clock by the `Date` of a reply of its own.

        False, and nothing is changed: it has no time that a clock can show, or would move the clock by more than `most`
        seconds.
        """
        cloud = cloud_time(date)
        if cloud is None or abs(cloud - self.now(host)) > most:
            return False
        self._heard[host] = Heard(cloud, self.elapsed())
        return True

    def restore(self, host: str, heard: Heard | None) -> None:
        """Set a host's clock back to what was heard before."""
        if heard is None:
            self._heard.pop(host, None)
        else:
            self._heard[host] = heard
