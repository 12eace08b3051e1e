"""Cross-origin requests of browsers to object hosts, from the origins of a setting. Pure."""

from collections.abc import Sequence

from docpreview_emulator.errors import CloudError
from docpreview_emulator.exchange import Answer, Exchange

_METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD")
_EXPOSED = (
    *("Accept-Ranges", "Content-Length", "Content-Range", "Date", "ETag", "Last-Modified"),
    *("x-cos-hash-crc64ecma", "x-cos-request-id"),
)
_MAX_AGE = 600


def cors_headers(exchange: Exchange, origins: Sequence[str]) -> dict[str, str]:
    """What lets the page that made a request read its answer; none when its origin is not one of these."""
    origin = exchange.header("origin")
    if origin is None or not {"*", origin} & set(origins):
        return {}
    allowed = {"Access-Control-Allow-Origin": "*" if "*" in origins else origin}
    return {**allowed, "Access-Control-Expose-Headers": ", ".join(_EXPOSED), "Vary": "Origin"}


def preflight(exchange: Exchange, origins: Sequence[str]) -> Answer:
    """The answer to the OPTIONS that browsers send first, without a signature.

    Raises:
        CloudError: 403 AccessForbidden: there is no such origin or method.
    """
    if not cors_headers(exchange, origins):
        advice = "This origin is not allowed; the emulator allows those of its option --cors-origin."
        raise CloudError(403, "AccessForbidden", f"CORSResponse: {advice}")
    if exchange.header("access-control-request-method") not in _METHODS:
        raise CloudError(403, "AccessForbidden", f"CORSResponse: The methods are {', '.join(_METHODS)}.")
    headers = {"Access-Control-Allow-Methods": ", ".join(_METHODS), "Access-Control-Max-Age": str(_MAX_AGE)}
    wanted = exchange.header("access-control-request-headers")
    return Answer(headers=headers if wanted is None else {**headers, "Access-Control-Allow-Headers": wanted})
