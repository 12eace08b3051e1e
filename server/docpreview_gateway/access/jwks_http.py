"""Fetches JWKS documents over HTTP, by aiohttp."""

from __future__ import annotations

import os
from http import HTTPStatus

import aiohttp

MAX_BYTES = 256 * 1024
TIMEOUT_SECONDS = 5.0


class FetchError(Exception):
    """The document cannot be fetched; the message gives the reason in a few words."""


async def fetch(url: str) -> bytes:
    """The document at `url`, of at most 256 KiB, within 5 s. Redirects are not followed, proxies not used."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.get(url, allow_redirects=False, headers={"accept": "application/json"}) as reply,
        ):
            if reply.status != HTTPStatus.OK:
                raise FetchError(f"status {reply.status}")
            body = bytearray()
            async for chunk in reply.content.iter_any():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise FetchError(f"more than {MAX_BYTES} bytes")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise FetchError(_words(error)) from None
    return bytes(body)


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "the certificate of its host is not trusted, or it speaks no TLS"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {os.strerror(error.os_error.errno or 0)}"
    if isinstance(error, aiohttp.InvalidURL):
        return "it is no URL"
    return f"no answer within {TIMEOUT_SECONDS:.0f} s" if isinstance(error, TimeoutError) else "the connection broke"
