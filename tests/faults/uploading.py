"""Fault campaign of uploads: callers with rights of their own bring contents to keys that they share.

The gateways keep nothing of an upload, so any of them may be asked for any step: each call goes to a gateway at random.
Contents go straight to the emulator, through a proxy of their own where they are large. Half of the gateways start with
a wrong wall clock, before they have heard the cloud's.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from docpreview_emulator import Emulator
from tests.faults.gateway_process import BUCKET, REGION, GatewayProcess
from tests.faults.nemesis import Nemesis
from tests.faults.proxy import FaultMix, FlakyProxy
from tests.faults.upload_clients import OVERWRITING, PREFIXES, UploadClients, UploadPlan, crc64
from tests.faults.upload_history import UploadHistory, Write, upload_violations
from tests.integration.identity import Policy
from tests.machine_clock import MachineClock

if TYPE_CHECKING:
    from pathlib import Path

    from docpreview_emulator.model import StoredObject

LARGE_MIX = FaultMix(hold=0.004, longest=3.0, cut=0.001)
"""Fault mix of parts of 16 MiB, which pass the proxy in hundreds of pieces."""


@dataclass(slots=True)
class UploadReport:
    """Result of a campaign."""

    plan: UploadPlan
    history: UploadHistory
    faults: str
    seconds: float

    @property
    def violations(self) -> list[str]:
        """All violated promises."""
        return upload_violations(self.history)

    def __str__(self) -> str:
        steps = [step for track in self.history.tracks for step in track.steps]
        ends = Counter(f"{each.kind} {each.outcome}" for each in [*steps, *self.history.refused])
        reasons = Counter(f"{each.kind} {each.reason}" for each in [*steps, *self.history.refused] if each.reason)
        finals = Counter(each.final.reason or "ok" for each in self.history.tracks if each.final)
        large = Counter(each.final.reason or "ok" for each in self.history.tracks if each.final and each.parts > 1)
        return (
            f"{self.plan}: {len(self.history.tracks)} uploads begun, {len(steps) + len(self.history.refused)} attempts"
            f" {dict(sorted(ends.items()))}, {len(self.history.writes)} writes; {self.faults};"
            f" {len(self.violations)} violations; {self.seconds:.0f} s\n"
            f"  final {dict(finals)}, of several parts {dict(large)}\n  {dict(reasons)}\n  "
            + "\n  ".join(self.violations[:20])
        )


async def run_upload_campaign(plan: UploadPlan, folder: Path) -> UploadReport:
    """Run a plan, complete and abort everything at its end, and compare what was told with the store."""
    begin, rng = asyncio.get_running_loop().time(), random.Random(plan.seed)  # noqa: S311 - a seed makes it repeatable
    policy, writes = _policy(folder), list[Write]()
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator())
        emulator.on_put.append(lambda stored: writes.append(_write(stored)))
        proxy, large = [await stack.enter_async_context(FlakyProxy(emulator.port, rng, FaultMix())) for _ in range(2)]
        clocks = [MachineClock(folder / f"clock-{number}") for number in range(plan.gateways)]
        gateways = [
            _gateway(folder / f"gateway-{number}", policy, proxy.port, clock) for number, clock in enumerate(clocks)
        ]
        for number, clock in enumerate(clocks):
            clock.ahead((25, 0, -25)[number % 3])
        await asyncio.gather(*(stack.enter_async_context(each) for each in gateways))
        clients = UploadClients([each.address for each in gateways], rng, policy, plan)
        clients.small, clients.big = proxy.port, large.port
        await stack.enter_async_context(clients)
        nemesis = Nemesis(emulator, proxy, rng, operations=("object",), longest_pause=0.6)
        large.mix = LARGE_MIX
        async with nemesis.faults_injected(), asyncio.TaskGroup() as group:
            for count, fault in (
                (plan.kills, lambda: nemesis.kill(gateways)),
                (plan.pauses, lambda: nemesis.pause(gateways)),
                (plan.jumps, lambda: nemesis.jump(clocks)),
            ):
                group.create_task(nemesis.repeat(count, fault, clients, plan.ids))
            group.create_task(clients.work(plan.ids, plan.clients))
        large.mix = FaultMix()
        await large.delivered()
        await clients.finish()
        history = _judged(emulator, clients, writes)
    faults = (
        f"{sum(each.kills for each in gateways)} kills, {nemesis.pauses} pauses, {nemesis.jumps} jumps,"
        f" {nemesis.faults} faults of the cloud, {proxy.held + large.held} delays, {proxy.cuts + large.cuts} cuts"
    )
    return UploadReport(plan, history, faults, asyncio.get_running_loop().time() - begin)


def _policy(folder: Path) -> Policy:
    policy = Policy(folder / "policy.yaml")
    for name, prefixes in PREFIXES.items():
        policy.add(name, uploads=[{"bucket": BUCKET, "prefixes": prefixes, "overwrite": name in OVERWRITING}])
    policy.write()
    return policy


def _gateway(home: Path, policy: Policy, port: int, clock: MachineClock) -> GatewayProcess:
    cloud = f"http://127.0.0.1:{port}"
    upstream = {"endpoint": cloud, "object_url_base": cloud, "timeout_seconds": 2}
    gateway = GatewayProcess(home, port, {"policy": {"file": str(policy.path)}, "upstream": upstream})
    gateway.variables = clock.variables
    return gateway


def _judged(emulator: Emulator, clients: UploadClients, writes: list[Write]) -> UploadHistory:
    """The history, after a look at the bytes of each object: they are those of its last write."""
    for each in {each.key: each for each in writes}.values():
        assert crc64(emulator.get_object(BUCKET, REGION, each.key)) == each.crc64, f"{each.key} is damaged"
    tracks = [each.track for each in clients.begun]
    left = [len(parts) for _, parts in emulator.multiparts]
    return UploadHistory(tracks, writes, clients.refused, left, clients.lost_begins)


def _write(stored: StoredObject) -> Write:
    return Write(stored.key, int(stored.crc64), stored.size, stored.modified)
