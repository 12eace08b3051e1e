"""Mutated HTTP/2 by strangers on real sockets, with an honest caller beside them (docs/faults.md)."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from docpreview_emulator import Emulator
from tests.faults.fuzzing import connection
from tests.faults.gateway_process import BUCKET, GatewayProcess
from tests.faults.honest import HonestCaller
from tests.faults.test_overload import resident_mib
from tests.integration.gateway_processes import page

if TYPE_CHECKING:
    from pathlib import Path

STRANGERS = 8


class Strangers:
    """Several strangers with one connection each at a time, until `until`, an instant of `time.monotonic()`."""

    def __init__(self, port: int, seed: str, until: float) -> None:
        self._port, self._seed, self._until = port, seed, until
        self.connections = 0

    async def run(self) -> None:
        await asyncio.gather(*(self._stranger() for _ in range(STRANGERS)))

    async def _stranger(self) -> None:
        while time.monotonic() < self._until:
            number, self.connections = self.connections, self.connections + 1
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(5):
                    await self._send(number)

    async def _send(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for piece in connection(self._seed, number):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if number % 3:
                # Like most attackers, without waiting for the answer.
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await reader.read(65536)
        finally:
            writer.close()


@pytest.mark.alone
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [15, pytest.param(600, marks=pytest.mark.soak)])
async def test_whatever_strangers_send_an_honest_caller_is_served_within_a_second(
    tmp_path: Path, seconds: float
) -> None:
    """The process lives, keeps its memory, and still stops when it is asked to. FAULTS_SEED repeats a run."""
    seed = os.environ.get("FAULTS_SEED") or secrets.token_hex(4)
    async with Emulator() as emulator, GatewayProcess(tmp_path, emulator.port, {"reflection": True}) as gateway:
        await Strangers(gateway.port, f"{seed} before", time.monotonic() + seconds / 5).run()
        before = resident_mib(gateway.pid)
        strangers = Strangers(gateway.port, seed, time.monotonic() + seconds)
        async with HonestCaller(gateway.address, BUCKET) as caller:
            await strangers.run()
        grown = resident_mib(gateway.pid) - before
        _, metrics = await page(gateway.admin_port, "/metrics")
        unknown = re.search(r"^docpreview_grpc_unknown_methods_total (\S+)", metrics, re.MULTILINE)
        assert unknown
        await gateway.stop()
    print(  # noqa: T201 - the figures
        f"\nseed {seed}: {strangers.connections} connections, {caller.served} honest calls served, {caller.failed} "
        f"failed ({', '.join(sorted(code.name for code in caller.codes))}), longest wait {caller.longest:.2f} s, "
        f"{unknown[1]} calls of unknown methods, {grown:+.1f} MiB on {before:.1f}"
    )
    assert "unexpected error" not in gateway.log, seed
    assert caller.longest < 1, seed
    assert caller.served > 10 * seconds, seed
    # Buffers and caches; over ten minutes it must be no more.
    assert grown < 30, seed
