"""Watches, of the gateway and of a bare `grpc.aio` stream: updates for the CPU, and the memory of each.

Run as a command it measures memory only: each of the two, a process of its own, gets some watches first, so that
imports and pools count for nobody, and then more in turns; the growth of its resident memory is divided by their
number. The bare stream has sent one message and waits: it is the least that a watch can take.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Self

import grpc

from docpreview.v1.preview_job_service_pb2 import WatchPreviewJobRequest
from subjects import SERVICE, Subject, command_of, cpu_seconds, line_of, nowhere, started, two_cores

if TYPE_CHECKING:
    from collections.abc import Callable

STREAMS_OF_A_CONNECTION = 90
"""The gateway admits 100."""

WATCH, BARE = SERVICE + "WatchPreviewJob", "/bench.Bare/Watch"

POLL_SECONDS = 0.05
"""Between two states of a job: the gateway's shortest interval of polls."""

JOBS, WATCHERS = 10, 20
"""Jobs that change, and watchers of each."""

WARM = 450
AIM = 12.0
"""KiB of a watch."""


class Streams:
    """Open streams of one server, until the block ends. `message` takes each message of any."""

    def __init__(self, port: str, method: str, requests: list[bytes]) -> None:
        self._target = f"127.0.0.1:{port}"
        self._method = method
        self._requests = requests
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self.messages = 0
        self.sample = b""
        """The last message."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def open(self, number: int) -> None:
        """Open so many more, the requests in turn; each has its first message when this returns."""
        first = [asyncio.get_running_loop().create_future() for _ in range(number)]
        at_once = asyncio.Semaphore(50)
        for at in range(0, number, STREAMS_OF_A_CONNECTION):
            channel = grpc.aio.insecure_channel(self._target, options=(("grpc.use_local_subchannel_pool", 1),))
            call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(self._method)
            await self._stack.enter_async_context(channel)
            for one, seen in enumerate(first[at : at + STREAMS_OF_A_CONNECTION], at):
                request = self._requests[one % len(self._requests)]
                self._tasks.append(asyncio.create_task(self._read(call, request, at_once, seen)))
        await asyncio.gather(*first)

    async def _read(
        self,
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes],
        request: bytes,
        at_once: asyncio.Semaphore,
        seen: asyncio.Future[None],
    ) -> None:
        try:
            async with at_once:
                stream = call(request, timeout=600)
                self._took(await stream.read())
                seen.set_result(None)
            while True:
                self._took(await stream.read())
        except grpc.aio.AioRpcError as error:
            raise SystemExit(f"bench: a watch ended: {error.details()}") from error

    def _took(self, message: object) -> None:
        if not isinstance(message, bytes):
            raise SystemExit("bench: a watch ended before its time")
        self.messages += 1
        self.sample = message


def watch_requests(kind: str, jobs: int) -> list[bytes]:
    """Of jobs that change (`c`) or run for ever (`r`), as the canned upstream has them."""
    return [
        WatchPreviewJobRequest(bucket="docs-1250000000", job_id=f"{kind}{number:032x}").SerializeToString()
        for number in range(jobs)
    ]


@dataclass
class Watched(Subject):
    """A subject of which updates of many open streams are counted. Opening them is not."""

    streams: Callable[[], Streams] = field(kw_only=True)

    async def turn(self, seconds: float) -> None:
        async with self.streams() as streams:
            await streams.open(JOBS * WATCHERS)
            before, seen = cpu_seconds(self.pid), streams.messages
            await asyncio.sleep(seconds)
            calls = streams.messages - seen
            self.rates.append(calls / (cpu_seconds(self.pid) - before))
        self.calls += calls


def start_watches(stack: ExitStack, upstream_port: str, core: int) -> list[Subject]:
    """A gateway that watches jobs which change, and the bare stream with messages of the same size at the same pace."""
    server = command_of("gateway_server.py", upstream_port, "--poll", POLL_SECONDS)
    gateway = stack.enter_context(started(server, core, nowhere(stack)))
    bare = stack.enter_context(started(command_of("bare_stream.py", POLL_SECONDS, JOBS), core))
    port, bare_port, requests = line_of(gateway), line_of(bare), watch_requests("c", JOBS)
    messages: list[bytes] = []

    def watched(name: str, pid: int, streams: Callable[[], Streams]) -> Subject:
        async def call(seconds: float) -> int:
            async with streams() as opened:
                await opened.open(JOBS)
                await asyncio.sleep(seconds)
                messages[:] = [opened.sample]
                return opened.messages

        return Watched(name, pid, call, asks_upstream=False, streams=streams)

    # The gateway is called first, and what it sends is what the other one sends back.
    return [
        watched("Watch update", gateway.pid, lambda: Streams(port, WATCH, requests)),
        watched("grpc.aio stream", bare.pid, lambda: Streams(bare_port, BARE, messages)),
    ]


def kibibytes(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


def grown(rounds: int, watches: int) -> tuple[list[float], list[float]]:
    """KiB of each watch of the gateway, and of each bare stream, by round: so many more watches for each."""
    core, load_core = two_cores()
    with ExitStack() as stack:
        upstream_port = line_of(stack.enter_context(started(command_of("canned_upstream.py"), load_core)))
        gateway = stack.enter_context(started(command_of("gateway_server.py", upstream_port), core, nowhere(stack)))
        bare = stack.enter_context(started(command_of("bare_stream.py", "inf", 1), core))
        requests = watch_requests("r", 1)
        subjects = [(gateway.pid, line_of(gateway), WATCH), (bare.pid, line_of(bare), BARE)]
        both = [(pid, Streams(port, method, requests)) for pid, port, method in subjects]
        found = asyncio.run(_grown(both, rounds, watches))
    return found[0], found[1]


async def _grown(both: list[tuple[int, Streams]], rounds: int, watches: int) -> list[list[float]]:
    found: list[list[float]] = [[] for _ in both]
    async with AsyncExitStack() as stack:
        for _, streams in both:
            await stack.enter_async_context(streams)
            await streams.open(WARM)
        for _ in range(rounds):
            for each, (pid, streams) in zip(found, both, strict=True):
                before = kibibytes(pid)
                await streams.open(watches)
                await asyncio.sleep(0.5)  # buffers of what was sent are given back
                each.append((kibibytes(pid) - before) / watches)
    return found


def report_memory(rounds: int, watches: int) -> None:
    """Measure and print the memory of a watch."""
    gateway, bare = grown(rounds, watches)
    print(f"{'memory':<20}{'lowest':>8}{'median':>8}{'highest':>8}   KiB of each, of {watches} more in a round")
    for name, sizes in (("Watch", gateway), ("grpc.aio stream", bare)):
        print(f"{name:<20}{min(sizes):>8.1f}{median(sizes):>8.1f}{max(sizes):>8.1f}")
    own = median(gateway) - median(bare)
    verdict = "reached" if median(gateway) <= AIM else "not reached"
    print(f"the gateway's own part of a Watch: {own:.1f} KiB; the aim for a whole Watch, {AIM:.0f} KiB, is {verdict}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watches", type=int, default=1000, help="in each round (default 1000)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report_memory(options.rounds, options.watches)
