"""Hints for the other workers of this gateway.

The kernel gives a callback to one of the workers, and the watchers of its job may be with another. Each
worker listens on a Unix socket in the folder of its supervisor, which no other user can open. Replicas need nothing of
the kind: they hear of each other's reads through shared state.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, closing, suppress
from typing import TYPE_CHECKING

from docpreview_gateway.storage.background import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

SUFFIX = ".hints"
SECONDS = 1.0
"""Time limit of telling a worker, which may hang; its polls find then what it was not told."""


class Siblings:
    """The other workers whose sockets are in `folder`; `number` is this worker's."""

    def __init__(self, folder: Path, number: str) -> None:
        self._own = folder / f"{number}{SUFFIX}"
        self._tasks = BackgroundTasks()
        self._untold: dict[Path, list[bytes]] = {}
        """Hints for each worker that is being told: many at once go over one connection."""

    def tell(self, bucket: str, job_id: str) -> None:
        """Pass a hint on, in the background."""
        for path in self._own.parent.glob(f"*{SUFFIX}"):
            if path == self._own:
                continue
            if path not in self._untold:
                self._untold[path] = []
                _ = self._tasks.start(self._pass_on(path), "hints for another worker")
            self._untold[path].append(f"{bucket} {job_id}\n".encode())

    @asynccontextmanager
    async def listening(self, heard: Callable[[str, str], None]) -> AsyncIterator[None]:
        """Call `heard` with the bucket's name and the job's id of each hint while the context is open."""

        async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with closing(writer):
                while line := (await reader.readline()).decode():
                    bucket, _, job_id = line.removesuffix("\n").partition(" ")
                    heard(bucket, job_id)

        server = await asyncio.start_unix_server(receive, self._own)
        try:
            yield
        finally:
            server.close()
            self._own.unlink(missing_ok=True)
            await self._tasks.cancel()

    async def _pass_on(self, path: Path) -> None:
        try:
            # A worker that has ended has left its socket, and one that ends refuses.
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(SECONDS):
                    await self._send(path)
        finally:
            del self._untold[path]

    async def _send(self, path: Path) -> None:
        _, writer = await asyncio.open_unix_connection(path)
        with closing(writer):
            while lines := self._untold[path]:
                self._untold[path] = []
                writer.writelines(lines)
                await writer.drain()
