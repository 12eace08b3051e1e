"""The cloud's time, as far as it is known: signatures are judged by its clock, not by ours."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Clock


class CloudClock:
    """The port `Clock`, set by the `Date` of a refusal. `offset` is the cloud's time minus ours, in seconds."""

    def __init__(self, ours: Clock) -> None:
        self._ours = ours
        self.offset = 0.0

    def now(self) -> float:
        """The cloud's Unix time."""
        return self._ours.now() + self.offset

    def learn(self, date: str) -> bool:
        """Take over the time in a `Date` header; whether it told one."""
        cloud = unix_time(date)
        if cloud is None:
            return False
        self.offset = cloud - self._ours.now()
        return True


def unix_time(date: str) -> float | None:
    """The time in a `Date` header, in whole seconds; None when it tells none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
