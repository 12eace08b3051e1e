"""Calls per second of CPU: a bare `grpc.aio` echo, `GetPreviewJob`, its peers, in one run.

Each subject is a process of its own, pinned to one core; the canned upstream and the load generator share another. The
subjects take turns, round by round, so that a busy machine is unfair to none of them, and the median of the rounds
counts. CPU is what the kernel charges the subject's process, in user and system mode, its threads included. The SDK
calls once with as many threads as the gateway has calls in flight, and once from a single thread; the better counts.

A bare proxy, `grpc.aio` and one GET by aiohttp and nothing else, shows what these two libraries leave for the gateway;
the Go service of peers/go what a user would write instead, where Go is there to build it.

Watches are compared with a bare stream of messages of the same size, by updates that come for a second of CPU, and by
the memory of each, for which both start anew.

A ratio is that of two subjects in the same round, told as the lowest, the median and the highest of the rounds. Exits
with 1 when the median breaks a promise; an aim that is not reached is only told.

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
from contextlib import ExitStack, contextmanager
from math import ceil, floor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from ratios import Comparison, Ratio, table
from subjects import (
    CHECKOUT,
    Subject,
    command_of,
    given_jobs,
    line_of,
    start_bare,
    start_gateways,
    start_go,
    start_sdks,
    started,
    two_cores,
)
from watches import report_memory, start_watches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROMISED_OF_SDK = 1.0
PROMISED_OF_BARE_PROXY = 0.5
PROMISED_CACHED_OF_ECHO = 0.8
PROMISED_KNOWN_OF_CACHED = 0.7
PROMISED_BATCH_OF_CACHED = 8.0
PROMISED_WATCH_OF_STREAM = 0.3
PROMISED_OF_BASE = 0.97


MEMORY_ROUNDS = 3


def start(stack: ExitStack, upstream_port: str, core: int) -> list[tuple[Subject, ...]]:
    """Everything, one after the other."""
    starts = (start_bare, start_gateways, start_watches, start_sdks, start_go)
    return [(subject,) for begin in starts for subject in begin(stack, upstream_port, core)]


def measure(
    start: Callable[[ExitStack, str, int], list[tuple[Subject, ...]]], rounds: int, seconds: float
) -> list[tuple[Subject, ...]]:
    """All rounds of all groups of subjects; those of a group are called at the same time."""
    subject_core, load_core = two_cores()
    with ExitStack() as stack:
        upstream_port = line_of(stack.enter_context(started(command_of("canned_upstream.py"), load_core)))
        groups = start(stack, upstream_port, subject_core)
        subjects = list(itertools.chain(*groups))
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        os.sched_setaffinity(0, {load_core})
        loop = stack.enter_context(asyncio.Runner())  # one for all: gRPC's events of ended streams come later
        for subject in subjects:
            loop.run(subject.call(0.5))  # imports, connections and caches of code are warm from here on
        given = given_jobs(upstream_port)
        for number, group in itertools.product(range(rounds), groups):
            loop.run(turns(group, seconds))
            print(f"\rround {number + 1} of {rounds}: {group[-1].name:<20}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        if given_jobs(upstream_port) - given < sum(subject.calls for subject in subjects if subject.asks_upstream):
            raise SystemExit("bench: not every call went to the upstream, so the comparison is void")
        for log in {subject.log for subject in subjects if subject.log}:
            if log.read_bytes().count(b"\n") < sum(subject.calls for subject in subjects if subject.log == log):
                raise SystemExit("bench: not every call of a known caller has a line, so the comparison is void")
    return groups


async def turns(group: tuple[Subject, ...], seconds: float) -> None:
    await asyncio.gather(*(subject.turn(seconds) for subject in group))


def report(subjects: list[Subject]) -> None:
    print(f"{'subject':<20}{'calls per CPU second':>22}{'us of CPU a call':>18}{'lowest..highest':>18}")
    for subject in subjects:
        spread = f"{min(subject.rates):.0f}..{max(subject.rates):.0f}"
        print(f"{subject.name:<20}{subject.rate:>22.0f}{1e6 / subject.rate:>18.1f}{spread:>18}")


def comparisons(subjects: list[Subject]) -> list[Comparison]:
    """What is worth comparing, with promises and aims; the better of the SDK's two is its peer."""
    named = {subject.name: subject for subject in subjects}
    sdk = max((subject for subject in subjects if subject.name.startswith("SDK")), key=lambda subject: subject.rate)

    def compare(name: str, peer: str, promise: float | None = None, aim: float | None = None) -> Comparison:
        return Comparison(name, peer, Ratio.of(named[name].rates, named[peer].rates), promise, aim)

    compared = [
        compare("uncached Get", sdk.name, PROMISED_OF_SDK, 1.7),
        compare("uncached Get", "grpc.aio + aiohttp", PROMISED_OF_BARE_PROXY, 0.75),
        compare("cached Get", "grpc.aio echo", PROMISED_CACHED_OF_ECHO, 0.9),
        compare("cached Get, known", "cached Get", PROMISED_KNOWN_OF_CACHED),
        compare("uncached Get, known", "uncached Get"),
        compare("BatchGet, a job", "cached Get", PROMISED_BATCH_OF_CACHED, 1 / 0.03),
        compare("Watch update", "grpc.aio stream", PROMISED_WATCH_OF_STREAM),
    ]
    if "Go, cached" in named:
        compared += [compare("cached Get", "Go, cached"), compare("uncached Get", "Go, uncached")]
    return compared


def compare_with_peers(rounds: int, seconds: float, watches: int) -> tuple[list[Subject], bool]:
    """The subjects, and whether every promise is kept."""
    subjects = list(itertools.chain(*measure(start, rounds, seconds)))
    report(subjects)
    compared = comparisons(subjects)
    print(f"\n{table(compared)}\n")
    report_memory(MEMORY_ROUNDS, watches)
    return subjects, all(comparison.kept for comparison in compared)


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
    parser.add_argument("--watches", type=int, default=1000, help="watches of a round of their memory (default 1000)")
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
        subjects, good = compare_with_peers(options.rounds or 7, options.seconds or 2.0, options.watches)
    if options.json:
        options.json.write_text(json.dumps({subject.name: subject.rates for subject in subjects}, indent=2) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
