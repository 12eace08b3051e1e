"""Work that outlives the call that started it: background tasks, and rounds repeated at an interval.

In the lowest part that may use an event loop, because each part above it starts such work, most of it on stores.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from docpreview_gateway.model.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

Result = TypeVar("Result")

log = structlog.get_logger("docpreview_gateway.background")


def loop_time() -> float:
    """The running event loop's clock, which is `time.monotonic`'s too, unless a test makes it another."""
    return asyncio.get_running_loop().time()


class BackgroundTasks:
    """Background tasks, referenced until they end: the event loop's own are weak.

    A GatewayError is a result, for the caller that awaits the task; any other error is logged as unexpected.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Result], name: str) -> asyncio.Task[Result]:
        """Run `work` in a task of this name."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def drain(self) -> None:
        """Wait until no task runs, tasks started meanwhile included. Cancelling the drain cancels them."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cancel(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, GatewayError):
            log.error("unexpected error in a background task", task=task.get_name(), exc_info=error)


@asynccontextmanager
async def repeated(
    work: Callable[[], Awaitable[None]], seconds: float, *, first_after: float = 0.0, spread: float = 0.0
) -> AsyncIterator[None]:
    """Run `work` after `first_after` seconds and `seconds` after each round's end, while the context is open.

    Each pause is longer or shorter by up to `spread` of it (0 to 1), at random: of processes that take work from one
    queue, none is always the first. An error ends only its round.
    """

    async def rounds() -> None:
        await asyncio.sleep(first_after)
        while True:
            try:
                await work()
            except Exception as error:
                log.warning("background round failed", task=work.__qualname__, exc_info=error)
            await asyncio.sleep(seconds * random.uniform(1 - spread, 1 + spread))  # noqa: S311 - no secret

    tasks = BackgroundTasks()
    _ = tasks.start(rounds(), f"repeated {work.__qualname__}")
    try:
        yield
    finally:
        await tasks.cancel()
