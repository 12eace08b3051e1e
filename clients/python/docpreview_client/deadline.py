"""Deadline of a call with several attempts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import grpc

from docpreview_client.errors import DeadlineExceeded
from docpreview_client.spans import Span, seconds


class Deadline:
    """A point in time on the event loop's monotonic clock."""

    def __init__(self, at: float) -> None:
        self._at = at

    @classmethod
    def after(cls, timeout: Span) -> Self:
        """The deadline `timeout` from now."""
        return cls(asyncio.get_running_loop().time() + seconds(timeout))

    def remaining(self) -> float:
        """Seconds until the deadline; 0 when it has passed."""
        return max(0.0, self._at - asyncio.get_running_loop().time())

    def at_most(self, span: Span) -> "Deadline":
        """This deadline, or the one `span` from now if that is earlier."""
        return Deadline.after(min(seconds(span), self.remaining()))

    def check(self) -> None:
        """Raises DeadlineExceeded when it has passed."""
        if not self.remaining():
            raise _passed()

    async def sleep(self, pause: float) -> None:
        """Sleeps for `pause` seconds, or raises DeadlineExceeded at the deadline if that comes first."""
        remaining = self.remaining()
        await asyncio.sleep(min(pause, remaining))
        if pause >= remaining:
            raise _passed()

    @asynccontextmanager
    async def bounding(self) -> AsyncIterator[None]:
        """Cancels the block at the deadline and raises DeadlineExceeded."""
        try:
            async with asyncio.timeout(self.remaining()):
                yield
        except TimeoutError:
            raise _passed() from None


def _passed() -> DeadlineExceeded:
    return DeadlineExceeded("The deadline has passed.", code=grpc.StatusCode.DEADLINE_EXCEEDED)
