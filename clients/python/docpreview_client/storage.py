"""HTTP to signed addresses, with the standard library, in threads.

A signed address is a secret: no error has it in its text.
"""

import asyncio
import base64
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_CONNECT_WITHIN: Final = 30.0
_IDLE: Final = 60.0
_LONGEST: Final = 1 << 30
_CHUNK: Final = 256 * 1024
_WITH_CONTENT: Final = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")


class NoObject(Exception):  # noqa: N818 - a situation
    """The reply is not the object: something between here and the storage has made it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"something on the way to the storage, such as a proxy, has answered with {what}")


class StorageLost(Exception):  # noqa: N818 - a situation
    """The storage was not reached, or the exchange broke off. Its text names the error, at most with the host."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, ETag and content type (without parameters) of a reply; with 200 and 206 a download is complete."""

    status: int
    etag: str = ""
    content_type: str = ""


class Storage:
    """Connections to the storage, and the threads that use them. `async with` closes both, also amid their work.

    Args:
        workers: How many requests can be made at a time.
        idle: Seconds without a byte after which a connection is lost.
        longest: Bytes that a content has at most whose length the server does not tell.
    """

    def __init__(self, *, workers: int, idle: float = _IDLE, longest: int = _LONGEST) -> None:
        self._idle_for = idle
        self._longest = longest
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="docpreview-storage")
        self._tls = ssl.create_default_context()
        self._lock = Lock()
        self._idle: dict[tuple[str, str], list[HTTPConnection]] = {}
        self._busy: set[HTTPConnection] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Breaks off what still runs."""
        with self._lock:
            self._closed = True
            busy, idle = list(self._busy), [one for some in self._idle.values() for one in some]
        for connection in idle:
            connection.close()
        for connection in busy:
            with suppress(OSError, AttributeError):  # not connected yet: its thread notices that all is closed
                connection.sock.shutdown(socket.SHUT_RDWR)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(
        self, work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """Runs a method of this storage in one of its threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    def put(self, url: str, headers: Mapping[str, str], content: Iterable[bytes]) -> Reply:
        """Puts the content, with exactly these headers.

        Raises:
            StorageLost: There is no reply.
        """
        with self._exchange("PUT", url, headers) as connection:
            whole = all(_sent(connection, chunk) for chunk in content)
            response = _answered(connection)
            if not whole:
                connection.close()
            return Reply(
                response.status, response.headers.get("ETag", ""), _kind(response.headers.get("Content-Type", ""))
            )

    def fetch(self, url: str, part: Path, content_type: str) -> Reply:
        """Gets what is missing of the file `part`.

        Raises:
            StorageLost: The file is not complete: the next attempt goes on from where this one ended.
            NoObject: The reply is of another type than `content_type`, when both are known, is empty, or has no end.
            OSError: The file cannot be written.
        """
        have = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self._exchange("GET", url, headers) as connection:
            response = _answered(connection, with_content=_WITH_CONTENT)
            begin, length = _extent(response)
            if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and length == have:
                return Reply(HTTPStatus.OK)  # all of it was there already
            if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or begin not in {0, have}:
                part.unlink()
                raise StorageLost("another range")
            if response.status not in _WITH_CONTENT and response.status < HTTPStatus.BAD_REQUEST:
                raise NoObject(f"HTTP {response.status}")  # a redirect to a login, most likely
            if response.status not in _WITH_CONTENT:
                return Reply(response.status)
            _check_type(response.headers.get("Content-Type", ""), content_type)
            size = _append(response, part, begin, most=self._longest if length is None else length)
            if length not in {None, size}:
                raise StorageLost("another length")
            if not size:
                part.unlink()
                raise NoObject("nothing")
            return Reply(response.status)

    @contextmanager
    def _exchange(self, method: str, url: str, headers: Mapping[str, str]) -> Iterator[HTTPConnection]:
        """A connection on which the request's head was sent; it is kept for the next one, unless the block fails."""
        address = urlsplit(url)
        origin = (address.scheme, address.netloc)
        connection = self._taken(origin) or self._connection(address)
        with self._lock:
            if self._closed:
                raise StorageLost("closed")
            self._busy.add(connection)
        try:
            self._connect(connection)
            _send_head(connection, method, _target(address, connection), headers, host=address.netloc)
            yield connection
        except BaseException:
            connection.close()
            raise
        finally:
            with self._lock:
                self._busy.discard(connection)
                if self._closed:
                    connection.close()
                elif connection.sock is not None:
                    self._idle.setdefault(origin, []).append(connection)

    def _connect(self, connection: HTTPConnection) -> None:
        is_new = connection.sock is None
        if is_new:
            with _no_secrets(f" at {connection.host}:{connection.port}"):
                connection.connect()
                connection.sock.settimeout(self._idle_for)

    def _taken(self, origin: tuple[str, str]) -> HTTPConnection | None:
        with self._lock:
            idle = self._idle.get(origin)
            return idle.pop() if idle else None

    def _connection(self, address: SplitResult) -> HTTPConnection:
        host = address.hostname or ""
        proxy = None if _is_loopback(host) or proxy_bypass(host) else getproxies().get(address.scheme)
        via = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else None
        peer, port = (via.hostname or "", via.port) if via else (host, address.port)
        if address.scheme != "https":
            return _Plain(peer, port, via)
        connection = HTTPSConnection(peer, port, timeout=_CONNECT_WITHIN, context=self._tls)
        if via:
            connection.set_tunnel(host, address.port, headers=_proxy_headers(via))
        return connection


