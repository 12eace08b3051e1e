"""Readiness probe of a running gateway, by its admin port, for images without a shell or `curl`."""

from __future__ import annotations

import http.client
import ipaddress

from docpreview_gateway.telemetry.readiness import LISTEN, SERVER

_MAX_BODY_BYTES = 200
_PATH = "/readyz?exclude=cloud&exclude=records"
"""As the chart's probe: a restart mends neither the cloud nor the store, and reads go on."""


def probe(host: str, port: int, *, seconds: float) -> str | None:
    """None when a gateway's `/readyz` answers 200 within `seconds`, else the problem in one line.

    The address of all interfaces is probed on loopback. Redirects are not followed.
    """
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=seconds)
    try:
        connection.request("GET", _PATH)
        reply = connection.getresponse()
        body = reply.read(_MAX_BODY_BYTES).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        words = error.strerror if isinstance(error, OSError) else ""
        return f"no answer from {host}:{port}: {words or _silence(error)}"
    finally:
        connection.close()
    if reply.headers["Server"] != SERVER:
        return f"what answers on {host}:{port} is no gateway; admin_listen is another program's"
    return None if reply.status == http.HTTPStatus.OK else f"{reply.status}: {body}"


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
