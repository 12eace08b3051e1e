"""Calls per second of CPU: a bare `grpc.aio` echo, `GetPreviewJob` uncached and kept, and the vendor's SDK, in one run.

Each subject is a process of its own, pinned to one core; the canned upstream and the load generator share another. The
subjects take turns, round by round, so that a busy machine is unfair to none of them, and the median of the rounds
counts. CPU is what the kernel charges the subject's process, in user and system mode, its threads included. The SDK
calls once with as many threads as the gateway has calls in flight, and once from a single thread; the better counts.

A bare proxy, `grpc.aio` and one GET by aiohttp and nothing else, tells what these two libraries leave for the gateway.

Exits with 1 when a promise is broken: uncached `GetPreviewJob` more than the SDK and at least half of the bare proxy; a
kept one at least 0.8 of the echo; identity, policy, limits, metrics and a line for the call at most 60 us of a kept
one. The 2.5 times the SDK that were once hoped for are beyond the bare proxy itself.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Protocol

import grpc
from prometheus_client import CollectorRegistry

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview_gateway.access import tokens
from docpreview_gateway.model.call import Call, Method, ResponseInfo
from docpreview_gateway.telemetry.prometheus_calls import PrometheusCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
PROMISED_OF_SDK = 1.0
PROMISED_OF_BARE_PROXY = 0.5
PROMISED_KEPT_OF_ECHO = 0.8
PROMISED_MICROSECONDS = 60
IN_FLIGHT = 32
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
GET = "/docpreview.v1.PreviewJobService/GetPreviewJob"
UNCACHED = (("cache-control", "no-cache"),)


@contextmanager
def program(name: str, *arguments: object, core: int, log: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A program of this directory on one core, until the block ends. What it says goes to `log` (None: ours)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # a child begins with its parent's
    try:
        command = [sys.executable, str(HERE / name), *map(str, arguments)]
        # A gateway writes a line for every call: to a file, as in production, and nobody reads it.
        log = subprocess.DEVNULL if name == "gateway_server.py" else None
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    finally:
        os.sched_setaffinity(0, before)
    with process:
        try:
            yield process
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that a program prints."""
    assert process.stdout is not None
    if not (line := process.stdout.readline()):
        raise SystemExit(f"bench: {process.args!r} ended early")
    return line.strip()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


class Caller(Protocol):
    """Calls a subject for a number of seconds, and tells how often."""

    def __call__(self, seconds: float) -> int: ...


@dataclass
class Subject:
    name: str
    pid: int
    call: Caller
    asks_upstream: bool = True
    rates: list[float] = field(default_factory=list)
    calls: int = 0

    def round(self, seconds: float) -> None:
        before = cpu_seconds(self.pid)
        calls = self.call(seconds)
        self.rates.append(calls / (cpu_seconds(self.pid) - before))
        self.calls += calls

    @property
    def rate(self) -> float:
        """Calls per second of CPU."""
        return median(self.rates)


Metadata = tuple[tuple[str, str], ...]


def grpc_caller(
    port: int,
    method: str,
    requests: Iterator[bytes],
    check: Callable[[bytes, bytes], bool],
    metadata: Metadata = UNCACHED,
) -> Caller:
    """Many calls in flight over one connection."""

    async def worker(call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], end: float) -> int:
        calls = 0
        while time.monotonic() < end:
            request = next(requests)
            if not check(request, await call(request, metadata=metadata, timeout=30)):
                raise SystemExit(f"bench: {method} answers with something else")
            calls += 1
        return calls

    async def run(seconds: float) -> int:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            end = time.monotonic() + seconds
            return sum(await asyncio.gather(*(worker(call, end) for _ in range(IN_FLIGHT))))

    return lambda seconds: asyncio.run(run(seconds))


def sdk_caller(process: subprocess.Popen[str]) -> Caller:
    """The SDK's process calls by itself."""

    def run(seconds: float) -> int:
        assert process.stdin is not None
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
        return int(line_of(process))

    return run


def job_requests() -> Iterator[bytes]:
    """A different job each time: nothing can be remembered or shared."""
    for number in itertools.count():
        yield GetPreviewJobRequest(bucket="docs-1250000000", job_id=f"d{number:032x}").SerializeToString()


def one_job_request() -> Iterator[bytes]:
    """The same job each time, one that has ended."""
    return itertools.repeat(GetPreviewJobRequest(bucket="docs-1250000000", job_id="d" + "f" * 32).SerializeToString())


def is_about(request: bytes, reply: bytes) -> bool:
    job = PreviewJob.FromString(reply)
    return job.job_id == GetPreviewJobRequest.FromString(request).job_id and len(job.result.pages) == 2


def is_body(request: bytes, reply: bytes) -> bool:
    return GetPreviewJobRequest.FromString(request).job_id.encode() in reply


