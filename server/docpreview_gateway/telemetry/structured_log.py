"""Logs: JSON lines, or coloured lines in a terminal."""

from __future__ import annotations

import errno
import logging
import re
import sys
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping
    from typing import TextIO

MOST_OF_A_KIND = 10
KIND_SECONDS = 60.0
"""Rate limit of warnings and errors with the same event, and of libraries' with the same logger."""

MOST_TEXT = 500

_SAMPLED = frozenset({"warning", "error", "critical"})
_PLACEHOLDER = re.compile(r"%(?:\([^)]*\))?[-#0 +]*[0-9*]*(?:\.[0-9*]+)?[hlL]?([a-zA-Z%])")


class Sampling:
    """A processor that limits the lines of each event, and adds the number of dropped ones to the next line."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._kinds: dict[tuple[str, Any], tuple[float, int]] = {}

    def __call__(self, _logger: Any, name: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401
        """The entry, or DropEvent. Events and loggers are constants of the code, so the table stays small."""
        if name not in _SAMPLED:
            return entry
        now, kind = self._now(), (str(entry.get("event")), entry.get("logger"))
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
    """Writes what libraries log as lines of this log, without any text that may be a caller's or the cloud's.

    Libraries quote what they read, such as a whole `authorization` value with one wrong byte. So a line has the
    library's own words only where these are known to be constant: the template, when its arguments come apart from it.
    `...` stands for each argument.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        fields: dict[str, Any] = {"text": _template(record), "where": f"{record.module}.{record.funcName}"}
        if isinstance(record.msg, BaseException):
            fields["error"] = type(record.msg).__name__
        if record.exc_info and record.exc_info[0]:
            fields["exc_info"] = record.exc_info
        structlog.get_logger().log(record.levelno, "log line of a library", logger=record.name, **fields)


def _template(record: logging.LogRecord) -> str:
    if not record.args or not isinstance(record.msg, str):
        return ""
    return _PLACEHOLDER.sub(lambda found: "%" if found[1] == "%" else "...", record.msg[:MOST_TEXT])


def without_messages(_logger: Any, _name: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401
    """A processor that renders `exc_info` without the messages of exceptions: they quote what could not be read."""
    error: object = entry.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    elif error is True:
        error = sys.exception()
    if isinstance(error, BaseException):
        entry["exception"] = "\n".join(_shown(error))
    return entry


def _shown(error: BaseException) -> Iterator[str]:
    """The exception and those that led to it, the first one first."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _shown(before)
        yield "which led to:"
    yield "Traceback (most recent call last):"
    yield from "".join(traceback.format_tb(error.__traceback__)).splitlines()
    kind = type(error)
    number = f" {errno.errorcode.get(error.errno or 0, '')}" if isinstance(error, OSError) else ""
    yield (kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}") + number
    for inner in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        yield from ("among them:", *_shown(inner))


def _on_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Log an error that cannot be raised, such as one in a callback of gRPC. Python would print its message."""
    error = unraisable.exc_value
    structlog.get_logger().error("an error that could not be raised", exc_info=error)


def configure(level: str, *, json_lines: bool | None = None) -> None:
    """Set up logging to stderr. `json_lines` None: JSON unless stderr is a terminal.

    Third-party libraries log from WARNING on. Tracebacks have no messages: those quote callers' bytes.
    """
    as_json = not sys.stderr.isatty() if json_lines is None else json_lines
    structlog.configure(
        processors=[
            Sampling(),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            without_messages,
            structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        # In one write with its end: without buffers, as in the image, those of several workers would be in one line.
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", LossyStderr())),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[LibraryLines()], force=True)
    sys.unraisablehook = _on_unraisable
