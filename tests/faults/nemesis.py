"""Nemesis: injects faults into the cloud's replies, the connections to it, the gateways, and their ledger's store."""

from __future__ import annotations

import asyncio
import resource
import shutil
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from tests.faults.proxy import FaultMix, FlakyProxy

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable

    from docpreview_emulator import Emulator
    from tests.faults.campaign import Clients
    from tests.faults.gateway_process import GatewayProcess
    from tests.machine_clock import MachineClock
    from tests.redis_server import RedisServer

CAMPAIGN_MIX = FaultMix(hold=0.05, longest=9.0, cut=0.02)
"""Fault mix of a campaign; some requests are delayed beyond the validity of their signature."""


class Nemesis:
    """Fault injector of a campaign (the term is Jepsen's)."""

    def __init__(
        self,
        emulator: Emulator,
        proxy: FlakyProxy,
        rng: random.Random,
        *,
        operations: tuple[str, ...],
        empty_pages: bool = False,
        longest_pause: float = 0.2,
    ) -> None:
        self.faults = self.pauses = self.store_kills = self.losses = self.jumps = self.full = 0
        self._empty_pages = empty_pages
        self._longest_pause = longest_pause
        self._at_store, self._at_disks = asyncio.Lock(), asyncio.Lock()
        self._operations = operations
        self._emulator = emulator
        self._proxy = proxy
        self._rng = rng

    @property
    def posts(self) -> int:
        """Creates that reached the emulator, refused ones included."""
        return sum(request.operation == "create" for request in self._emulator.requests)

    @asynccontextmanager
    async def faults_injected(self) -> AsyncIterator[None]:
        """Inject faults inside the block; at its end every delayed request has arrived."""
        self._proxy.mix = CAMPAIGN_MIX
        faults = asyncio.create_task(self._add_faults())
        try:
            yield
        finally:
            faults.cancel()
            await asyncio.gather(faults, return_exceptions=True)
        self._proxy.mix = FaultMix()
        self._emulator.clear_faults()
        await self._proxy.delivered()

    async def repeat(self, count: int, fault: Callable[[], Awaitable[None]], clients: Clients, ids: int) -> None:
        """Inject a fault `count` times, spread over the ids, each at a random moment."""
        for number in range(count):
            await clients.reached(ids * number // count)
            await asyncio.sleep(self._rng.uniform(0, 1.0))
            await fault()

    async def kill(self, gateways: list[GatewayProcess]) -> None:
        """Kill -9 of a random gateway, which restarts immediately."""
        async with self._at_disks:
            await self._rng.choice(gateways).restart()

    async def pause(self, gateways: list[GatewayProcess]) -> None:
        """Stop a random gateway by SIGSTOP for 1 to 10 s, then continue it by SIGCONT."""
        gateway = self._rng.choice(gateways)
        # It may be killed and restarted before, meanwhile or after.
        with suppress(ProcessLookupError):
            gateway.signal(signal.SIGSTOP)
            self.pauses += 1
            await asyncio.sleep(self._rng.uniform(1.0, 10.0))
            gateway.signal(signal.SIGCONT)

    async def kill_store(self, store: RedisServer | None) -> None:
        """Kill -9 of the ledger's store, which is back within 3 s with everything that it has acknowledged."""
        assert store is not None
        async with self._at_store:
            await asyncio.to_thread(store.kill)
            self.store_kills += 1
            await asyncio.sleep(self._rng.uniform(0, 3.0))
            await asyncio.to_thread(store.start)

    async def lose_store(self, store: RedisServer | None) -> None:
        """Lose what the store holds: all, what an eviction takes, or what it was told since a copy was made."""
        assert store is not None
        async with self._at_store:
            self.losses += 1
            kind = self._rng.choice(("emptied", "evicted", "behind"))
            if kind == "emptied":
                await asyncio.to_thread(store.command, "FLUSHALL")
            elif kind == "evicted":
                await self._evict(store)
            else:
                await self._fall_behind(store)

    async def _evict(self, store: RedisServer) -> None:
        """A server that may evict any key gets a limit that makes it do so: it takes some of the keys."""
        info = await asyncio.to_thread(store.command, "INFO", "memory")
        used = int(info.split(b"used_memory:")[1].split()[0])
        for words in (
            ("CONFIG", "SET", "maxmemory-policy", "allkeys-random"),
            ("CONFIG", "SET", "maxmemory", str(used - 1024)),
            ("SET", "more", "1"),
            ("CONFIG", "SET", "maxmemory", "0"),
            ("CONFIG", "SET", "maxmemory-policy", "noeviction"),
        ):
            await asyncio.to_thread(store.command, *words)

    async def _fall_behind(self, store: RedisServer) -> None:
        """As after a failover to a replica that lags: acknowledged writes of some seconds are gone.

        The server does not claim from then on that it keeps all: one that claims it and was set back is noticed by its
        counter only, which another gateway, that saw all of what is gone, may have taken with it (docs/creates.md).
        """
        files = store.data / "appendonlydir"
        copy = store.data / f"copy-{self.losses}"
        await asyncio.to_thread(shutil.copytree, files, copy)
        await asyncio.sleep(self._rng.uniform(1.0, 3.0))
        await asyncio.to_thread(store.kill)
        await asyncio.to_thread(shutil.rmtree, files)
        await asyncio.to_thread(shutil.move, copy, files)
        store.arguments = (*store.arguments, "--appendfsync", "everysec")
        await asyncio.to_thread(store.start)

    async def jump(self, clocks: list[MachineClock]) -> None:
        """Set the wall clock of a random gateway to a day and an hour ahead of the true one, behind it, or right."""
        self.jumps += 1
        self._rng.choice(clocks).ahead(self._rng.choice((-25, 0, 25)))

    async def fill_disk(self, gateways: list[GatewayProcess]) -> None:
        """Keep the files of a random gateway from growing for 1 to 4 s. Not while one starts: it would not."""
        gateway = self._rng.choice(gateways)
        async with self._at_disks:
            pid = gateway.pid
            usual = resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            self.full += 1
            await asyncio.sleep(self._rng.uniform(1.0, 4.0))
            resource.prlimit(pid, resource.RLIMIT_FSIZE, usual)

    async def _add_faults(self) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(0.02, self._longest_pause))
            if len(self._emulator.faults) < 10:
                operation = self._rng.choice(self._operations)
                fault = self._fault()
                if operation == "list" and self._empty_pages and self._rng.random() < 0.5:
                    fault = {"kind": "empty_page", "times": self._rng.randint(1, 3)}
                self._emulator.add_fault(operation=operation, **fault)
                self.faults += 1

    def _fault(self) -> dict[str, Any]:
        kinds: list[dict[str, Any]] = [
            {"kind": "latency", "seconds": self._rng.uniform(0.1, 4.0)},
            {"kind": "drop_before"},
            {"kind": "drop_after"},
            {"kind": "error"},
            {"kind": "error", "accepted": True},
            {"kind": "error", "status": 503, "code": "ServiceUnavailable", "accepted": True},
            {"kind": "throttle"},
            {"kind": "truncate"},
            {"kind": "garbage"},
            {"kind": "drip", "seconds": self._rng.uniform(0.5, 4.0)},
        ]
        return {"times": self._rng.randint(1, 3), **self._rng.choice(kinds)}
