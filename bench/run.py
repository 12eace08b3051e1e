"""Calls per second of CPU: a bare `grpc.aio` echo, `GetPreviewJob` cached and uncached, the vendor's SDK, in one run.

Each subject is a process of its own, pinned to one core; the canned upstream and the load generator share another. The
subjects take turns, round by round, so that a busy machine is unfair to none of them, and the median of the rounds
counts. CPU is what the kernel charges the subject's process, in user and system mode, its threads included. The SDK
calls once with as many threads as the gateway has calls in flight, and once from a single thread; the better counts.

A bare proxy, `grpc.aio` and one GET by aiohttp and nothing else, shows what these two libraries leave for the gateway.

Exits with 1 when a promise is broken: an uncached Get more than the SDK and at least half of the bare proxy; a cached
Get at least 0.8 of the echo; a cached Get of a known caller, with identity, policy, limits and a line in a log file, at
least 0.7 of a cached Get without. The 2.5 times the SDK that were once hoped for are beyond the bare proxy itself.

With `--base REVISION` the gateway of that revision and the gateway of this checkout are compared instead. The base is a
temporary git worktree, started by its own `bench/gateway_server.py` with its own sources and the packages of this
environment. The two are called at the same time, on the same core, so that whatever else the machine does costs both
alike. Exits with 1 when the median of the rounds' ratios is below 0.97 for a subject, or too noisy to tell.
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
from math import ceil, floor
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Protocol

import grpc

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).parents[1]
PROMISED_OF_SDK = 1.0
PROMISED_OF_BARE_PROXY = 0.5
PROMISED_CACHED_OF_ECHO = 0.8
PROMISED_KNOWN_OF_CACHED = 0.7
PROMISED_OF_BASE = 0.97
IN_FLIGHT = 32
GET = "/docpreview.v1.PreviewJobService/GetPreviewJob"
UNCACHED = (("cache-control", "no-cache"),)


def environment(root: Path) -> dict[str, str]:
    """What Python needs to take the project's packages from the checkout at `root`."""
    sources = (root / "server", root / "protos", root / "clients" / "python")
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sources))}


@contextmanager
def program(
    name: str, *arguments: object, core: int, log: IO[bytes] | None = None, root: Path = CHECKOUT
) -> Iterator[subprocess.Popen[str]]:
    """A program of a checkout's bench/ on one core, until the block ends. Its stderr goes to `log` (None: to ours)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # a child begins with its parent's
    try:
        command = [sys.executable, str(root / "bench" / name), *map(str, arguments)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment(root)
        )
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
    """CPU time of a process so far, by its clock (clock_getcpuclockid), which is finer than /proc's hundredths."""
    return time.clock_gettime(~pid << 3 | 2)


class Caller(Protocol):
    """Calls a subject for a number of seconds, and returns how often."""

    async def __call__(self, seconds: float) -> int: ...


@dataclass
class Subject:
    name: str
    pid: int
    call: Caller
    asks_upstream: bool = True
    log: Path | None = None
    rates: list[float] = field(default_factory=list)
    calls: int = 0

    async def turn(self, seconds: float) -> None:
        before = cpu_seconds(self.pid)
        calls = await self.call(seconds)
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

    return run


def sdk_caller(process: subprocess.Popen[str]) -> Caller:
    """The SDK's process calls by itself."""

    async def run(seconds: float) -> int:
        assert process.stdin is not None
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
        return int(await asyncio.to_thread(line_of, process))

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


def new_token(root: Path) -> list[str]:
    """A token and its hash line."""
    command = [sys.executable, "-m", "docpreview_gateway", "token", "new"]
    made = subprocess.run(command, check=True, capture_output=True, text=True, env=environment(root), cwd=root)
    return made.stdout.split()


