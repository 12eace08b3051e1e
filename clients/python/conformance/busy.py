"""The call `busy`: many watches and waits of a job on one client, and what gets and creates do beside them."""

from __future__ import annotations

import asyncio
import statistics
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from docpreview_client import DocPreviewError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from docpreview_client import DocPreviewClient

_GETS: Final = 20
_CREATES: Final = 5
_TIMEOUT: Final = 10
_LONG: Final = 600


async def busy(client: DocPreviewClient, given: dict[str, Any]) -> dict[str, Any]:
    """Counts what succeeds."""
    bucket, job_id = given["bucket"], given["job_id"]
    _, idle = await _gets(client, bucket, job_id)
    watching = Watching(client, bucket, job_id, given["watches"])
    waits = [asyncio.create_task(client.wait(bucket, job_id, timeout=_LONG)) for _ in range(given["waits"])]
    watches = await watching.all_begun()
    gets, milliseconds = await _gets(client, bucket, job_id)
    creates = 0
    for _ in range(_CREATES):
        created = client.create(bucket, given["input_object"], output_object=given["output_object"], timeout=_TIMEOUT)
        creates += await _succeeds(created)
    for task in (*watching.tasks, *waits):
        task.cancel()
    await asyncio.gather(*watching.tasks, *waits, return_exceptions=True)
    return {"watches": watches, "gets": gets, "creates": creates, "get_ms": milliseconds, "idle_get_ms": idle}


class Watching:
    """Watches of one job."""

    def __init__(self, client: DocPreviewClient, bucket: str, job_id: str, count: int) -> None:
        self._begun = 0
        self._left = count
        self._done = asyncio.Event()
        self.tasks = [asyncio.create_task(self._watch(client, bucket, job_id)) for _ in range(count)]

    async def all_begun(self) -> int:
        """How many got a message, once each has one or has failed."""
        await self._done.wait()
        return self._begun

    async def _watch(self, client: DocPreviewClient, bucket: str, job_id: str) -> None:
        watch = client.watch(bucket, job_id, timeout=_LONG)
        with suppress(DocPreviewError):
            await anext(watch)
            self._begun += 1
        self._left -= 1
        if not self._left:
            self._done.set()
        async for _ in watch:
            pass


async def _gets(client: DocPreviewClient, bucket: str, job_id: str) -> tuple[int, float]:
    """How many succeed, and their median in milliseconds."""
    times, succeeded = [], 0
    for _ in range(_GETS):
        begin = asyncio.get_running_loop().time()
        succeeded += await _succeeds(client.get(bucket, job_id, timeout=_TIMEOUT))
        times.append(1000 * (asyncio.get_running_loop().time() - begin))
    return succeeded, statistics.median(times)


async def _succeeds(call: Awaitable[object]) -> bool:
    with suppress(DocPreviewError):
        await call
        return True
    return False
