"""Which mutants are run: drawn by a seed, from each module by its size, of what is billed twice as many."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.mutants.points import points
from tests.mutants.table import ROOT, TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

SERVER = Path("server") / ROOT
PER_LINE = 2
"""Mutants of one line, at most: a long table does not crowd out the rest. Lua and SQL have no such bound."""


NAMES = re.compile(r"^module: .* in `(log|Result) = ")
"""Mutants that change a name only, of a logger or a type."""


class Candidate(NamedTuple):
    """A mutant: `number` is its place in the module's points."""

    module: str
    number: int
    line: int
    text: str


def candidates(module: str) -> list[Candidate]:
    """All mutants of a module."""
    source = (SERVER / module).read_text()
    return [
        Candidate(module, index, *point[:2]) for index, point in enumerate(points(source, TABLE[module].statements))
    ]


def sample(modules: Iterable[str], count: int, seed: int) -> list[Candidate]:
    """About `count` mutants, at least one of each module; what is billed comes first."""
    # Its own generator for each module, so that a change of one leaves the others' mutants as they were.
    shuffled = {module: _shuffled(module, seed) for module in modules}
    weights = {module: len(there) ** 0.75 * (1 + TABLE[module].money) for module, there in shuffled.items()}
    share = count / sum(weights.values())
    return [
        candidate
        for module, there in shuffled.items()
        for candidate in sorted(there[: max(1, round(weights[module] * share))])
    ]


def _shuffled(module: str, seed: int) -> list[Candidate]:
    there = candidates(module)
    random.Random(f"{seed} {module}").shuffle(there)  # noqa: S311 - a sample
    if TABLE[module].statements:
        return there
    lines: dict[int, int] = {}
    chosen = []
    for candidate in there:
        if NAMES.match(candidate.text):
            continue
        lines[candidate.line] = lines.get(candidate.line, 0) + 1
        if lines[candidate.line] <= PER_LINE:
            chosen.append(candidate)
    return chosen
