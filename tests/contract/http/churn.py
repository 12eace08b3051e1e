"""Cancelled requests at every moment of an exchange, and the whole pool after them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from docpreview_gateway.upstream.http_pool import MAX_CONNECTIONS

if TYPE_CHECKING:
    from docpreview_gateway.upstream.ports import Transport
    from docpreview_gateway.upstream.wire.http import HttpRequest
    from tests.fakes.raw_server import Exchange


class Churn:
    """Requests to a server that answers as `answer` does. `read` and `create` are the two kinds of requests."""

    def __init__(self, read: HttpRequest, create: HttpRequest) -> None:
        self._read = read
        self._create = create
        self._together = asyncio.Barrier(2 * MAX_CONNECTIONS + 1)

    async def answer(self, exchange: Exchange) -> None:
        """A server that takes a while, and for the last requests waits until all of them are there."""
        if "/together" in exchange.request_line:
            await self._together.wait()
        else:
            await asyncio.sleep(0.002)
        await exchange.answer(b"<ok/>")

    async def run(self, client: Transport, cancelled: int) -> None:
        """Cancel requests until so many were, then fill the pool of reads and that of creates in one moment."""
        outcomes: Counter[str] = Counter()

        async def give_up(number: int) -> None:
            # One in eight has the time that it needs.
            seconds = 10 if number % 8 == 0 else (number % 8) * 0.0007
            try:
                async with asyncio.timeout(seconds):
                    answer = await client.send(self._create if number % 5 == 0 else self._read)
                assert answer.body == b"<ok/>"
                outcomes["answered"] += 1
            except TimeoutError:
                outcomes["cancelled"] += 1

        while outcomes["cancelled"] < cancelled:
            await asyncio.gather(*(give_up(number) for number in range(240)))
        async with asyncio.timeout(20):
            last = [replace(request, path="/together") for request in (self._read, self._create)]
            both = [client.send(request) for request in last * MAX_CONNECTIONS]
            replies, _ = await asyncio.gather(asyncio.gather(*both), self._together.wait())
        assert {found.status for found in replies} == {200}
        assert outcomes["answered"] > cancelled / 10
