"""A point in time by which a call of several attempts must be done."""

import asyncio
from datetime import timedelta
from typing import Self

import grpc

from docpreview_client.errors import DeadlineExceeded


class Deadline:
    """Measured on the clock of the running event loop, which cannot be set back."""

    def __init__(self, at: float) -> None:
        self._at = at

    @classmethod
    def after(cls, timeout: timedelta) -> Self:
        """The deadline that lies `timeout` ahead."""
        return cls(asyncio.get_running_loop().time() + timeout.total_seconds())

    def remaining(self) -> float:
        """Seconds until the deadline; 0 when it has passed."""
        return max(0.0, self._at - asyncio.get_running_loop().time())

    async def sleep(self, seconds: float) -> None:
        """Sleeps for `seconds`; raises DeadlineExceeded at the deadline, when that comes first."""
        remaining = self.remaining()
        await asyncio.sleep(min(seconds, remaining))
        if seconds >= remaining:
            raise DeadlineExceeded("The deadline has passed.", code=grpc.StatusCode.DEADLINE_EXCEEDED)
