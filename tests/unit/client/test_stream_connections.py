"""Watches and waits have connections of their own, each with fewer streams than the gateway admits."""

import asyncio
from contextlib import ExitStack

from docpreview_client.connection import Connection
from docpreview_client.stream_connections import STREAMS_PER_CONNECTION, StreamConnections


class FakeConnection(Connection):
    """Knows whether it is closed."""

    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


async def test_a_connection_more_is_opened_when_all_are_full_and_idle_ones_are_closed_but_one() -> None:
    opened: list[FakeConnection] = []

    def open_one() -> FakeConnection:
        opened.append(FakeConnection())
        return opened[-1]

    connections = StreamConnections(open_one)
    with ExitStack() as stack:
        places = [stack.enter_context(connections.place()) for _ in range(2 * STREAMS_PER_CONNECTION + 1)]
        assert [places.count(one) for one in opened] == [STREAMS_PER_CONNECTION, STREAMS_PER_CONNECTION, 1]
    assert connections.count == 1
    await asyncio.sleep(0)
    assert [one.closed for one in opened].count(False) == 1
    with connections.place():
        assert len(opened) == 3
    await connections.close()
    assert all(one.closed for one in opened)


async def test_a_place_that_is_left_after_the_client_was_closed_opens_and_closes_nothing() -> None:
    connections = StreamConnections(FakeConnection)
    with connections.place():
        await connections.close()
    assert connections.count == 0