def start_gateways(stack: ExitStack, upstream_port: str, core: int, root: Path = CHECKOUT) -> list[Subject]:
    """The gateway of a checkout, twice: one knows nobody, one its callers, with a line for every call in a file."""
    log = Path(stack.enter_context(tempfile.TemporaryDirectory()), "known.log")
    token, token_hash = new_token(root)
    plain = stack.enter_context(program("gateway_server.py", upstream_port, core=core, root=root))
    lines = stack.enter_context(log.open("wb"))
    known = stack.enter_context(
        program("gateway_server.py", upstream_port, token_hash, core=core, log=lines, root=root)
    )
    port, bearer = int(line_of(plain)), (("authorization", f"Bearer {token}"),)
    call_known = grpc_caller(int(line_of(known)), GET, one_job_request(), is_about, bearer)
    call_cached = grpc_caller(port, GET, one_job_request(), is_about, ())
    return [
        Subject("cached Get", plain.pid, call_cached, asks_upstream=False),
        Subject("cached Get, known", known.pid, call_known, asks_upstream=False, log=log),
        Subject("uncached Get", plain.pid, grpc_caller(port, GET, job_requests(), is_about)),
    ]


def start(stack: ExitStack, upstream_port: str, core: int) -> list[tuple[Subject, ...]]:
    """The subjects: echo, bare proxy, the gateway three times, and the SDK twice."""
    echo = stack.enter_context(program("echo_server.py", core=core))
    bare = stack.enter_context(program("bare_proxy.py", upstream_port, core=core))
    gateways = start_gateways(stack, upstream_port, core)
    threaded = stack.enter_context(program("sdk_caller.py", upstream_port, IN_FLIGHT, core=core))
    single = stack.enter_context(program("sdk_caller.py", upstream_port, 1, core=core))
    call_echo = grpc_caller(int(line_of(echo)), "/bench.Bare/Echo", job_requests(), bytes.__eq__)
    call_bare = grpc_caller(int(line_of(bare)), "/bench.Bare/Get", job_requests(), is_body)
    for sdk in (threaded, single):
        line_of(sdk)
    subjects = [
        Subject("grpc.aio echo", echo.pid, call_echo, asks_upstream=False),
        Subject("grpc.aio + aiohttp", bare.pid, call_bare),
        *gateways,
        Subject(f"SDK, {IN_FLIGHT} threads", threaded.pid, sdk_caller(threaded)),
        Subject("SDK, one thread", single.pid, sdk_caller(single)),
    ]
    return [(subject,) for subject in subjects]


