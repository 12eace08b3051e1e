"""The callers' connections as the kernel knows them, with real sockets."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
import structlog

from docpreview_gateway.rpc.connections import Connections

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its connections")


class Side:
    """A listening socket, and connections to it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port: int = self.listener.getsockname()[1]

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """The caller's end and the server's end."""
        caller = self._stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=10))
        server, _ = self.listener.accept()
        return caller, self._stack.enter_context(server)


@contextmanager
def side() -> Iterator[Side]:
    with ExitStack() as stack:
        yield Side(stack)


def is_ended(caller: socket.socket) -> bool:
    caller.settimeout(0)
    try:
        return caller.recv(1) == b""
    except BlockingIOError:
        return False


def peer(caller: socket.socket) -> str:
    """The caller's address in gRPC's notation."""
    return f"ipv4:127.0.0.1:{caller.getsockname()[1]}"


async def test_only_connections_to_the_port_are_counted() -> None:
    """Not the listening socket, nor the callers' ends in the same process, nor connections to another port."""
    with side() as ours, side() as other:
        found = Connections(100, set)
        assert found.count() == 0
        found.listens_on(ours.port)
        assert found.count() == 0
        ours.connect(), ours.connect(), other.connect()
        assert found.count() == 2


async def test_nothing_is_shut_down_while_most_of_the_limit_is_free() -> None:
    """Up to three quarters of it."""
    with side() as ours:
        found = Connections(8, set, silent_seconds=0)
        found.listens_on(ours.port)
        callers = [ours.connect()[0] for _ in range(6)]
        await found.check()
        assert not any(is_ended(caller) for caller in callers)
        assert found.ended == 0


async def test_beyond_it_those_that_have_been_silent_longest_are_shut_down_to_half_of_the_limit() -> None:
    """Not those that have just sent something, and not those whose call is served."""
    with side() as ours:
        pairs = [ours.connect() for _ in range(8)]
        callers = [caller for caller, _ in pairs]
        busy, talkative = callers[0], callers[1]
        found = Connections(8, lambda: {peer(busy)}, silent_seconds=0.3)
        found.listens_on(ours.port)
        await asyncio.sleep(0.4)
        talkative.sendall(b"x")
        assert await asyncio.to_thread(pairs[1][1].recv, 1) == b"x"
        await found.check()
        ended = [caller for caller in callers if is_ended(caller)]
        assert len(ended) == found.ended == 4
        assert busy not in ended
        assert talkative not in ended


async def test_connections_that_are_not_silent_stay_however_many_there_are() -> None:
    """The library itself refuses those beyond its limit."""
    with side() as ours:
        found = Connections(4, set, silent_seconds=60)
        found.listens_on(ours.port)
        callers = [ours.connect()[0] for _ in range(8)]
        await found.check()
        assert not any(is_ended(caller) for caller in callers)
        assert found.count() == 8


async def test_connections_over_ipv6_are_seen_too() -> None:
    """A socket that listens on both gives addresses of IPv6."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        found = Connections(1, set, silent_seconds=0)
        found.listens_on(port)
        with socket.create_connection(("::1", port), timeout=10) as caller:
            with listener.accept()[0]:
                await found.check()
                assert is_ended(caller)
            assert found.ended == 1


async def test_a_line_is_logged_only_when_a_connection_was_shut_down() -> None:
    """Not while those that have too many connections all use them."""
    with side() as ours, structlog.testing.capture_logs() as lines:
        found = Connections(8, set, silent_seconds=60)
        found.listens_on(ours.port)
        for _ in range(8):
            ours.connect()
        await found.check()
        assert lines == []
        eager = Connections(8, set, silent_seconds=0)
        eager.listens_on(ours.port)
        await eager.check()
        assert [(line["event"], line["ended"]) for line in lines] == [("silent connections are shut down", 4)]
