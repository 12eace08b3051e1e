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
"""Rate limit of warnings and errors with the same event."""

MOST_TEXT = 500

_SAMPLED = frozenset({"warning", "error", "critical"})


class Sampling:
    """A processor that limits the lines of each event, and adds the number of dropped ones to the next line."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._kinds: dict[str, tuple[float, int]] = {}

    def __call__(self, _logger: Any, name: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401
        """The entry, or DropEvent. Events are constants of the code, so the table stays small."""
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
    """The present stderr. Errors, such as a full disk, lose lines: logs never stop the gateway."""

    def write(self, text: str) -> int:
        """Write, without raising."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, without raising."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()


class LibraryLines(logging.Handler):
    """Writes what libraries log as lines of this log, MOST_TEXT characters of each: some quote callers' bytes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        fields = {"exc_info": record.exc_info} if record.exc_info and record.exc_info[0] else {}
        text = record.getMessage()[:MOST_TEXT]
        structlog.get_logger().log(record.levelno, "log line of a library", logger=record.name, text=text, **fields)


def configure(level: str, *, json_lines: bool | None = None) -> None:
    """Set up logging to stderr. `json_lines` None: JSON unless stderr is a terminal.

    Third-party libraries log from WARNING on: their INFO lines hold signed URLs.
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
    logging.basicConfig(level=logging.WARNING, handlers=[LibraryLines()], force=True)
