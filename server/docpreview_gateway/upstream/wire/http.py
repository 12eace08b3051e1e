"""HTTP requests and replies as values."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from docpreview_gateway.model.errors import ReplyTooLarge, bad_response

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_REPLY_BYTES = 8 * 1024 * 1024
"""Cap on a reply's body, inflated too. The largest single job (5000 pages of a spreadsheet) is about 0.8 MB."""

_GZIP = 16 + zlib.MAX_WBITS

_LATEST = 32_503_680_000.0
"""The end of the year 2999, in Unix seconds: so far from the last year of dates that no sum of times overflows."""


@lru_cache(maxsize=4096)
def percent_encode(text: str) -> str:
    """UTF-8 percent-encoding that leaves only `A-Z a-z 0-9 - _ . ~`, as the signature demands (document 436/7778)."""
    return quote(text, safe="-_.~")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request to the cloud. `path` and `query` are decoded; header names are lower case.

    `host` is the Host that is sent and signed; the transport may connect elsewhere. An `unrepeatable` request (a
    create) is sent on a new connection, so that no stale keep-alive connection can lose it.
    """

    method: str
    host: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    unrepeatable: bool = False

    @property
    def target(self) -> str:
        """Path and query, percent-encoded as they are sent."""
        path = "/".join(map(percent_encode, self.path.split("/")))
        if not self.query:
            return path
        return path + "?" + "&".join(f"{percent_encode(name)}={percent_encode(value)}" for name, value in self.query)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A reply of the cloud. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@lru_cache(maxsize=64)  # all replies of a second have the same one, and reading it takes as long as a small reply
def unix_time(date: str) -> float | None:
    """The Unix time in a `Date` header, in whole seconds; None when it has no time of the years 1970 to 2999."""
    try:
        moment = parsedate_to_datetime(date)
        # A zone of "-0000" is UTC too (RFC 5322, section 3.3); without one the machine's own would be taken.
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if 0.0 <= seconds < _LATEST else None


def inflated(body: bytes, encoding: str) -> bytes:
    """The body of a reply with this `Content-Encoding`: gzip is inflated, though it was not asked for.

    ReplyTooLarge past the cap, UPSTREAM_BAD_RESPONSE for a body that is not gzip. Other encodings are left as they are:
    what reads the body refuses them.
    """
    if not body or encoding.strip().lower() not in {"gzip", "x-gzip"}:
        return body
    inflater = zlib.decompressobj(_GZIP)
    try:
        whole = inflater.decompress(body, MAX_REPLY_BYTES + 1)
    except zlib.error:
        raise bad_response("reply is not gzip, as its header says") from None
    if len(whole) > MAX_REPLY_BYTES:
        raise ReplyTooLarge
    if not inflater.eof or inflater.unused_data:
        raise bad_response("reply in gzip is cut, or goes on after its end")
    return whole
