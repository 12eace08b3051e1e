"""The cloud's request signature ("q-sign", HMAC-SHA1), as a pure function of request, key and time window.

Source: vendor document 436/7778 (Request Signature). Vectors: tests/vectors/signing.json.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha1
from typing import TYPE_CHECKING

from docpreview_gateway.upstream.wire.http import HttpRequest, percent_encode

if TYPE_CHECKING:
    from collections.abc import Iterable

CLOCK_SLACK = 60
"""Seconds by which the window begins before now, for a cloud whose clock is behind ours."""

LIFETIME = 600
"""Seconds after which the signature of a request to the job API expires."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key pair of the cloud; `token` is that of temporary keys, otherwise empty. `repr` shows the id only."""

    secret_id: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Window:
    """The validity of a signature, in Unix seconds."""

    begin: int
    end: int

    @classmethod
    def around(cls, now: float, *, lifetime: int = LIFETIME) -> Window:
        """From CLOCK_SLACK seconds before `now` to `lifetime` seconds after it."""
        return cls(int(now) - CLOCK_SLACK, int(now) + lifetime)

    @classmethod
    def shared(cls, now: float, *, lifetime: int) -> Window:
        """The same for all instants of a stretch of time, and valid for `lifetime` after each of them.

        The stretch, and so the time that it is longer, is a sixth of `lifetime`.
        """
        stretch = max(1, lifetime // 6)
        begin = int(now) // stretch * stretch
        return cls(begin - CLOCK_SLACK, begin + stretch + lifetime)

    def __str__(self) -> str:
        return f"{self.begin};{self.end}"


def sign(request: HttpRequest, credentials: Credentials, window: Window) -> HttpRequest:
    """The request with its host, token and `authorization` headers.

    The signature covers all headers and query parameters of the request, and the host and token headers.
    """
    headers = {"host": request.host, **request.headers}
    if credentials.token:
        headers["x-ci-security-token"] = credentials.token
    signed = replace(request, headers=headers)
    headers["authorization"] = authorization(signed, credentials, window)
    return signed


def presign(request: HttpRequest, credentials: Credentials, window: Window) -> HttpRequest:
    """The request with its signature in the query, for URLs that are given to others.

    The host and all headers of the request are signed, and have to be sent with it. Without the host the URL would open
    the same key in other buckets of the account.
    """
    query = request.query
    if credentials.token:
        query = (*query, ("x-cos-security-token", credentials.token))
    signed = replace(request, headers={"host": request.host, **request.headers}, query=query)
    fields = _signature_fields(signed, credentials, window)
    return replace(signed, query=(*query, *fields))


def authorization(request: HttpRequest, credentials: Credentials, window: Window) -> str:
    """The value of the `authorization` header, which signs all headers of the request."""
    return "&".join(f"{name}={value}" for name, value in _signature_fields(request, credentials, window))


def _signature_fields(request: HttpRequest, credentials: Credentials, window: Window) -> tuple[tuple[str, str], ...]:
    key_time = str(window)
    parameter_names, parameters = _canonical(request.query)
    header_names, headers = _canonical(request.headers.items())
    http_string = f"{request.method.lower()}\n{request.path}\n{parameters}\n{headers}\n"
    digest = sha1(http_string.encode()).hexdigest()  # noqa: S324 - the vendor's algorithm
    signature = _hmac_sha1(_sign_key(credentials.secret_key, key_time), f"sha1\n{key_time}\n{digest}\n")
    return (
        ("q-sign-algorithm", "sha1"),
        ("q-ak", credentials.secret_id),
        ("q-sign-time", key_time),
        ("q-key-time", key_time),
        ("q-header-list", header_names),
        ("q-url-param-list", parameter_names),
        ("q-signature", signature),
    )


def _canonical(pairs: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Names joined by `;` and `name=value` joined by `&`, sorted by the encoded lower-case name."""
    encoded = sorted((percent_encode(name).lower(), percent_encode(value)) for name, value in pairs)
    return ";".join(name for name, _ in encoded), "&".join(f"{name}={value}" for name, value in encoded)


@lru_cache(maxsize=8)  # all requests of a second have the same one, and it takes as long as the signature
def _sign_key(secret_key: str, key_time: str) -> bytes:
    return _hmac_sha1(secret_key.encode(), key_time).encode()


def _hmac_sha1(key: bytes, message: str) -> str:
    return hmac.digest(key, message.encode(), "sha1").hex()
