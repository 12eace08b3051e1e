"""What a process knew of the store of creates, kept in a file outside of it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

import structlog

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger("docpreview_gateway.creates")


class Remembered(NamedTuple):
    """What a process knew of the store, kept outside of it."""

    generation: str = ""
    seq: int = 0


class StoreMemory:
    """Keeps `Remembered` in a file, so that a restart does not forget it. None: in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.value = self._read()

    def keep(self, value: Remembered) -> None:
        """Remember this. A file that cannot be written is told once a change: what is in memory still counts."""
        self.value = value
        if self._path is None:
            return
        try:
            # A name of its own for each process: workers share the file.
            new = self._path.with_suffix(f".{os.getpid()}")
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(value._asdict(), file)
            new.replace(self._path)
        except OSError as error:
            log.warning("what is known of the store of creates cannot be kept", path=str(self._path), error=str(error))

    def _read(self) -> Remembered:
        if self._path is None or not self._path.exists():
            return Remembered()
        try:
            found = json.loads(self._path.read_text())
            return Remembered(str(found["generation"]), int(found["seq"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("what was known of the store of creates cannot be read", path=str(self._path), error=str(error))
            return Remembered()
