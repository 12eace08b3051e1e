"""A realistic day: 10,000 jobs of 30 pages, each followed by three services that poll and two that watch.

Five systems have the same jobs at the same moments, side by side, each with a cloud of its own (`day_upstream.py`):

- the vendor's Python SDK in each service;
- the Go service of peers/go, where Go is there, called by gRPC;
- the gateway, which polls for those that watch;
- the gateway with completion callbacks;
- the same, where the three watch as well.

Nothing but the gateway can be watched: with the first two all five services poll. Pollers ask every two seconds, each
beginning at a moment of its own, the same for every system. The jobs come in two minutes instead of a day, but each
takes as long as it does, so that nobody's intervals change. CPU of the processes (services, and what is between them
and the cloud) is counted from the first job to the end of the last, less what the same processes take when nothing
happens, and multiplied to 10,000 jobs; what they take when nothing happens is told for a day. The clouds' own is not
counted.

Some jobs go before, so that imports, connections and what the gateway learns about callbacks count for nobody.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import sys
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from day_poller import EVERY_SECONDS
from ratios import Comparison, Ratio, table
from subjects import build_go, command_of, cpu_seconds, line_of, nowhere, started, two_cores

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable

DAY_JOBS = 10_000
DAY_SECONDS = 86_400
SERVICES, WATCHERS = 5, 2

WARM_JOBS = 10
"""Enough for the gateway to rely on callbacks."""

AIM = 0.25
SDK = "SDK in each service"
GO = "Go service"
POLLING = "gateway, polling"
CALLBACKS = "gateway, callbacks"
ALL_WATCH = "- and all watch"
SEED = 15


@dataclass
class Use:
    """What a system has used until a moment."""

    services: float
    between: float
    asked: dict[str, int]


@dataclass
class System:
    """A cloud, perhaps something between, and the services. Those that watch come last."""

    name: str
    cloud_port: str
    between: subprocess.Popen[str] | None
    services: list[subprocess.Popen[str]]
    followed: asyncio.Queue[tuple[int, str]] = field(default_factory=asyncio.Queue)
    """Each service and job at its end."""
    made: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    knew: dict[tuple[int, str], float] = field(default_factory=dict)
    """When each service knew of the end of each job."""

    def used(self) -> Use:
        between = cpu_seconds(self.between.pid) if self.between else 0.0
        return Use(sum(cpu_seconds(each.pid) for each in self.services), between, self.told()["asked"])

    def told(self) -> dict[str, dict[str, int]]:
        """What the cloud tells."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.cloud_port}/told", timeout=10) as reply:
            told: dict[str, dict[str, int]] = json.load(reply)
            return told

    def say(self, service: int, line: str) -> None:
        pipe = self.services[service].stdin
        assert pipe is not None
        pipe.write(f"{line}\n")
        pipe.flush()

    async def listen(self, service: int) -> None:
        """Take what a service says, until it ends."""
        lines = asyncio.StreamReader()
        pipe = self.services[service].stdout
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), pipe)
        async for line in lines:
            word, job_id, *_ = line.decode().split()
            if word == "made":
                self.made.put_nowait(job_id)
            else:
                self.knew[service, job_id] = time.monotonic()
                self.followed.put_nowait((service, job_id))
        raise SystemExit(f"bench: a service of {self.name} ended early")

    async def job(self, number: int, phases: list[float]) -> None:
        """Let the first service make a job, and all follow it; each begins to poll after its phase, in seconds."""
        self.say(0, f"make {number}")
        job_id = await self.made.get()
        for service, phase in enumerate(phases):
            self.say(service, f"follow {job_id} {phase:.3f}")

    async def ended(self, jobs: int) -> None:
        """Wait until every service knows of the end of so many jobs."""
        for _ in range(jobs * len(self.services)):
            await self.followed.get()
        assert self.followed.empty()


