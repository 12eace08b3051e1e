"""The event loop of the command, without pauses for garbage collection of start-up objects."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

if TYPE_CHECKING:
    from collections.abc import Coroutine

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work` on uvloop, which saves a sixth of the CPU time of every call (docs/adr/0017)."""
    return uvloop.run(work)


def freeze_startup_objects() -> None:
    """Exclude all present objects from garbage collection: to scan them stops all calls for 40 ms."""
    gc.collect()
    gc.freeze()
