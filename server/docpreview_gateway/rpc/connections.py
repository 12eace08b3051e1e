"""The callers' connections of a process, as the kernel knows them: gRPC tells Python nothing of connections.

gRPC closes connections that do not answer it (`CHANNEL_ARGUMENTS`), and new ones beyond its limit: without more, the
strangers who connect first keep everybody else out. So, while most of the limit is used, the connections that have been
silent longest are shut down. Needs Linux; elsewhere there is nothing to see, and nothing is shut down.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CROWDED, ROOMY = 0.75, 0.5
"""Shares of the limit: above the first silent connections are shut down, until the second is reached."""

SILENT_SECONDS = 2.0
"""Seconds without a byte after which a connection without a call counts as silent."""

_DESCRIPTORS = "/proc/self/fd"
_LAST_DATA_RECEIVED = slice(52, 56)
"""Of the kernel's `struct tcp_info`: milliseconds since the last byte came."""

log = structlog.get_logger("docpreview_gateway.rpc")


class _Connection(NamedTuple):
    descriptor: int
    port: int
    """The caller's."""
    silent: float
    """Seconds since the last byte of the caller."""


class Connections:
    """The connections to the port that a process listens on, 0 before `listens_on`; gRPC accepts at most `most`.

    `peers` returns the addresses, in gRPC's notation, of callers whose calls are served: their connections stay.
    """

    def __init__(self, most: int, peers: Callable[[], set[str]], silent_seconds: float = SILENT_SECONDS) -> None:
        self.most = most
        self._peers = peers
        self._silent_seconds = silent_seconds
        self._port = 0
        self.ended = 0
        """Number of connections that were shut down."""

    def listens_on(self, port: int) -> None:
        """The process serves callers on this port from now on."""
        self._port = port

    def count(self) -> int:
        """Number of open connections."""
        return sum(1 for _ in self._open())

    async def check(self) -> None:
        """Shut silent connections down while there are too many; to be repeated every second or so."""
        # Cheap, and enough while the process has few files of any kind.
        if len(_descriptors()) <= CROWDED * self.most:
            return
        found = list(self._open())
        if len(found) <= CROWDED * self.most:
            return
        busy = {_port(peer) for peer in self._peers()}
        silent = [one for one in found if one.silent >= self._silent_seconds and one.port not in busy]
        silent.sort(key=lambda one: one.silent, reverse=True)
        ended = sum(_shut_down(one, self._port) for one in silent[: len(found) - round(ROOMY * self.most)])
        if not ended:
            return
        self.ended += ended
        log.warning("silent connections are shut down", open=len(found), most=self.most, ended=ended)

    def _open(self) -> Iterator[_Connection]:
        for descriptor in _descriptors() if self._port else ():
            found = _connection(descriptor, self._port)
            if found is not None:
                yield found


def _descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir(_DESCRIPTORS)]  # noqa: PTH208 - a tenth of the time of Path's
    except OSError:
        return []


def _port(peer: str) -> int:
    """The port of an address in gRPC's notation, such as `ipv4:192.0.2.1:4711`. Ports tell connections well enough."""
    port = peer.rpartition(":")[2]
    return int(port) if port.isdigit() else 0


def _connection(descriptor: int, port: int) -> _Connection | None:
    """The caller's connection of this descriptor; None for any other file. gRPC may close it at any time."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        # Family and type are given, so that they are not asked for; what follows does not depend on them.
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    except OSError:
        return None
    try:
        here, there = found.getsockname(), found.getpeername()
        if not isinstance(here, tuple) or here[1] != port:
            return None
        information = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED.stop)
    except OSError:
        return None
    finally:
        found.detach()
    return _Connection(descriptor, there[1], int.from_bytes(information[_LAST_DATA_RECEIVED], sys.byteorder) / 1000)


def _shut_down(connection: _Connection, port: int) -> bool:
    """End the connection, unless its descriptor is another one's by now. gRPC sees its end, and closes it."""
    try:
        mine = os.dup(connection.descriptor)
    except OSError:
        return False
    again = _connection(mine, port)
    if again is None or again.port != connection.port:
        os.close(mine)
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=mine) as found:
        try:
            found.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
    return True