def start(stack: ExitStack, median_seconds: float) -> list[System]:
    """All systems, which share a core; the clouds have the other one."""
    core, cloud_core = two_cores()
    binary = build_go()

    def system(name: str, command: list[str] | None, watchers: int) -> System:
        cloud = started(command_of("day_upstream.py", median_seconds, SEED), cloud_core)
        port = cloud_port = line_of(stack.enter_context(cloud))
        between = stack.enter_context(started([*command, cloud_port], core, nowhere(stack))) if command else None
        if between:
            port = line_of(between)
        poller, watcher = (
            command_of("day_poller.py", "grpc" if between else "sdk", port),
            command_of("day_watcher.py", port),
        )
        commands = [poller] * (SERVICES - watchers) + [watcher] * watchers
        services = [stack.enter_context(started(each, core)) for each in commands]
        return System(name, cloud_port, between, services)

    gateway = command_of("gateway_server.py")
    systems = [
        system(SDK, None, 0),
        *([system(GO, [str(binary)], 0)] if binary else []),
        system(POLLING, gateway, WATCHERS),
        system(CALLBACKS, [*gateway, "--callbacks"], WATCHERS),
        system(ALL_WATCH, [*gateway, "--callbacks"], SERVICES),
    ]
    for each in systems:
        for service in each.services:
            line_of(service)
    return systems


@dataclass
class Day:
    """What was measured of a system: all of its use, its use in each window, and while nothing happened."""

    system: System
    jobs: int
    seconds: float
    """From the first job to the end of the last."""
    begin: Use
    end: Use
    idle: tuple[Use, Use]
    """Before and after `idle_seconds` in which nothing happened."""
    idle_seconds: float
    windows: list[float]

    @property
    def services(self) -> float:
        """CPU seconds of the services for the day's jobs."""
        return self._of_jobs(lambda use: use.services)

    @property
    def between(self) -> float:
        """CPU seconds of what is between, for the day's jobs."""
        return self._of_jobs(lambda use: use.between)

    @property
    def jobs_cpu(self) -> float:
        """CPU seconds of the day's jobs."""
        return self.services + self.between

    @property
    def idle_cpu(self) -> float:
        """CPU seconds of a day in which nothing happens."""
        return self._idle(lambda use: use.services + use.between) * DAY_SECONDS

    def _of_jobs(self, part: Callable[[Use], float]) -> float:
        used = part(self.end) - part(self.begin) - self._idle(part) * self.seconds
        return used * DAY_JOBS / self.jobs

    def _idle(self, part: Callable[[Use], float]) -> float:
        """CPU seconds of a second in which nothing happens."""
        before, after = self.idle
        return (part(after) - part(before)) / self.idle_seconds

    def asked(self, kind: str) -> float:
        """Requests of a kind for the day's jobs."""
        return (self.end.asked.get(kind, 0) - self.begin.asked.get(kind, 0)) * DAY_JOBS / self.jobs

    def late(self, services: Iterable[int]) -> float:
        """Median seconds from the end of a job until these services knew."""
        ended = self.system.told()["ended"]
        return median(at - ended[job] for (service, job), at in self.system.knew.items() if service in services)


async def run(systems: list[System], jobs: int, seconds: float, idle_seconds: float) -> list[Day]:
    """Let all systems do the same at the same moments."""
    listening = [asyncio.create_task(system.listen(service)) for system in systems for service in range(SERVICES)]
    chance = random.Random(SEED)  # noqa: S311 - the same moments in every run
    await come(systems, chance, WARM_JOBS, 2.0)
    await asyncio.gather(*(system.ended(WARM_JOBS) for system in systems))
    begin, started_at = [system.used() for system in systems], time.monotonic()
    for system in systems:
        system.knew.clear()
    windows: list[list[float]] = []
    stalls: list[float] = []
    stalling = asyncio.create_task(watch_stalls(stalls))
    watching = asyncio.create_task(watch_windows(systems, windows, seconds / 6))
    await come(systems, chance, jobs, seconds)
    watching.cancel()
    await asyncio.gather(*(system.ended(jobs) for system in systems))
    end, busy = [system.used() for system in systems], time.monotonic() - started_at
    stalling.cancel()
    if not windows:
        raise SystemExit("bench: the machine gave no time to some system in every window: nothing can be compared")
    if max(stalls) > 1.0:
        print(f"bench: the machine stood still for {max(stalls):.1f} s: there were fewer polls than otherwise")
    await asyncio.sleep(idle_seconds / 4)  # what the end of the jobs leaves to do is not idleness
    before, idle_since = [system.used() for system in systems], time.monotonic()
    await asyncio.sleep(idle_seconds)
    after, idled = [system.used() for system in systems], time.monotonic() - idle_since
    for task in listening:
        task.cancel()
    each = zip(systems, begin, end, zip(before, after, strict=True), zip(*windows, strict=True), strict=True)
    return [Day(system, jobs, busy, first, last, idle, idled, list(parts)) for system, first, last, idle, parts in each]


