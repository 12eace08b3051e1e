"""Mutation tests: changes one thing of a module at a time, and asks its tests whether they notice.

Run from the root of a checkout (`make mutants`). Writes each verdict to `build/mutants/results.jsonl`, and ends with 1
when a survivor is not in `accepted.yaml`, an entry there fits nothing, or fewer than 95 % are killed of those that make
a difference.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.mutants import forks
from tests.mutants.accepted import accepted
from tests.mutants.points import mutant
from tests.mutants.sample import SERVER, Candidate, candidates, sample
from tests.mutants.table import ROOT, TABLE

if TYPE_CHECKING:
    from tests.mutants.accepted import Accepted

COUNT, SEED = 300, 20261129
LEAST_KILLED = 0.95
SLOWER, MORE_SECONDS = 4.0, 20.0
"""A mutant's tests may take so many times as long as the module's own, and so many seconds more."""
BUILD = Path("build/mutants")
RESULTS = BUILD / "results.jsonl"
MEMORY = Path("/dev/shm")  # noqa: S108 - SQLite syncs each change: in memory that costs nothing


class Result(NamedTuple):
    """A mutant and what became of it: `killed`, `survived`, or the kind of its acceptance."""

    module: str
    text: str
    line: int
    verdict: str
    seconds: float
    failure: str


class Runner:
    """Judges mutants; the tests of a module have to pass without one first."""

    def __init__(self, reasons: dict[tuple[str, str], Accepted]) -> None:
        self._reasons = reasons
        self._limits: dict[str, float] = {}
        self._folder = (MEMORY if MEMORY.is_dir() else BUILD.resolve()) / f"mutants-{SEED}"

    def run(self, candidate: Candidate) -> Result:
        """The verdict on a mutant."""
        module, number, line, text = candidate
        path = SERVER / module
        name = f"{ROOT}.{module.removesuffix('.py').replace('/', '.')}"
        limit = self._limit(module)
        tree = mutant(path.read_text(), number, TABLE[module].statements)
        verdict = self._judge(module, (name, path.resolve(), tree), limit)
        if verdict.code != 0:
            killed = "killed" if verdict.code is None or verdict.code == 1 else f"killed by error {verdict.code}"
            return Result(module, text, line, killed, verdict.seconds, verdict.failure)
        reason = self._reasons.get((module, text))
        return Result(module, text, line, reason.kind if reason else "survived", verdict.seconds, "")

    def _limit(self, module: str) -> float:
        if module not in self._limits:
            verdict = self._judge(module, None, 600.0)
            if verdict.code != 0:
                raise SystemExit(f"{module}: its tests fail without a mutant: {verdict.failure}")
            self._limits[module] = verdict.seconds * SLOWER + MORE_SECONDS
        return self._limits[module]

    def _judge(self, module: str, tree: tuple[str, Path, object] | None, limit: float) -> forks.Verdict:
        judged = TABLE[module]
        arguments = [f"--basetemp={self._folder}", *(["-k", judged.only] if judged.only else []), *judged.tests]
        try:
            return forks.judge(tree, arguments, BUILD / "child.out", limit)  # type: ignore[arg-type]
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help="below server/docpreview_gateway; all of the table")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--survivors", action="store_true", help="those again that survived in the last run")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    parser.add_argument("--list", action="store_true", help="only say which mutants there would be")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> list[Candidate]:
    modules = options.modules or list(TABLE)
    if not options.survivors:
        return sample(modules, options.count, options.seed)
    again = {(each.module, each.text) for each in _before() if not each.verdict.startswith("killed")}
    return [each for module in modules for each in candidates(module) if (module, each.text) in again]


def _before() -> list[Result]:
    """The results of the last run."""
    return [Result(**json.loads(line)) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def _kept(options: argparse.Namespace) -> list[Result]:
    """What a run goes on from."""
    if options.resume:
        return _before()
    return [each for each in _before() if each.verdict.startswith("killed")] if options.survivors else []


def _report(results: list[Result]) -> float:
    """Print a row for each module; the share of killed ones among those that make a difference."""
    print(f"{'module':36}{'killed':>8}{'survived':>10}{'untested':>10}{'same':>6}")
    total: Counter[str] = Counter()
    for module in dict.fromkeys(each.module for each in results):
        counts = Counter(each.verdict.split()[0] for each in results if each.module == module)
        total += counts
        same = counts["equivalent"] + counts["cosmetic"]
        print(f"{module:36}{counts['killed']:8}{counts['survived']:10}{counts['untested']:10}{same:6}")
    judged = total["killed"] + total["survived"] + total["untested"]
    share = total["killed"] / judged if judged else 1.0
    print(f"{total['killed']} of {judged} killed: {share:.1%}; {len(results) - judged} more make no difference")
    return share


def main() -> int:
    """Run the mutants that were asked for; the exit code."""
    options = _arguments()
    reasons = accepted()
    there = {(each.module, each.text) for module in TABLE for each in candidates(module)}
    stale = [key for key in reasons if key not in there]
    chosen = _chosen(options)
    if options.list:
        print(*(f"{each.module}:{each.line}: {each.text}" for each in chosen), sep="\n")
        return 0
    BUILD.mkdir(parents=True, exist_ok=True)
    forks.preload(BUILD.resolve() / "pycache")
    runner = Runner(reasons)
    results = _kept(options)
    done = {(each.module, each.text, each.line) for each in results}
    with RESULTS.open("w") as file:
        file.writelines(json.dumps(each._asdict()) + "\n" for each in results)
        for number, candidate in enumerate(chosen, 1):
            if (candidate.module, candidate.text, candidate.line) in done:
                continue
            result = runner.run(candidate)
            results.append(result)
            print(json.dumps(result._asdict()), file=file, flush=True)
            said = f"{result.module}:{result.line}: {result.verdict} in {result.seconds:.1f} s: {result.text}"
            print(f"{number}/{len(chosen)} {said}", flush=True)
    share = _report(results)
    for module, text in stale:
        print(f"accepted.yaml fits nothing: {module}: {text}")
    for each in (survived := [each for each in results if each.verdict == "survived"]):
        print(f"survived: {each.module}:{each.line}: {each.text}")
    return int(bool(stale or survived) or share < LEAST_KILLED)


if __name__ == "__main__":
    sys.exit(main())
