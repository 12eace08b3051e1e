"""Mistakes that validation has found, as lines for operators: each with its path, and none with a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


def problems(error: ValidationError, *, unknown: str) -> list[str]:
    """A line for each mistake; `unknown` is the message for keys that do not exist.

    A list that is too short only because its items are wrong is no mistake of its own.
    """
    found = error.errors(include_input=False, include_url=False)
    inner = {each["loc"][:length] for each in found for length in range(len(each["loc"]))}
    return [
        line
        for each in found
        if each["type"] != "too_short" or each["loc"] not in inner
        for line in _lines(each, unknown)
    ]


def _lines(found: ErrorDetails, unknown: str) -> list[str]:
    where = ".".join(map(str, found["loc"]))
    message = unknown if found["type"] == "extra_forbidden" else found["msg"].removeprefix("Value error, ")
    return [f"{where}: {line}" if where else line for line in message.splitlines()]
