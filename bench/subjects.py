"""What `run.py` compares: each subject is a process of its own on one core, and something that calls it."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Protocol

import grpc

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import (
    BatchGetPreviewJobsRequest,
    BatchGetPreviewJobsResponse,
    GetPreviewJobRequest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack

CHECKOUT = Path(__file__).parents[1]
IN_FLIGHT = 32
BATCH = 100
SERVICE = "/docpreview.v1.PreviewJobService/"
GET = SERVICE + "GetPreviewJob"
UNCACHED = (("cache-control", "no-cache"),)


def environment(root: Path) -> dict[str, str]:
    """What Python needs to take the project's packages from the checkout at `root`."""
    sources = (root / "server", root / "protos", root / "clients" / "python")
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sources))}


@contextmanager
def started(
    command: list[str], core: int, log: IO[bytes] | None = None, root: Path = CHECKOUT
) -> Iterator[subprocess.Popen[str]]:
    """A command on one core, until the block ends. Its stderr goes to `log` (None: to ours)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # a child begins with its parent's
    try:
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


def nowhere(stack: ExitStack) -> IO[bytes]:
    """For log lines that nobody reads: each create, and each watch that its caller ends, has one."""
    return stack.enter_context(Path(os.devnull).open("wb"))


def command_of(name: str, *arguments: object, root: Path = CHECKOUT) -> list[str]:
    """The command of a program of a checkout's bench/."""
    return [sys.executable, str(root / "bench" / name), *map(str, arguments)]


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
    jobs_a_call: int = 1
    rates: list[float] = field(default_factory=list)
    calls: int = 0

    async def turn(self, seconds: float) -> None:
        before = cpu_seconds(self.pid)
        calls = await self.call(seconds)
        self.rates.append(calls * self.jobs_a_call / (cpu_seconds(self.pid) - before))
        self.calls += calls

    @property
    def rate(self) -> float:
        """Calls per second of CPU, those of a batch as many as it has jobs."""
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


def batch_request() -> Iterator[bytes]:
    """The same jobs each time, as many as a request may name; all have ended."""
    job_ids = [f"e{number:032x}" for number in range(BATCH)]
    return itertools.repeat(BatchGetPreviewJobsRequest(bucket="docs-1250000000", job_ids=job_ids).SerializeToString())


def is_batch(_request: bytes, reply: bytes) -> bool:
    return len(BatchGetPreviewJobsResponse.FromString(reply).jobs) == BATCH


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
    lines = stack.enter_context(log.open("wb"))
    server = command_of("gateway_server.py", upstream_port, root=root)
    plain = stack.enter_context(started(server, core, root=root))
    known = stack.enter_context(started([*server, token_hash], core, lines, root))
    port, known_port, bearer = int(line_of(plain)), int(line_of(known)), (("authorization", f"Bearer {token}"),)
    call_cached = grpc_caller(port, GET, one_job_request(), is_about, ())
    call_known = grpc_caller(known_port, GET, one_job_request(), is_about, bearer)
    call_known_uncached = grpc_caller(known_port, GET, job_requests(), is_about, bearer + UNCACHED)
    call_batch = grpc_caller(port, SERVICE + "BatchGetPreviewJobs", batch_request(), is_batch, ())
    return [
        Subject("cached Get", plain.pid, call_cached, asks_upstream=False),
        Subject("cached Get, known", known.pid, call_known, asks_upstream=False, log=log),
        Subject("BatchGet, a job", plain.pid, call_batch, asks_upstream=False, jobs_a_call=BATCH),
        Subject("uncached Get", plain.pid, grpc_caller(port, GET, job_requests(), is_about)),
        Subject("uncached Get, known", known.pid, call_known_uncached, log=log),
    ]


def start_bare(stack: ExitStack, upstream_port: str, core: int) -> list[Subject]:
    """The echo and the proxy that do nothing else."""
    echo = stack.enter_context(started(command_of("echo_server.py"), core))
    bare = stack.enter_context(started(command_of("bare_proxy.py", upstream_port), core))
    call_echo = grpc_caller(int(line_of(echo)), "/bench.Bare/Echo", job_requests(), bytes.__eq__)
    call_bare = grpc_caller(int(line_of(bare)), "/bench.Bare/Get", job_requests(), is_body)
    return [
        Subject("grpc.aio echo", echo.pid, call_echo, asks_upstream=False),
        Subject("grpc.aio + aiohttp", bare.pid, call_bare),
    ]


def start_sdks(stack: ExitStack, upstream_port: str, core: int) -> list[Subject]:
    """The vendor's SDK with as many threads as others have calls in flight, and with one."""
    threaded = stack.enter_context(started(command_of("sdk_caller.py", upstream_port, IN_FLIGHT), core))
    single = stack.enter_context(started(command_of("sdk_caller.py", upstream_port, 1), core))
    for sdk in (threaded, single):
        line_of(sdk)
    return [
        Subject(f"SDK, {IN_FLIGHT} threads", threaded.pid, sdk_caller(threaded)),
        Subject("SDK, one thread", single.pid, sdk_caller(single)),
    ]


def build_go() -> Path | None:
    """The program of peers/go; None where it cannot be built, which is said."""
    if (go := shutil.which("go")) is None:
        print("bench: no Go here, so the service that a user would write in Go is not compared", file=sys.stderr)
        return None
    binary = CHECKOUT / "build" / "bench" / "go-peer"
    built = subprocess.run([go, "build", "-o", str(binary), "."], check=False, cwd=CHECKOUT / "bench" / "peers" / "go")
    if built.returncode:
        print("bench: the Go service cannot be built (see above), so it is not compared", file=sys.stderr)
        return None
    return binary


def start_go(stack: ExitStack, upstream_port: str, core: int) -> list[Subject]:
    """The service of peers/go, cached and uncached; nothing where it cannot be built."""
    if (binary := build_go()) is None:
        return []
    service = stack.enter_context(started([str(binary), upstream_port], core))
    port = int(line_of(service))
    call_cached = grpc_caller(port, GET, one_job_request(), is_about, ())
    return [
        Subject("Go, cached", service.pid, call_cached, asks_upstream=False),
        Subject("Go, uncached", service.pid, grpc_caller(port, GET, job_requests(), is_about)),
    ]


def two_cores() -> tuple[int, int]:
    """One for the subjects, one for the load."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("bench: only one core: load and subjects share it, which costs all of them alike", file=sys.stderr)
    return cores[0], cores[-1]
