"""When the process of a test has stood still: what depends on its timers says nothing then."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Standstills:
    """When this process has stood still, by a task that looks every few milliseconds."""

    def __init__(self) -> None:
        self.found: list[tuple[float, float]] = []

    async def look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            begin = loop.time()
            await asyncio.sleep(0.005)
            if (end := loop.time()) - begin > 0.02:
                self.found.append((begin, end))

    def during(self, begin: float, end: float) -> float:
        """Seconds of standstill within a stretch of time."""
        return sum(max(0.0, min(end, last) - max(begin, first)) for first, last in self.found)


@asynccontextmanager
async def standstills() -> AsyncIterator[Standstills]:
    stood = Standstills()
    looking = asyncio.create_task(stood.look())
    try:
        yield stood
    finally:
        looking.cancel()
