"""The emulator's own clock, which tests may set wrong on purpose."""

import time
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

BEIJING = timezone(timedelta(hours=8))
_FORMAT = "%Y-%m-%dT%H:%M:%S%z"


class Clock:
    """The machine's time plus `offset_seconds`; expiry, skew, job times and the `Date` header all follow it."""

    def __init__(self, offset_seconds: float = 0.0) -> None:
        self.offset_seconds = offset_seconds

    def now(self) -> float:
        """Unix seconds as the emulator believes them to be."""
        return time.time() + self.offset_seconds  # noqa: TID251 - this is the one place that asks the machine


def cloud_time(seconds: float) -> str:
    """Unix seconds as the cloud prints them, e.g. `2022-09-14T17:15:43+0800`."""
    return datetime.fromtimestamp(seconds, BEIJING).strftime(_FORMAT)


def http_date(seconds: float) -> str:
    """Unix seconds as an HTTP `Date`."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def read_cloud_time(text: str) -> float:
    """Unix seconds of a time such as `2022-09-14T17:15:43+0800`.

    The vendor's pages print the format with `%m` for the minutes, which is a misprint: its own values have minutes.

    Raises:
        ValueError: it is not of that form.
    """
    return datetime.strptime(text, _FORMAT).timestamp()  # noqa: DTZ007 - the format has the zone
