"""Fetches JWKS documents over HTTP, by aiohttp."""

from __future__ import annotations

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
        raise FetchError(type(error).__name__) from None
    return bytes(body)
