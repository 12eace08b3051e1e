"""What breaks things: the cloud's answers, the way to it, the gateways, and the store of their ledger."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from tests.faults.proxy import FlakyProxy, Weather

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable

    from docpreview_emulator import Emulator
    from tests.faults.gateway_process import GatewayProcess
    from tests.faults.storm import Clients
    from tests.redis_server import RedisServer

FOUL = Weather(hold=0.05, longest=9.0, cut=0.02)
"""Some requests are held up for longer than their signature lasts."""


class Nemesis:
    """Breaks what stands behind the clients: answers of the emulator, and connections to it."""

    def __init__(
        self, emulator: Emulator, proxy: FlakyProxy, chance: random.Random, *, operations: tuple[str, ...]
    ) -> None:
        self.faults = self.pauses = self.losses = 0
        self._operations = operations
        self._emulator = emulator
        self._proxy = proxy
        self._chance = chance

    @property
    def posts(self) -> int:
        """Creates that reached the emulator, refused ones included."""
        return sum(request.operation == "create" for request in self._emulator.requests)

    @asynccontextmanager
    async def foul(self) -> AsyncIterator[None]:
        """Foul weather inside; everything held up has arrived when this ends."""
        self._proxy.weather = FOUL
        faults = asyncio.create_task(self._add_faults())
        try:
            yield
        finally:
            faults.cancel()
            await asyncio.gather(faults, return_exceptions=True)
        self._proxy.weather = Weather()
        self._emulator.clear_faults()
        await self._proxy.delivered()

    async def strike(self, count: int, blow: Callable[[], Awaitable[None]], clients: Clients, ids: int) -> None:
        """Blows spread over the ids, each at a random moment."""
        for number in range(count):
            await clients.reached(ids * number // count)
            await asyncio.sleep(self._chance.uniform(0, 1.0))
            await blow()

    async def kill(self, gateways: list[GatewayProcess]) -> None:
        """Kill -9 of one of them, which starts again at once."""
        await self._chance.choice(gateways).restart()

    async def pause(self, gateways: list[GatewayProcess]) -> None:
        """One of them stands still for 1 to 10 s, and goes on as if nothing had been."""
        gateway = self._chance.choice(gateways)
        # It may be killed and started before, meanwhile or after.
        with suppress(ProcessLookupError):
            gateway.signal(signal.SIGSTOP)
            self.pauses += 1
            await asyncio.sleep(self._chance.uniform(1.0, 10.0))
            gateway.signal(signal.SIGCONT)

    async def lose(self, store: RedisServer | None) -> None:
        """Kill -9 of the store of the ledger, which is back within 3 s with what it had said yes to."""
        assert store is not None
        await asyncio.to_thread(store.kill)
        self.losses += 1
        await asyncio.sleep(self._chance.uniform(0, 3.0))
        await asyncio.to_thread(store.start)

    async def _add_faults(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(0.02, 0.2))
            if len(self._emulator.faults) < 10:
                operation = self._chance.choice(self._operations)
                self._emulator.add_fault(operation=operation, **self._fault())
                self.faults += 1

    def _fault(self) -> dict[str, Any]:
        kinds: list[dict[str, Any]] = [
            {"kind": "latency", "seconds": self._chance.uniform(0.1, 4.0)},
            {"kind": "drop_before"},
            {"kind": "drop_after"},
            {"kind": "error"},
            {"kind": "error", "accepted": True},
            {"kind": "error", "status": 503, "code": "ServiceUnavailable", "accepted": True},
            {"kind": "throttle"},
            {"kind": "truncate"},
            {"kind": "garbage"},
            {"kind": "drip", "seconds": self._chance.uniform(0.5, 4.0)},
        ]
        return {"times": self._chance.randint(1, 3), **self._chance.choice(kinds)}
