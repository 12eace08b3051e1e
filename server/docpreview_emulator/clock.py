"""The emulator's clock, which tests may skew."""

import time
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

from docpreview_emulator.errors import ControlError

BEIJING = timezone(timedelta(hours=8))
MOST_OFFSET = 50 * 365 * 86400
_FORMAT = "%Y-%m-%dT%H:%M:%S%z"


class Clock:
    """The machine's time plus `offset_seconds`; expiry, skew, job times and the `Date` header all follow it."""

    def __init__(self) -> None:
        self._offset = 0.0

    @property
    def offset_seconds(self) -> float:
        """Seconds that this clock is ahead of the machine's; negative: behind."""
        return self._offset

    @offset_seconds.setter
    def offset_seconds(self, seconds: float) -> None:
        if not -MOST_OFFSET <= seconds <= MOST_OFFSET:  # false for NaN, too
            raise ControlError(f"offset_seconds must be between -{MOST_OFFSET} and {MOST_OFFSET}, which is 50 years")
        self._offset = float(seconds)

    def now(self) -> float:
        """The emulator's current time in Unix seconds."""
        return time.time() + self._offset  # noqa: TID251 - this is the one place that asks the machine


def cloud_time(seconds: float) -> str:
    """Unix seconds in the cloud's format, e.g. `2022-09-14T17:15:43+0800`."""
    return datetime.fromtimestamp(seconds, BEIJING).strftime(_FORMAT)


def http_date(seconds: float) -> str:
    """Unix seconds as an HTTP `Date`."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def iso_time(seconds: float) -> str:
    """Unix seconds as documents of object hosts have them, e.g. `2022-09-14T09:15:43.000Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def read_cloud_time(text: str) -> float:
    """Unix seconds of a time such as `2022-09-14T17:15:43+0800`.

    The vendor's pages print the format with `%m` for the minutes, which is a misprint: its own values have minutes.

    Raises:
        ValueError: it is not of that form.
    """
    return datetime.strptime(text, _FORMAT).timestamp()  # noqa: DTZ007 - the format has the zone
