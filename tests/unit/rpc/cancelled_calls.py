"""A server whose calls' tasks are cancelled while the library has a step of each, in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import grpc

from docpreview_gateway.rpc.accepting import Server

CALLS, ROUNDS = 30, 20


async def main() -> None:
    """End well, or by a signal: when the library writes to what is freed, this process crashes."""
    begun = asyncio.Semaphore(0)

    async def wait(_request: bytes, _context: object) -> bytes:
        begun.release()
        never: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        return await never

    server = Server((), (), on_unknown=lambda _peer: None, on_end=lambda _error: None)
    server.add_registered_method_handlers("t.T", {"Wait": grpc.unary_unary_rpc_method_handler(wait)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method: Any = channel.unary_unary("/t.T/Wait")
        for _ in range(ROUNDS):
            calls = [method(b"x") for _ in range(CALLS)]
            for _ in calls:
                await begun.acquire()
            tasks = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") in _OF_CALLS]
            assert len(tasks) >= CALLS
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            del task, tasks
            gc.collect()
            # Takes the memory of what was freed.
            taken = [bytearray(size) for size in range(1, 257) for _ in range(20)]
            for call in calls:
                call.cancel()
            await asyncio.wait([asyncio.ensure_future(_ended(call)) for call in calls])
            del taken
    await server.stop(0)


_OF_CALLS = {"_schedule_rpc_coro", "_handle_rpc"}


async def _ended(call: grpc.aio.Call) -> None:
    await call.code()


if __name__ == "__main__":
    logging.disable()  # asyncio would name each task that was cancelled before its first step
    asyncio.run(main())
