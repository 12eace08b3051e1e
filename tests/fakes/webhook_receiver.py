"""A receiver of webhooks on a free loopback port, which checks signatures as Standard Webhooks tells receivers to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOLERANCE_SECONDS = 300


class Received(NamedTuple):
    """A request: its headers, in lower case, and body."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        """The CloudEvent."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    def verifies(self, secret: str) -> bool:
        """Whether one of the signatures is made with this secret (`whsec_...`), not long ago."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        timestamp = self.headers["webhook-timestamp"]
        signed = b".".join((self.id.encode(), timestamp.encode(), self.body))
        expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        now = time.time()  # noqa: TID251 - a receiver has a clock of its own
        fresh = abs(now - int(timestamp)) < TOLERANCE_SECONDS
        return fresh and expected in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """What was received; `answers` are the statuses of the next requests, 204 after them.

    While `answering` is clear, requests are received and not answered; `senders` are the ports of their clients.
    """

    received: list[Received] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    port: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    senders: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answering.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(headers, await request.read()))
        self.senders.append(request.transport.get_extra_info("peername")[1] if request.transport else 0)
        self.arrived.set()
        await self.answering.wait()
        return web.Response(status=self.answers.pop(0) if self.answers else 204)

    async def next(self, count: int = 1, seconds: float = 30) -> list[Received]:
        """All requests, once there are so many."""
        async with asyncio.timeout(seconds):
            while len(self.received) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.received

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Receiver]:
        """Listen, on the same port each time."""
        app = web.Application()
        app.router.add_post("/hook", self.take)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", self.port)
            await site.start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()
