"""Baseline: a minimal gRPC service with a stream, `grpc.aio` answering a call with its own request, again and again.

The arguments are the seconds between two messages, `inf` for a single one, and a number of groups: streams join them in
turn, and those of a group get their messages at the same moment, as the watches of one job do. Nothing is read,
compared or encoded. Prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from typing import TYPE_CHECKING

import grpc

from canned_upstream import until_stdin_ends

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Group:
    """Streams that wait for the same moment."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def next(self) -> asyncio.Future[None]:
        """Done at the next moment."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    async def run(self, seconds: float) -> None:
        """Moments, with the jitter of the gateway's polls."""
        while True:
            await asyncio.sleep(seconds * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)


async def main(seconds: float, number: int) -> None:
    groups = [Group() for _ in range(number)]
    turns = itertools.cycle(groups)

    async def watch(request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        group = next(turns)
        while True:
            yield request
            await group.next()

    server = grpc.aio.server()
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Watch": grpc.unary_stream_rpc_method_handler(watch)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bare", methods),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    tasks = [asyncio.create_task(group.run(seconds)) for group in groups if seconds != float("inf")]
    await until_stdin_ends()
    for task in tasks:
        task.cancel()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2])))
