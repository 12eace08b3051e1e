"""Logs: JSON lines, or coloured lines in a terminal."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(level: str, *, json_lines: bool | None = None) -> None:
    """Send the process's logs to stderr. `json_lines` None: JSON unless stderr is a terminal.

    Third-party libraries log from WARNING on: their INFO lines quote URLs with signatures in them.
    """
    as_json = not sys.stderr.isatty() if json_lines is None else json_lines
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
