"""Conditions that a request sets on an object: bytes of it, or that it has or has not changed. Pure."""

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from docpreview_emulator.errors import CloudError
from docpreview_emulator.model import StoredObject

_RANGE = re.compile(r"bytes=([0-9]{0,4000})-([0-9]{0,4000})", re.IGNORECASE)


def read_range(text: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of the one range that is asked for; None: all bytes.

    What is not one range of bytes is ignored, as RFC 9110 has it: other units, several ranges, ends before begins.

    Raises:
        CloudError: 416 InvalidRange: it has no byte of so many.
    """
    match = _RANGE.fullmatch((text or "").strip())
    if match is None or not (match[1] or match[2]):
        return None
    if match[1] and match[2] and int(match[2]) < int(match[1]):
        return None
    first = int(match[1]) if match[1] else max(size - int(match[2]), 0)
    last = min(int(match[2]), size - 1) if match[1] and match[2] else size - 1
    if first > last:
        raise CloudError(416, "InvalidRange", "The requested range is not satisfiable.")
    return first, last


def is_unmodified(stored: StoredObject, header: Callable[[str], str | None], prefix: str = "") -> bool:
    """Whether the client has this object already: by `If-None-Match`, else by `If-Modified-Since`.

    `prefix` comes before the names of the headers.

    Raises:
        CloudError: 412 PreconditionFailed: `If-Match` or else `If-Unmodified-Since` is not met.
    """
    wanted, since = header(f"{prefix}if-match"), _time(header(f"{prefix}if-unmodified-since"))
    if not (_names(wanted, stored) if wanted else since is None or int(stored.modified) <= since):
        raise failed_precondition()
    known, since = header(f"{prefix}if-none-match"), _time(header(f"{prefix}if-modified-since"))
    return _names(known, stored) if known else since is not None and int(stored.modified) <= since


def failed_precondition() -> CloudError:
    """The refusal of a request whose condition is not met."""
    return CloudError(412, "PreconditionFailed", "A precondition of the request is not met.")


def _names(etags: str, stored: StoredObject) -> bool:
    return {"*", stored.etag} & {etag.strip().removeprefix("W/").strip('"') for etag in etags.split(",")} != set()


def _time(text: str | None) -> float | None:
    """Seconds of an HTTP date; a date that cannot be read sets no condition."""
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