def given_jobs(upstream_port: str) -> int:
    """How many jobs the upstream gave so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{upstream_port}/count", timeout=10) as reply:
        return int(reply.read())


def start(stack: ExitStack, upstream_port: str, core: int) -> list[Subject]:
    """The subjects: echo, bare proxy, the gateway three times, and the SDK twice."""
    echo = stack.enter_context(program("echo_server.py", core=core))
    bare = stack.enter_context(program("bare_proxy.py", upstream_port, core=core))
    gateway = stack.enter_context(program("gateway_server.py", upstream_port, core=core))
    threaded = stack.enter_context(program("sdk_caller.py", upstream_port, IN_FLIGHT, core=core))
    single = stack.enter_context(program("sdk_caller.py", upstream_port, 1, core=core))
    token, token_hash = tokens.new(os.urandom)
    lines = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    known = stack.enter_context(program("gateway_server.py", upstream_port, token_hash, core=core, log=lines.fileno()))
    call_echo = grpc_caller(int(line_of(echo)), "/bench.Bare/Echo", job_requests(), bytes.__eq__)
    call_bare = grpc_caller(int(line_of(bare)), "/bench.Bare/Get", job_requests(), is_body)
    gateway_port = int(line_of(gateway))
    call_gateway = grpc_caller(gateway_port, GET, job_requests(), is_about)
    call_kept = grpc_caller(gateway_port, GET, one_job_request(), is_about, ())
    bearer = (("authorization", f"Bearer {token}"),)
    call_known = grpc_caller(int(line_of(known)), GET, one_job_request(), is_about, bearer)
    for sdk in (threaded, single):
        line_of(sdk)
    return [
        Subject("grpc.aio echo", echo.pid, call_echo, asks_upstream=False),
        Subject("grpc.aio + aiohttp", bare.pid, call_bare),
        Subject("Get, kept", gateway.pid, call_kept, asks_upstream=False),
        Subject("Get, kept, known", known.pid, call_known, asks_upstream=False),
        Subject("Get, uncached", gateway.pid, call_gateway),
        Subject(f"SDK, {IN_FLIGHT} threads", threaded.pid, sdk_caller(threaded)),
        Subject("SDK, one thread", single.pid, sdk_caller(single)),
    ]


def measure(rounds: int, seconds: float) -> list[Subject]:
    """All rounds of all subjects."""
    subject_core, load_core = two_cores()
    with ExitStack() as stack:
        upstream_port = line_of(stack.enter_context(program("canned_upstream.py", core=load_core)))
        subjects = start(stack, upstream_port, subject_core)
        os.sched_setaffinity(0, {load_core})
        for subject in subjects:
            subject.call(0.5)  # imports, connections and caches of code are warm from here on
        given = given_jobs(upstream_port)
        for number, subject in itertools.product(range(rounds), subjects):
            subject.round(seconds)
            print(f"\rround {number + 1} of {rounds}: {subject.name:<16}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        if given_jobs(upstream_port) - given < sum(subject.calls for subject in subjects if subject.asks_upstream):
            raise SystemExit("bench: not every call went to the upstream, so the comparison is void")
    return subjects


def two_cores() -> tuple[int, int]:
    """One for the subjects, one for the load."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("bench: only one core: load and subjects share it, which costs all of them alike", file=sys.stderr)
    return cores[0], cores[-1]


def report(subjects: list[Subject], sdk_rate: float) -> None:
    print(f"{'subject':<20}{'calls per CPU second':>22}{'ms of CPU a call':>18}{'lowest..highest':>18}{'x SDK':>8}")
    for subject in subjects:
        spread = f"{min(subject.rates):.0f}..{max(subject.rates):.0f}"
        ratio = subject.rate / sdk_rate
        print(f"{subject.name:<20}{subject.rate:>22.0f}{1000 / subject.rate:>18.2f}{spread:>18}{ratio:>8.2f}")


def judge(subject: str, ratio: float, peer: str, promised: float) -> bool:
    verdict = "kept" if ratio >= promised else "BROKEN"
    print(f"promise {verdict}: {subject} is {ratio:.2f} x {peer} (at least {promised})")
    return ratio >= promised


def judge_cost(kept: Subject, known: Subject) -> bool:
    """What it costs to know a caller, to count, and to write of the call; the counting by itself, as both have it."""
    counting = seconds_to_count() * 1e6
    more = 1e6 / known.rate - 1e6 / kept.rate + counting
    verdict = "kept" if more <= PROMISED_MICROSECONDS else "BROKEN"
    print(
        f"promise {verdict}: identity, policy, limits, metrics and a line add {more:.0f} us to a kept job, "
        f"{counting:.0f} of them for metrics (at most {PROMISED_MICROSECONDS})"
    )
    return more <= PROMISED_MICROSECONDS


def seconds_to_count(calls: int = 20_000) -> float:
    """CPU time that the metrics of one call take."""
    registry = CollectorRegistry()
    metrics = PrometheusCalls(registry)
    method, call = (
        Method("docpreview.v1.PreviewJobService", "GetPreviewJob", "unary"),
        Call("r", 0.0, response=ResponseInfo(cache="hit")),
    )
    begin = time.process_time()
    for _ in range(calls):
        metrics.call_started(method, call)
        metrics.call_ended(method, call, "OK", 0.0003)
    metrics.collect()
    return (time.process_time() - begin) / calls


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each subject has its turn (default 7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one turn (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every round's figures there")
    options = parser.parse_args()
    subjects = measure(options.rounds, options.seconds)
    echo, bare, kept, known, gateway, *sdk = subjects
    sdk_rate = max(subject.rate for subject in sdk)
    report(subjects, sdk_rate)
    if options.json:
        options.json.write_text(json.dumps({subject.name: subject.rates for subject in subjects}, indent=2) + "\n")
    promises = [
        judge("uncached GetPreviewJob", gateway.rate / sdk_rate, "the vendor's SDK", PROMISED_OF_SDK),
        judge("uncached GetPreviewJob", gateway.rate / bare.rate, "grpc.aio + aiohttp", PROMISED_OF_BARE_PROXY),
        judge("kept GetPreviewJob", kept.rate / echo.rate, "the echo", PROMISED_KEPT_OF_ECHO),
        judge_cost(kept, known),
    ]
    return 0 if all(promises) else 1


if __name__ == "__main__":
    sys.exit(main())
