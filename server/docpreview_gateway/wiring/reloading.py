"""Reloading of files while the gateway runs: a new version is used as a whole or not at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    from docpreview_gateway.access.ports import AccessTelemetry

log = structlog.get_logger("docpreview_gateway.reload")

Loaded = TypeVar("Loaded")


class InvalidFileError(Exception):
    """A file cannot be used. The message says why, without secrets."""


class Watched(NamedTuple, Generic[Loaded]):
    """Files that are loaded together.

    `load` reads them, in a thread, and raises InvalidFileError; `take` puts the result to use, in the event loop.
    """

    what: str
    paths: Sequence[Path]
    load: Callable[[], Loaded]
    take: Callable[[Loaded], None]


class Reloading:
    """Watched files, reloaded when their `stamp` changes."""

    def __init__(self, telemetry: AccessTelemetry, stamp: Callable[[Path], Hashable]) -> None:
        self._telemetry = telemetry
        self._stamp = stamp
        self._watched: list[tuple[Watched[object], list[Hashable]]] = []

    def add(self, watched: Watched[Loaded]) -> None:
        """Load now, and again whenever a file changes. InvalidFileError when it cannot be loaded now."""
        stamps = self._stamps(watched)
        watched.take(watched.load())
        self._watched.append((watched, stamps))  # type: ignore[arg-type]  # loaded values are only passed on

    async def check(self) -> None:
        """Reload changed files. An invalid version is logged once, and the old one stays in use."""
        for watched, known in self._watched:
            stamps = await asyncio.to_thread(self._stamps, watched)
            if stamps != known:
                known[:] = stamps
                await self._reload(watched)

    async def _reload(self, watched: Watched[object]) -> None:
        try:
            watched.take(await asyncio.to_thread(watched.load))
        except InvalidFileError as error:
            self._telemetry.reloaded(watched.what, "invalid")
            log.warning("new version is invalid, the old one stays", file=watched.what, why=str(error))
        else:
            self._telemetry.reloaded(watched.what, "ok")
            log.info("reloaded", file=watched.what)

    def _stamps(self, watched: Watched[Loaded]) -> list[Hashable]:
        return [self._stamp(path) for path in watched.paths]
