"""Asking a running gateway at its admin port whether it is ready, for images without a shell or `curl`.

It only asks; it neither starts nor changes anything, and follows no redirects.
"""

from __future__ import annotations

import http.client
import ipaddress

_SHOWN = 200


def probe(host: str, port: int, *, seconds: float) -> str | None:
    """None when `/readyz` says ready within `seconds`, else why not, in one line.

    An address that means "all interfaces" is asked on loopback.
    """
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=seconds)
    try:
        connection.request("GET", "/readyz")
        reply = connection.getresponse()
        said = reply.read(_SHOWN).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {host}:{port}: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if reply.status == http.HTTPStatus.OK else f"{reply.status}: {said}"


def _reachable(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 - the version of IP
