"""Logs: JSON lines, or coloured lines in a terminal."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import TextIO

MOST_OF_A_KIND = 10
KIND_SECONDS = 60.0
"""Of warnings and errors with the same words, so many are shown in so many seconds."""

_SAMPLED = frozenset({"warning", "error", "critical"})


class Sampling:
    """A processor that shows no more than so many lines of a kind, and with the next one how many were left out."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._kinds: dict[str, tuple[float, int]] = {}

    def __call__(self, _logger: Any, name: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401
        """The entry, or DropEvent. Kinds are the words in our own code, which are few."""
        if name not in _SAMPLED:
            return entry
        now, kind = self._now(), str(entry.get("event"))
        begun, count = self._kinds.get(kind, (now, 0))
        if now - begun >= KIND_SECONDS:
            if count > MOST_OF_A_KIND:
                entry["repeated"] = count - MOST_OF_A_KIND
            begun, count = now, 0
        self._kinds[kind] = begun, count + 1
        if count >= MOST_OF_A_KIND:
            raise structlog.DropEvent
        return entry


class LossyStderr:
    """stderr as it is now. When it takes no more (a full disk) lines are lost: logs never stop the gateway."""

    def write(self, text: str) -> int:
        """Never raises."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Never raises."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def configure(level: str, *, json_lines: bool | None = None) -> None:
    """Send the process's logs to stderr. `json_lines` None: JSON unless stderr is a terminal.

    Third-party libraries log from WARNING on: their INFO lines quote URLs with signatures in them.
    """
    as_json = not sys.stderr.isatty() if json_lines is None else json_lines
    structlog.configure(
        processors=[
            Sampling(),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", LossyStderr())),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