def measure(
    start: Callable[[ExitStack, str, int], list[tuple[Subject, ...]]], rounds: int, seconds: float
) -> list[tuple[Subject, ...]]:
    """All rounds of all groups of subjects; those of a group are called at the same time."""
    subject_core, load_core = two_cores()
    with ExitStack() as stack:
        upstream_port = line_of(stack.enter_context(program("canned_upstream.py", core=load_core)))
        groups = start(stack, upstream_port, subject_core)
        subjects = list(itertools.chain(*groups))
        os.sched_setaffinity(0, {load_core})
        for subject in subjects:
            asyncio.run(subject.call(0.5))  # imports, connections and caches of code are warm from here on
        given = given_jobs(upstream_port)
        for number, group in itertools.product(range(rounds), groups):
            asyncio.run(turns(group, seconds))
            print(f"\rround {number + 1} of {rounds}: {group[-1].name:<18}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        if given_jobs(upstream_port) - given < sum(subject.calls for subject in subjects if subject.asks_upstream):
            raise SystemExit("bench: not every call went to the upstream, so the comparison is void")
        for subject in subjects:
            if subject.log and subject.log.read_bytes().count(b"\n") < subject.calls:
                raise SystemExit(f"bench: {subject.name}: not every call has a line, so the comparison is void")
    return groups


async def turns(group: tuple[Subject, ...], seconds: float) -> None:
    await asyncio.gather(*(subject.turn(seconds) for subject in group))


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


def compare_with_peers(rounds: int, seconds: float) -> tuple[list[Subject], bool]:
    """The subjects, and whether every promise is kept."""
    subjects = list(itertools.chain(*measure(start, rounds, seconds)))
    echo, bare, cached, known, uncached, *sdk = subjects
    sdk_rate = max(subject.rate for subject in sdk)
    report(subjects, sdk_rate)
    promises = [
        judge("uncached Get", uncached.rate / sdk_rate, "the vendor's SDK", PROMISED_OF_SDK),
        judge("uncached Get", uncached.rate / bare.rate, "grpc.aio + aiohttp", PROMISED_OF_BARE_PROXY),
        judge("cached Get", cached.rate / echo.rate, "the echo", PROMISED_CACHED_OF_ECHO),
        judge("cached Get of a known caller", known.rate / cached.rate, "a cached Get", PROMISED_KNOWN_OF_CACHED),
    ]
    return subjects, all(promises)


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """A temporary checkout of a revision of this repository."""
    git = ("git", "-C", str(CHECKOUT), "worktree")
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run([*git, "add", "--quiet", "--detach", f"{folder}/base", revision], check=False).returncode:
            raise SystemExit(f"bench: no revision {revision} to compare with")
        try:
            yield Path(folder, "base")
        finally:
            subprocess.run([*git, "remove", "--force", f"{folder}/base"], check=True)


def compare_with_base(revision: str, rounds: int, seconds: float) -> tuple[list[Subject], bool]:
    """The subjects, and whether none is slower than at the base revision, beyond what is tolerated."""
    with worktree(revision) as base:

        def start_both(stack: ExitStack, upstream_port: str, core: int) -> list[tuple[Subject, ...]]:
            before = start_gateways(stack, upstream_port, core, base)
            now = start_gateways(stack, upstream_port, core)
            return list(zip(before, now, strict=True))

        pairs = measure(start_both, rounds, seconds)
    print(f"{'subject':<20}{'base':>10}{'now':>10}   calls per CPU second")
    for before, now in pairs:
        print(f"{now.name:<20}{before.rate:>10.0f}{now.rate:>10.0f}")
    verdicts = [judge_base(before, now, revision) for before, now in pairs]
    return [now for _, now in pairs], all(verdicts)


def judge_base(before: Subject, now: Subject, revision: str) -> bool:
    ratios = sorted(mine / other for mine, other in zip(now.rates, before.rates, strict=True))
    # The order statistics between which the true median lies in 95 of 100 runs: outliers do not matter.
    ratio, middle, margin = median(ratios), (len(ratios) - 1) / 2, len(ratios) ** 0.5
    low, high = ratios[max(0, floor(middle - margin))], ratios[min(len(ratios) - 1, ceil(middle + margin))]
    if ratio - low > 1 - PROMISED_OF_BASE:
        raise SystemExit(f"bench: {now.name} is {low:.3f} to {high:.3f} x {revision}: too noisy, so more --rounds")
    verdict = "kept" if ratio >= PROMISED_OF_BASE else "BROKEN"
    print(
        f"promise {verdict}: {now.name} is {ratio:.3f} x {revision} (at least {PROMISED_OF_BASE}; "
        f"{low:.3f} to {high:.3f} with 95 % confidence)"
    )
    return ratio >= PROMISED_OF_BASE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="turns of each subject (default 7, with --base 30)")
    parser.add_argument("--seconds", type=float, help="length of a turn (default 2, with --base 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every round's figures there")
    parser.add_argument(
        "--base", metavar="REVISION", help="compare with the gateway of this git revision, not with peers"
    )
    options = parser.parse_args()
    if options.base and (options.rounds or 30) < 6:
        parser.error("--base needs at least 6 --rounds to know the noise")
    if options.base:
        subjects, good = compare_with_base(options.base, options.rounds or 30, options.seconds or 1.0)
    else:
        subjects, good = compare_with_peers(options.rounds or 7, options.seconds or 2.0)
    if options.json:
        options.json.write_text(json.dumps({subject.name: subject.rates for subject in subjects}, indent=2) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
