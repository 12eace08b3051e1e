"""Reloading of files while the gateway runs: a new version is used as a whole or not at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from pathlib import Path

    from docpreview_gateway.access.ports import AccessTelemetry

log = structlog.get_logger("docpreview_gateway.reload")

Loaded = TypeVar("Loaded")


class InvalidFileError(Exception):
    """A file cannot be used. The message says why, without secrets; `problems` has a line for each mistake."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Watched(NamedTuple, Generic[Loaded]):
    """Files that are loaded together.

    `load` reads them, in a thread, and raises InvalidFileError; `take` puts the result to use, in the event loop.
    `changes` has, before that, what the log says of a new version.
    """

    what: str
    paths: Sequence[Path]
    load: Callable[[], Loaded]
    take: Callable[[Loaded], None]
    changes: Callable[[Loaded], Mapping[str, object]] = lambda _loaded: {}


class _State:
    """The stamps of the version that was tried last, and those of the latest check."""

    def __init__(self, stamps: list[Hashable]) -> None:
        self.tried = self.seen = stamps


class Refusals:
    """Which files on disk are refused, reported by kind: there may be several of a kind, such as `credentials`."""

    def __init__(self, telemetry: AccessTelemetry) -> None:
        self._telemetry = telemetry
        self._refused: dict[str, set[Hashable]] = {}

    def report(self, what: str, file: Hashable, *, refused: bool) -> None:
        """The present version of this file is refused, or it is the one in use."""
        files = self._refused.setdefault(what, set())
        (files.add if refused else files.discard)(file)
        self._telemetry.file_refused(what, bool(files))


class Reloading:
    """Watched files, reloaded when their `stamp` changes.

    A change counts once two checks in a row find the same: a half-written file can be valid, such as a policy that does
    not reach a caller's limits yet.
    """

    def __init__(self, telemetry: AccessTelemetry, stamp: Callable[[Path], Hashable]) -> None:
        self._telemetry = telemetry
        self._stamp = stamp
        self.refusals = Refusals(telemetry)
        self._watched: list[tuple[Watched[object], _State]] = []

    def add(self, watched: Watched[Loaded]) -> None:
        """Load now, and again whenever a file changes. InvalidFileError when it cannot be loaded now.

        A file that is being written at this moment is loaded as it is; what is written afterwards is a change.
        """
        state = _State(self._stamps(watched))
        watched.take(_loaded(watched))
        self.refusals.report(watched.what, tuple(watched.paths), refused=False)
        self._watched.append((watched, state))  # type: ignore[arg-type]  # loaded values are only passed on

    async def check(self) -> None:
        """Reload files that changed before the last check and not since.

        An invalid version is logged once, and the old one stays in use.
        """
        for watched, state in self._watched:
            stamps = await asyncio.to_thread(self._stamps, watched)
            is_settled, state.seen = stamps == state.seen, stamps
            if is_settled and stamps != state.tried:
                await self._reload(watched, state)

    async def _reload(self, watched: Watched[object], state: _State) -> None:
        loaded: object | InvalidFileError
        try:
            loaded = await asyncio.to_thread(_loaded, watched)
        except InvalidFileError as error:
            loaded = error
        if (now := await asyncio.to_thread(self._stamps, watched)) != state.seen:
            # Changed between the check and the end of loading: what was loaded is nobody's version.
            state.seen = now
            return
        state.tried = now
        changes: Mapping[str, object] = {}
        if not isinstance(loaded, InvalidFileError):
            try:
                changes = watched.changes(loaded)
                watched.take(loaded)
            except Exception as error:  # noqa: BLE001 - told as the file's
                loaded = _unusable(watched, error)
        self.refusals.report(watched.what, tuple(watched.paths), refused=isinstance(loaded, InvalidFileError))
        if isinstance(loaded, InvalidFileError):
            self._telemetry.reloaded(watched.what, "invalid")
            log.warning("new version is invalid, the old one stays", file=watched.what, why=str(loaded))
        else:
            self._telemetry.reloaded(watched.what, "ok")
            log.info("reloaded", file=watched.what, **changes)

    def _stamps(self, watched: Watched[Loaded]) -> list[Hashable]:
        return [self._stamp(path) for path in watched.paths]


def _loaded(watched: Watched[Loaded]) -> Loaded:
    """What is loaded. InvalidFileError for every error: one of a file must not keep others from being reloaded."""
    try:
        return watched.load()
    except InvalidFileError:
        raise
    except Exception as error:  # noqa: BLE001 - told as the file's
        raise _unusable(watched, error) from None


def _unusable(watched: Watched[Loaded], error: Exception) -> InvalidFileError:
    """The error for one that was not expected. Its type only: its text may quote the file."""
    files = ", ".join(map(str, watched.paths))
    return InvalidFileError(f"{files}: cannot be used ({type(error).__name__})")