class _Plain(HTTPConnection):
    """A connection without TLS, to the server or to a proxy."""

    def __init__(self, host: str, port: int | None, via: SplitResult | None) -> None:
        super().__init__(host, port, timeout=_CONNECT_WITHIN)
        self.via = via


@contextmanager
def _no_secrets(place: str = "") -> Iterator[None]:
    """Raises errors of the connection as StorageLost: the text of some has the address, whose query is a secret."""
    try:
        yield
    except (OSError, HTTPException) as error:
        raise StorageLost(type(error).__name__ + place) from None


def _send_head(connection: HTTPConnection, method: str, target: str, headers: Mapping[str, str], *, host: str) -> None:
    via = connection.via if isinstance(connection, _Plain) else None
    own = {} if any(name.lower() == "host" for name in headers) else {"Host": host}
    with _no_secrets():
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in {**own, **headers, **_proxy_headers(via)}.items():
            connection.putheader(name, value)
        connection.endheaders()


def _sent(connection: HTTPConnection, chunk: bytes) -> bool:
    """Whether the server still reads: one that refuses may close before it has everything, and its reply is there."""
    with _no_secrets():
        try:
            connection.send(chunk)
        except (BrokenPipeError, ConnectionResetError):
            return False
    return True


def _answered(connection: HTTPConnection, *, with_content: Container[int] = ()) -> HTTPResponse:
    """The reply; the content of one that has another status is read and dropped."""
    with _no_secrets():
        response = connection.getresponse()
        if response.status not in with_content:
            response.read(_CHUNK)
            if not response.isclosed():
                response.close()
                connection.close()
        return response


def _read(response: HTTPResponse) -> bytes:
    with _no_secrets():
        return response.read(_CHUNK)


def _check_type(found: str, expected: str) -> None:
    kinds = [_kind(found), _kind(expected)]
    if all(kinds) and kinds[0] != kinds[1]:
        raise NoObject(f"{kinds[0]} instead of {kinds[1]}")


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _append(response: HTTPResponse, part: Path, size: int, *, most: int) -> int:
    """Writes the content behind the first `size` bytes of a file, and returns how many it then has."""
    with part.open("ab" if size else "wb") as file:
        while size <= most and (chunk := _read(response)):
            file.write(chunk)
            size += len(chunk)
    if size > most:
        part.unlink()
        raise NoObject(f"more than {most} bytes")
    return size


def _target(address: SplitResult, connection: HTTPConnection) -> str:
    path = (address.path or "/") + (f"?{address.query}" if address.query else "")
    through_proxy = isinstance(connection, _Plain) and connection.via is not None
    return f"{address.scheme}://{address.netloc}{path}" if through_proxy else path


def _proxy_headers(via: SplitResult | None) -> dict[str, str]:
    if via is None or via.username is None:
        return {}
    user = f"{unquote(via.username)}:{unquote(via.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """Where the content begins in the object, and the length of the object; None when the server does not tell."""
    if found := _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "")):
        return int(found[1] or 0), int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
