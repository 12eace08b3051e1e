"""The way to the cloud through a company's proxy: a tunnel by HTTP CONNECT, in which TLS is the target's own."""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import aiohappyeyeballs

from docpreview_gateway.upstream import causes
from docpreview_gateway.upstream.ports import ProxyError

if TYPE_CHECKING:
    import socket

    from docpreview_gateway.upstream.http_pool import Names, Origin

FORM = "must be http://[user:password@]host:port, such as http://proxy.example.com:3128"
MAX_HEAD_BYTES = 16 * 1024
"""Cap on the proxy's answer to CONNECT."""

_NEXT_ADDRESS_SECONDS = 0.25
"""Wait before the next address of a host is tried beside the one before (RFC 8305)."""

_WRONG_CHARACTERS = re.compile(r"\s|%(?![0-9A-Fa-f]{2})")
_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r\n")
_OK, _REDIRECTED = 200, 300
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy's host and port, and the value of `Proxy-Authorization` (empty: none), which `repr` does not show."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @property
    def place(self) -> str:
        """Host and port, as messages name the proxy."""
        return _authority(self.host, self.port)


def parse(text: str) -> Proxy:
    """Parse the address of a proxy. ValueError names the form, and quotes nothing of `text`: it may hold a password."""
    text = text.rstrip("\r\n")
    if text.lower().startswith("https:"):
        raise ValueError(f"{FORM}: TLS to the proxy itself is not supported; TLS to the cloud runs inside its tunnel")
    if _WRONG_CHARACTERS.search(text):
        raise ValueError("has a blank, or a % without two hexadecimal digits; write %20 for a blank, and %25 for %")
    try:
        url = urlsplit(text)
        login, _, place = url.netloc.rpartition("@")
        user, _, password = (unquote(part, errors="strict") for part in login.partition(":"))
    except ValueError:
        raise ValueError(f"is no URL; special characters of a password must be %-encoded. It {FORM}") from None
    found = _PLACE.fullmatch(place)
    more = url.path.strip("/") or url.query or url.fragment
    if url.scheme != "http" or found is None or not 0 < int(found["port"]) < 2**16 or more:
        raise ValueError(f"{FORM}; special characters of a password must be %-encoded")
    if ":" in user:
        raise ValueError("has a user with a colon, which no proxy can tell from the password's")
    given = base64.b64encode(f"{user}:{password}".encode()).decode() if login else ""
    return Proxy(found["host"].strip("[]"), int(found["port"]), given and f"Basic {given}")


async def open_socket(names: Names, origin: Origin, proxy: Proxy | None) -> socket.socket:
    """A socket on which an origin can be spoken to: connected to it, or by a tunnel. OSError, UnicodeError, ProxyError.

    The name of an origin behind a proxy is for the proxy to resolve. The caller limits the time.
    """
    if proxy is None:
        return await _connected(names, origin.host, origin.port)
    if not _PLACE.fullmatch(target := _authority(origin.host, origin.port)):
        raise UnicodeError  # no name of a host: it could end the line of the request for the tunnel
    try:
        sock = await _connected(names, proxy.host, proxy.port)
    except (OSError, UnicodeError) as error:
        cause = causes.of_connecting(error)
        raise ProxyError(f"no connection to the proxy {proxy.place}: {cause}", timed_out=_is_late(error)) from error
    try:
        with causes.step("it does not answer"):
            await _tunnel(sock, proxy, target)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connected(names: Names, host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    with causes.step("no answer of the name server in time"):
        addresses = await names.addresses(host, port)
    with causes.step("no answer to the connect in time"):
        return await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, loop=loop)


async def _tunnel(sock: socket.socket, proxy: Proxy, target: str) -> None:
    """Ask for a tunnel to a target. ProxyError unless there is one."""
    try:
        head = await _asked(sock, proxy, target)
    except OSError as error:
        raise ProxyError(f"the connection to the proxy {proxy.place} broke", timed_out=_is_late(error)) from error
    if not head:
        raise ProxyError(f"the proxy {proxy.place} closed the connection when it was asked for {target}")
    status = _STATUS.match(head)
    if status is None or len(head) > MAX_HEAD_BYTES:
        raise ProxyError(f"what answers as the proxy {proxy.place} is no HTTP proxy")
    if not _OK <= int(status[1]) < _REDIRECTED:
        raise ProxyError(_refusal(proxy, target, int(status[1])))
    if head.index(_END) + len(_END) != len(head):
        # Neither TLS nor HTTP lets a server speak first: nobody would know whose words these are.
        raise ProxyError(f"the proxy {proxy.place} said more than it was asked")


async def _asked(sock: socket.socket, proxy: Proxy, target: str) -> bytes:
    """The head of the proxy's answer to CONNECT; as much as came if that is no head, nothing if it hangs up."""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode())
    head = b""
    while _END not in head and len(head) <= MAX_HEAD_BYTES:
        if not (data := await loop.sock_recv(sock, MAX_HEAD_BYTES)):
            return b""
        head += data
    return head


def _refusal(proxy: Proxy, target: str, status: int) -> str:
    """What the status of a refused tunnel means. The proxy's own words may be anything, and are left out."""
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        wants = "refuses its user or password" if proxy.authorization else "asks for a user and a password"
        return f"the proxy {proxy.place} {wants} (HTTP 407)"
    if status == HTTPStatus.FORBIDDEN:
        return f"the proxy {proxy.place} forbids {target} (HTTP 403)"
    return f"the proxy {proxy.place} opened no tunnel to {target} (HTTP {status})"


def _is_late(error: Exception) -> bool:
    """Whether the kernel gave up waiting."""
    return isinstance(error, TimeoutError)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
