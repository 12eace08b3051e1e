"""Recorder of requests, for tests to inspect; bounded.

Only this module stores request bodies. Signatures and tokens are masked here too.
"""

import re
import threading
from collections import deque
from dataclasses import asdict, dataclass, field

from docpreview_emulator.model import NO_CALLBACK

MOST_REPLY = 4000
_SIGNATURE = re.compile(r"(q-signature=)[0-9a-fA-F]+")
_SIGN = re.compile(r"(?<![^?&;])(sign=)[^&<\s]+")
_TOKEN = re.compile(r"(x-c(?:os|i)-security-token=)[^&<\s]+", re.IGNORECASE)
_NAME = r"(?:[\w.-]+:)?DocPassword\b"
_PASSWORD = re.compile(rf"(<{_NAME})(?!\s*/>|\s*></)(?:.*?(?=</{_NAME})|.*)", re.DOTALL)
_ALL_TO_THE_LAST_PASSWORD = re.compile(_PASSWORD.pattern.replace(".*?", ".*").encode(), re.DOTALL)
_ADDRESS = re.compile(r"(<(?:[\w.-]+:)?(CallBack|Url)\b[^>]*(?<!/)>)(.*?)(</(?:[\w.-]+:)?\2\b|\Z)", re.DOTALL)
_ORIGIN = re.compile(
    r"\s*([A-Za-z]+://)(?:[^/?#@<\s]*@)?([^/?#@:<\[\]\s]+(?::\d*)?|\[[^\]]*\](?::\d*)?)(?:[/?#].*)?\s*", re.DOTALL
)
_TOKEN_HEADERS = {"x-cos-security-token", "x-ci-security-token"}


@dataclass(slots=True)
class RequestRecord:
    """One request to the cloud's hosts. `body` is stored for document jobs, not for objects.

    `status` is None while the request is in flight and when its connection was dropped.
    """

    time: float
    operation: str
    method: str
    host: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""
    status: int | None = None
    error_code: str | None = None
    fault: str | None = None
    job_id: str | None = field(default=None)
    """The job that this request created or read."""

    signature: str = ""
    """`signature valid`, or why it was refused; empty while it has not been checked, as when a fault came before."""

    reply: str = ""
    """The document that was replied, cut to MOST_REPLY characters; empty for the bytes of objects."""

    def as_dict(self) -> dict[str, object]:
        """The record as a JSON object; addresses of callbacks, which are whole in `body`, are masked in it."""
        return {**asdict(self), "body": masked_text(self.body.decode(errors="replace"))}


def masked_query(query: str) -> str:
    """A query string without its secrets."""
    return _TOKEN.sub(r"\1***", _SIGNATURE.sub(r"\1***", _SIGN.sub(r"\1***", query)))


def masked_body(body: bytes) -> bytes:
    """The body of a request without the passwords of documents, however it may quote them.

    Nothing is left of a body whose encoding has zero bytes, such as UTF-16.
    """
    return b"***" if b"\0" in body else _ALL_TO_THE_LAST_PASSWORD.sub(rb"\1>***", body)


def masked_text(text: str) -> str:
    """A body or reply without passwords of documents, signatures, and what is secret in addresses of callbacks."""
    return _ADDRESS.sub(_without_secret, _PASSWORD.sub(r"\1>***", masked_query(text)))


def masked_address(address: str) -> str:
    """Scheme and host of an address; its user, path and query may be secrets. `no`, which is none, stays."""
    if address.strip() in {"", NO_CALLBACK}:
        return address
    origin = _ORIGIN.fullmatch(address)
    return f"{origin[1]}{origin[2]}/***" if origin else "***"


def _without_secret(element: re.Match[str]) -> str:
    opening, _, content, closing = element.groups()
    address = content.strip().removeprefix("<![CDATA[").removesuffix("]]>")
    if not closing and "/" not in address.partition("://")[2]:
        return f"{opening}***"  # the text was cut there: what looks like a host may be a user and a password
    return f"{opening}{masked_address(address)}{closing}"


def masked_headers(headers: list[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name, without their secrets."""
    pairs = ((name.lower(), value) for name, value in headers)
    return {name: "***" if name in _TOKEN_HEADERS else _SIGNATURE.sub(r"\1***", value) for name, value in pairs}


class Recorder:
    """The newest requests, oldest first; safe to read from any thread."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._records: deque[RequestRecord] = deque(maxlen=limit)
        self.discarded = 0
        """Number of records that were cleared or made place for newer ones."""

    def add(self, record: RequestRecord) -> None:
        """Record a request; its outcome may be filled in later."""
        with self._lock:
            self.discarded += len(self._records) == self._records.maxlen
            self._records.append(record)

    def all(self) -> list[RequestRecord]:
        """The recorded requests."""
        with self._lock:
            return list(self._records)

    def clear(self) -> None:
        """Discard all records."""
        with self._lock:
            self.discarded += len(self._records)
            self._records.clear()
