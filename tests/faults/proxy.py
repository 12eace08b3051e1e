"""A TCP proxy that delays data and cuts connections at random, by a seed."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import random
    from types import TracebackType

_DATE = re.compile(rb"(?<=\r\n)Date: [^\r\n]*")


@dataclass(slots=True)
class FaultMix:
    """Fault mix: probabilities of `hold` (delay) and `cut` for each piece of data; bounds of a delay in seconds.

    Delayed data is delivered even when its sender has disconnected.
    """

    hold: float = 0.0
    least: float = 0.0
    longest: float = 0.0
    cut: float = 0.0


class FlakyProxy:
    """A proxy on loopback from `proxy.port` to `target`: `async with FlakyProxy(target, rng, mix) as proxy`."""

    def __init__(self, target: int, rng: random.Random, mix: FaultMix) -> None:
        self.mix = mix
        self.held = 0
        self.cuts = 0
        self._forged = b""
        self._target = target
        self._rng = rng
        self._connections: set[asyncio.Task[None]] = set()
        self._holding = 0
        self._calm = asyncio.Event()
        self._calm.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def forge_date(self, date: str) -> None:
        """Replace the `Date` of the next reply by this one."""
        self._forged = date.encode()

    @property
    def is_forging(self) -> bool:
        """Whether a `Date` is still to be replaced."""
        return bool(self._forged)

    async def delivered(self) -> None:
        """Wait until no delayed data is left."""
        await self._calm.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError):
                await self._connect(reader, writer)
        except asyncio.CancelledError:
            pass  # asyncio's server would log it
        finally:
            self._connections.discard(task)
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            requests = asyncio.create_task(self._pump(reader, back))
            replies = asyncio.create_task(self._pump(there, writer))
            try:
                await asyncio.wait((requests, replies), return_when=asyncio.FIRST_COMPLETED)
                writer.close()
                # A delayed request arrives although its client has disconnected, and the cloud has time to read it.
                await asyncio.wait((requests,))
                await asyncio.wait((replies,), timeout=0.5)
            finally:
                requests.cancel()
                replies.cancel()
                await asyncio.gather(requests, replies, return_exceptions=True)
        finally:
            back.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if self._forged and (found := _DATE.search(data)):
                data = data[: found.start()] + b"Date: " + self._forged + data[found.end() :]
                self._forged = b""
            if self.mix.cut and self._rng.random() < self.mix.cut:
                self.cuts += 1
                sink.write(data[: self._rng.randrange(len(data) + 1)])
                await sink.drain()
                return
            if self.mix.hold and self._rng.random() < self.mix.hold:
                await self._hold()
            sink.write(data)
            await sink.drain()

    async def _hold(self) -> None:
        self.held += 1
        self._holding += 1
        self._calm.clear()
        try:
            await asyncio.sleep(self._rng.uniform(self.mix.least, self.mix.longest))
        finally:
            self._holding -= 1
            if not self._holding:
                self._calm.set()
