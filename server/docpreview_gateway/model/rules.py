"""Validation rules for single fields. A rule takes a value and returns what is wrong with it, or None."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML 1.0 document can contain, not even as references (W3C XML 1.0, production 2)."""

Rule: TypeAlias = Callable[[Any], str | None]

MAX_PAGE = 5000
"""The largest page number that the cloud takes (vendor document 460/46942)."""

MAX_KEY_BYTES = 850
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)
_MAX_NANOS = 999_999_999
_LAST_SECOND = 253_402_271_999
"""The end of the year 9999 in the cloud's time zone, in which times are sent. Unix seconds."""


def matches(pattern: str, description: str) -> Rule:
    """A string that matches all of `pattern`, else `description`."""
    compiled = re.compile(pattern, re.ASCII)
    return lambda value: None if compiled.fullmatch(value) else description


def between(low: int, high: int) -> Rule:
    """A number from `low` to `high`."""
    return lambda value: None if low <= value <= high else f"must be between {low} and {high}"


def at_least(low: int) -> Rule:
    """A number from `low`."""
    return lambda value: None if value >= low else f"must be at least {low}"


def at_most(length: int) -> Rule:
    """A string of at most `length` characters that pass `characters`."""

    def check(value: str) -> str | None:
        if len(value) > length:
            return f"must have at most {length} characters"
        return characters(value)

    return check


def characters(value: str) -> str | None:
    """No control characters, nor characters that XML cannot contain or would change."""
    if _CONTROL.search(value) or UNWRITABLE.search(value):
        return "must not contain control characters or characters that XML cannot contain"
    return None


def object_key(value: str) -> str | None:
    """A key that names the same object to every component on the way (vendor document 436/13324: 1 to 850 bytes)."""
    if len(value.encode()) > MAX_KEY_BYTES:
        return f"must have at most {MAX_KEY_BYTES} bytes of UTF-8"
    if not value.strip("/"):
        return "must name an object"
    if any(part in {".", ".."} for part in value.split("/")):
        return "must not have . or .. as a part of the path"
    if value != value.strip():
        return "must not begin or end with white space"
    return characters(value)


def upload_key(value: str) -> str | None:
    """A key of an object that is made by an upload, which may have `${UploadId}` in it."""
    if value.startswith("/"):
        return "must not begin with /"
    if "\\" in value:
        return "must not have a backslash: folders are parted by /"
    return object_key(value)


def bytes_of(length: int) -> Rule:
    """Exactly so many bytes."""
    return lambda value: None if len(value) == length else f"must have {length} bytes"


def page_ranges(value: str) -> str | None:
    """Numbers and ranges, ascending, without overlap: `1,2-4,7` (vendor document 460/46942)."""
    if len(value) > 1000:  # noqa: PLR2004 - named in the contract
        return "must have at most 1000 characters"
    last = 0
    for part in value.split(","):
        match = _RANGE.fullmatch(part)
        if not match:
            return "must be page numbers and ranges joined by commas, such as 1,2-4,7"
        begin, end = int(match[1]), int(match[2] or match[1])
        if not last < begin <= end:
            return "must be ascending, without overlap, and begin at page 1 or later"
        last = end
    return None


def pages_in(value: str) -> int:
    """Number of pages in valid page ranges."""
    bounds = (part.split("-") for part in value.split(","))
    return sum(int(bound[-1]) - int(bound[0]) + 1 for bound in bounds)


def known(values: Iterable[int]) -> Rule:
    """One of the contract's enum values."""
    numbers = frozenset(values)
    return lambda value: None if value in numbers else "is not a value of this contract"


def duration(low: float, high: float) -> Rule:
    """A duration from `low` to `high` seconds."""

    def check(value: Duration) -> str | None:
        seconds = value.seconds + value.nanos / 1e9
        if low <= seconds <= high and abs(value.nanos) <= _MAX_NANOS:
            return None
        return f"must be between {low:g} s and {high:g} s"

    return check


def timestamp(value: Timestamp) -> str | None:
    """A time of the years 1970 to 9999."""
    if 0 <= value.seconds <= _LAST_SECOND and 0 <= value.nanos <= _MAX_NANOS:
        return None
    return "must be a time between the years 1970 and 9999"


def whole_seconds(value: Timestamp) -> str | None:
    """A time of the years 1970 to 9999 without a fraction of a second."""
    return timestamp(value) or (value.nanos and "must be in whole seconds: the cloud knows no fractions") or None


def each(rule: Rule, *, at_least: int = 0, limit: int) -> Rule:
    """`at_least` to `limit` items that each pass `rule`."""

    def check(values: Any) -> str | None:  # noqa: ANN401 - repeated fields of any kind
        if not at_least <= len(values) <= limit:
            return f"must have {at_least} to {limit} items"
        return next((f"item {index}: {wrong}" for index, value in enumerate(values) if (wrong := rule(value))), None)

    return check
