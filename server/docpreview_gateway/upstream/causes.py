"""Why there is no connection, or no reply that is HTTP, in short words without addresses: callers see them too."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from docpreview_gateway.model.errors import UpstreamError, bad_response

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPIRED = "the certificate has expired, by this machine's clock"
NOT_YET = "the certificate is not valid yet, by this machine's clock"
UNTRUSTED = "the certificate is not of a trusted authority"
OTHER_NAME = "the certificate is for another name"
NO_TLS = "what answers there speaks no TLS"
OLD_TLS = "the TLS version of the server is too old"

_CERTIFICATES = {
    9: NOT_YET,
    10: EXPIRED,
    2: UNTRUSTED,
    18: UNTRUSTED,
    19: UNTRUSTED,
    20: UNTRUSTED,
    21: UNTRUSTED,
    62: OTHER_NAME,
    64: OTHER_NAME,
}
"""By OpenSSL's code of a refused certificate."""

_HANDSHAKES = {
    "WRONG_VERSION_NUMBER": NO_TLS,
    "RECORD_LAYER_FAILURE": NO_TLS,
    "HTTP_REQUEST": NO_TLS,
    "UNSUPPORTED_PROTOCOL": OLD_TLS,
    "TLSV1_ALERT_PROTOCOL_VERSION": OLD_TLS,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the server refuses the TLS handshake",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server asks for a client certificate",
    "UNEXPECTED_EOF_WHILE_READING": "closed in the TLS handshake",
}
"""By OpenSSL's name of a failed handshake."""

_SSL_FRAME = re.compile(r"^\[[^]]*\] *| *\(_ssl\.c:\d+\)$")
"""What Python writes around OpenSSL's fixed text."""

_NAMES = {
    socket.EAI_NONAME: "name not found",
    socket.EAI_NODATA: "name not found",
    socket.EAI_AGAIN: "no answer of the name server",
}

_ERRNO = re.compile(r"\[Errno (\d+)\]")

_NOT_HTTP = {
    "Duplicate Content-Length": "two lengths",
    "Content-Length can't be present with Transfer-Encoding": "a length and chunks",
    "Transfer-Encoding can't be present with Content-Length": "a length and chunks",
    "Expected HTTP/, RTSP/ or ICE/": "it does not begin as HTTP",
}
"""Words for the commonest of the parser's. The others are fixed texts too, such as "Invalid header value char"."""


@contextmanager
def step(late: str) -> Iterator[None]:
    """A step of connecting; `late` is why there is no connection when time runs out in it."""
    try:
        yield
    except asyncio.CancelledError as error:
        error.add_note(late)
        raise


def of_connecting(error: BaseException) -> str:
    """Why a connection could not be made, or broke."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return of_certificate(error)
    if isinstance(error, ssl.SSLError):
        known = _HANDSHAKES.get(getattr(error, "reason", None) or "")
        return known or f"TLS failed: {_SSL_FRAME.sub('', str(error.args[-1]))}"
    if isinstance(error, socket.gaierror):
        return _NAMES.get(error.errno or 0, "name cannot be resolved")
    if isinstance(error, UnicodeError):
        return "name is none of a host"
    if isinstance(error, TimeoutError) and not error.args:
        notes: list[str] = getattr(error.__cause__, "__notes__", [])
        return notes[0] if notes else "not in time"
    return _of_system(error)


def of_certificate(error: ssl.SSLCertVerificationError) -> str:
    """Why a certificate is refused."""
    code = getattr(error, "verify_code", 0)
    return _CERTIFICATES.get(code) or f"the certificate is refused (OpenSSL's error {code})"


def _of_system(error: BaseException) -> str:
    """By the system's numbers of an error; the one of several addresses of a host has theirs in its text only."""
    number = getattr(error, "errno", None)
    numbers = [number] if number else [int(found) for found in _ERRNO.findall(str(error))]
    if numbers:
        return " and ".join(dict.fromkeys(os.strerror(each).lower() for each in numbers))
    # Only TLS reports a connection that was closed without the system's number.
    return "closed in the TLS handshake" if isinstance(error, ConnectionError) else "it failed"


def not_http(what: str) -> UpstreamError:
    """UPSTREAM_BAD_RESPONSE for a reply that breaks a rule of HTTP; `what` may be the parser's text."""
    words = _NOT_HTTP.get(what, what)
    if not words.startswith(("Content-", "Transfer-")):
        words = words[:1].lower() + words[1:]
    return bad_response(f"the reply is not HTTP: {words}")
