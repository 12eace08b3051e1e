"""Connections for calls that last long: watches and waits.

The gateway admits 100 streams per connection, and gRPC makes further calls wait without a word. So watches and waits
have connections of their own, as many as they need, and other calls never wait for them.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from docpreview_client.connection import Connection

STREAMS_PER_CONNECTION: Final = 90
"""Below the gateway's 100: health checks are streams, too."""


class StreamConnections:
    """Connections with at most `STREAMS_PER_CONNECTION` calls each; one idle one is kept, others are closed."""

    def __init__(self, open_connection: Callable[[], Connection]) -> None:
        self._open_connection = open_connection
        self._calls: dict[Connection, int] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """How many connections are open."""
        return len(self._calls)

    @contextmanager
    def place(self) -> Iterator[Connection]:
        """A place for one call, for the time of the block."""
        connection = self._with_room() or self._open_connection()
        self._calls[connection] = self._calls.get(connection, 0) + 1
        try:
            yield connection
        finally:
            self._leave(connection)

    async def close(self) -> None:
        """Closes all connections; their calls are cancelled."""
        connections, self._calls = list(self._calls), {}
        for connection in connections:
            await connection.close()
        await asyncio.gather(*self._closing)

    def _with_room(self, *, besides: Connection | None = None) -> Connection | None:
        return next(
            (one for one, calls in self._calls.items() if calls < STREAMS_PER_CONNECTION and one is not besides), None
        )

    def _leave(self, connection: Connection) -> None:
        """Does not wait for the end of the connection: generators are left, too, when a program ends."""
        if connection not in self._calls:  # closed meanwhile
            return
        self._calls[connection] -= 1
        if not self._calls[connection] and self._with_room(besides=connection):
            del self._calls[connection]
            task = asyncio.get_running_loop().create_task(connection.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
