"""An emulator in a thread, for synchronous callers and for callers with a busy event loop."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from docpreview_emulator.emulator import Emulator


@contextmanager
def running(emulator: Emulator) -> Iterator[Emulator]:
    """The emulator, started; it stops when the block ends.

    Raises:
        StorageError, OSError: as `Emulator.__aenter__`.
    """
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(target=asyncio.run, args=(_serve(emulator, started),), name="docpreview-emulator")
    thread.start()
    try:
        loop, stop = started.result()
        try:
            yield emulator
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()


async def _serve(emulator: Emulator, started: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
    stop = asyncio.Event()
    try:
        async with emulator:
            started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()
    except Exception as error:
        if started.done():
            raise
        started.set_exception(error)
