"""The guard of the emulator's own routes and page, which need no signature, against other pages in a browser.

A page whose name is bound to this machine's address (DNS rebinding) sends its own name as `Host`. A page of another
origin sends it as `Origin`, or its browser says `Sec-Fetch-Site`. Other clients send neither.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from aiohttp import web

from docpreview_emulator.hosts import LOOPBACK_NAMES, without_port

_OWN = {None, "same-origin", "none"}


class Guard:
    """Lets requests pass that name this machine: by loopback, by the address they came to, or by one of `names`."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {*LOOPBACK_NAMES, *(name.lower() for name in names)}

    def refusal(self, request: web.Request) -> web.Response | None:
        """The answer to a request that does not pass."""
        host = request.headers.get("Host", "")
        name = without_port(host).strip("[]").lower()
        if name not in self._names and name != _local_address(request):
            return _refused(
                f"Host {host[:100]!r} does not name this machine: call localhost or 127.0.0.1, "
                "or start the emulator with --control-host and this name"
            )
        origin = request.headers.get("Origin")
        is_foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        # A link on another page may lead here; its browser navigates.
        is_embedded = request.headers.get("Sec-Fetch-Mode") != "navigate"
        if is_foreign or (is_embedded and request.headers.get("Sec-Fetch-Site") not in _OWN):
            return _refused(
                "this comes from a page of another origin: call the emulator from its own page, or not from a browser"
            )
        return None


def _local_address(request: web.Request) -> str:
    transport = request.transport
    address = transport and transport.get_extra_info("sockname")
    return str(address[0]) if address else ""


def _refused(error: str) -> web.Response:
    return web.json_response({"error": error}, status=403)