async def come(systems: list[System], chance: random.Random, jobs: int, seconds: float) -> None:
    """Let jobs come at random moments of so many seconds."""
    begin = time.monotonic()
    making = []
    for number, moment in enumerate(sorted(chance.uniform(0, seconds) for _ in range(jobs))):
        phases = [chance.uniform(0, EVERY_SECONDS) for _ in range(SERVICES)]
        await asyncio.sleep(begin + moment - time.monotonic())
        making += [asyncio.create_task(system.job(number, phases)) for system in systems]
    await asyncio.gather(*making)
    await asyncio.sleep(begin + seconds - time.monotonic())


async def watch_stalls(stalls: list[float]) -> None:
    """Note by how many seconds the machine was late: after a stall of seconds jobs have ended that nobody polled."""
    while True:
        begin = time.monotonic()
        await asyncio.sleep(0.1)
        stalls.append(time.monotonic() - begin - 0.1)


async def watch_windows(systems: list[System], windows: list[list[float]], seconds: float) -> None:
    """Note the CPU seconds of each system in each window, without the first: there are fewer jobs than later."""
    before: list[float] = []
    for number in itertools.count():
        await asyncio.sleep(seconds)
        now = [sum(cpu_seconds(each.pid) for each in [*system.services, system.between] if each) for system in systems]
        if number:
            used = [after - first for after, first in zip(now, before, strict=True)]
            if all(used):  # else the machine stood still, and there is nothing to compare
                windows.append(used)
        before = now


def report(days: list[Day]) -> None:
    """The table of the day, CPU in seconds."""
    print(
        f"{'system':<20}{'services':>9}{'between':>8}{'sum':>6}{'x SDK':>7}{'idle':>6}{'x SDK':>7}{'reads':>9}"
        f"{'creates':>9}{'callbacks':>11}{'three':>7}{'two':>6}"
    )
    sdk = days[0]
    for day in days:
        three, two = day.late(range(SERVICES - WATCHERS)), day.late(range(SERVICES - WATCHERS, SERVICES))
        print(
            f"{day.system.name:<20}{day.services:>9.0f}{day.between:>8.0f}{day.jobs_cpu:>6.0f}"
            f"{day.jobs_cpu / sdk.jobs_cpu:>7.2f}{day.idle_cpu:>6.0f}"
            f"{(day.jobs_cpu + day.idle_cpu) / (sdk.jobs_cpu + sdk.idle_cpu):>7.2f}{day.asked('reads'):>9.0f}"
            f"{day.asked('creates'):>9.0f}{day.asked('callbacks'):>11.0f}{three:>7.2f}{two:>6.2f}"
        )
    print(
        f"CPU seconds: of services and of what is between them and the cloud, for {DAY_JOBS} jobs, from {sdk.jobs}; "
        "idle: of both,\nin a day without jobs, and the ratio with it. Requests at the cloud. Median seconds from a "
        "job's end until the three\nservices that poll, and the two others, know.\n"
    )


def comparisons(days: list[Day]) -> list[Comparison]:
    """How many times as many jobs a system does for its CPU as the SDK, window by window."""
    rates = {day.system.name: [1 / used for used in day.windows] for day in days}
    return [
        Comparison(name, SDK, Ratio.of(rates[name], rates[SDK]), aim=1 / AIM if name == CALLBACKS else None)
        for name in rates
        if name != SDK
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=240)
    parser.add_argument("--seconds", type=float, default=120.0, help="in which the jobs come (default 120)")
    parser.add_argument("--median", type=float, default=8.0, help="seconds of a job (default 8)")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds in which nothing happens (default 20)")
    options = parser.parse_args()
    with ExitStack() as stack:
        systems = start(stack, options.median)
        os.sched_setaffinity(0, {two_cores()[1]})
        days = asyncio.run(run(systems, options.jobs, options.seconds, options.idle))
        report(days)
    print(table(comparisons(days)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
