"""Deadline of a call with several attempts."""

import asyncio
from datetime import timedelta
from typing import Self

import grpc

from docpreview_client.errors import DeadlineExceeded


class Deadline:
    """A point in time on the event loop's monotonic clock."""

    def __init__(self, at: float) -> None:
        self._at = at

    @classmethod
    def after(cls, timeout: timedelta) -> Self:
        """The deadline `timeout` from now."""
        return cls(asyncio.get_running_loop().time() + timeout.total_seconds())

    def remaining(self) -> float:
        """Seconds until the deadline; 0 when it has passed."""
        return max(0.0, self._at - asyncio.get_running_loop().time())

    async def sleep(self, seconds: float) -> None:
        """Sleeps for `seconds`, or raises DeadlineExceeded at the deadline if that comes first."""
        remaining = self.remaining()
        await asyncio.sleep(min(seconds, remaining))
        if seconds >= remaining:
            raise DeadlineExceeded("The deadline has passed.", code=grpc.StatusCode.DEADLINE_EXCEEDED)
