"""The report of `/debug`: where each thread and each task of this process is now, without any value of a variable."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

MOST_FRAMES = 30


async def debug_report(_query: Mapping[str, str]) -> bytes:
    """Stacks of all threads, and of all tasks of the running event loop, equal ones once with their number.

    Lines name files, lines and functions of the code only.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way
        lines += [f"thread {names.get(ident, '?')}", *_outwards(frame), ""]
    stacks = Counter("\n".join(_awaits(task.get_coro())) for task in asyncio.all_tasks())
    for stack, count in stacks.most_common():
        lines += [f"{count} {'task' if count == 1 else 'tasks'}", stack, ""]
    return "\n".join(lines).encode()


def _outwards(frame: FrameType | None) -> Iterator[str]:
    """The frames of a thread, the innermost first."""
    for _ in range(MOST_FRAMES):
        if frame is None:
            return
        yield _line(frame)
        frame = frame.f_back


def _awaits(awaited: Any) -> Iterator[str]:  # noqa: ANN401 - coroutines, generators and futures
    """The frames of a task, the outermost first: what its coroutine awaits, what that awaits, and so on."""
    for _ in range(MOST_FRAMES):
        for kind, inner in (("cr", "await"), ("gi", "yieldfrom"), ("ag", "await")):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                yield _line(frame)
                awaited = getattr(awaited, f"{kind}_{inner}")
                break
        else:
            return


def _line(frame: FrameType) -> str:
    return f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"
