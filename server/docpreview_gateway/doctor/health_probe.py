"""Readiness probe of a running gateway, by its admin port, for images without a shell or `curl`."""

from __future__ import annotations

import http.client
import ipaddress
from typing import NamedTuple

from docpreview_gateway.telemetry.readiness import LISTEN, SERVER

_MAX_BODY_BYTES = 4096
_EXCLUDED = " (excluded)"
_PATH = "/readyz?verbose&exclude=cloud&exclude=records"
"""As the chart's probe: a restart mends neither the cloud nor the store, and reads go on."""


class Health(NamedTuple):
    """Whether a gateway serves, and in one line what is wrong; `ready` when nothing is."""

    serves: bool
    text: str


def probe(host: str, port: int, *, seconds: float) -> Health:
    """What a gateway's `/readyz` answers within `seconds`. It serves also when the cloud or the store of creates fails.

    The address of all interfaces is probed on loopback. Redirects are not followed.
    """
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=seconds)
    try:
        connection.request("GET", _PATH)
        reply = connection.getresponse()
        body = reply.read(_MAX_BODY_BYTES).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        words = error.strerror if isinstance(error, OSError) else ""
        return Health(serves=False, text=f"no answer from {host}:{port}: {words or _silence(error)}")
    finally:
        connection.close()
    if reply.headers["Server"] != SERVER:
        return Health(
            serves=False, text=f"what answers on {host}:{port} is no gateway; admin_listen is another program's"
        )
    said, *dependencies = body.splitlines() or [""]
    failing = [each.removesuffix(_EXCLUDED) for each in dependencies if " failing: " in each]
    if reply.status != http.HTTPStatus.OK:
        return Health(serves=False, text="; ".join([f"{reply.status}: {said}", *failing]))
    return Health(serves=True, text="; ".join(["serving", *failing]) if failing else "ready")


def _silence(error: Exception) -> str:
    return "timed out" if isinstance(error, TimeoutError) else "what listens there speaks no HTTP"


def served_address(host: str, port: int, *, seconds: float) -> str | None:
    """The setting `listen` of the gateway that answers on an admin port; None: no gateway does."""
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=seconds)
    try:
        connection.request("GET", "/healthz")
        headers = connection.getresponse().headers
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return (headers[LISTEN] or None) if headers["Server"] == SERVER else None


def _reachable(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 - the version of IP
