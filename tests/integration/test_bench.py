"""Every subject of `make bench` and every system of `make bench-day` runs; figures of so short runs say nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.packaging.project import ROOT, run

pytestmark = pytest.mark.long

SUBJECTS = (
    "grpc.aio echo",
    "grpc.aio + aiohttp",
    "cached Get",
    "cached Get, known",
    "BatchGet, a job",
    "uncached Get",
    "uncached Get, known",
    "Watch update",
    "grpc.aio stream",
    "SDK, 32 threads",
    "SDK, one thread",
)
SYSTEMS = {"SDK in each service": 0, "gateway, polling": 0, "gateway, callbacks": 10_000, "- and all watch": 10_000}
"""The systems of the day, and how many of 10,000 jobs the cloud calls back."""


def without_go() -> dict[str, str]:
    """Surroundings in which there is no Go."""
    folders = [each for each in os.environ["PATH"].split(os.pathsep) if not Path(each, "go").exists()]
    return os.environ | {"PATH": os.pathsep.join(folders)}


def rows(output: str, name: str) -> list[list[str]]:
    """The columns of every row of a table's subject."""
    return [line.removeprefix(name).split() for line in output.splitlines() if line.startswith(f"{name} ")]


def test_every_subject_of_the_comparison_is_called_and_gets_a_rate() -> None:
    """So is the memory of a watch. A promise may be broken in so short a run; without Go the rest is compared."""
    ran = run(
        *(sys.executable, ROOT / "bench" / "run.py", "--rounds", 1, "--seconds", 0.1, "--watches", 20),
        env=without_go(),
    )
    assert ran.returncode in {0, 1}, ran.stderr
    assert "no Go here" in ran.stderr
    for name in SUBJECTS:
        assert float(rows(ran.stdout, name)[0][0]) > 0
    comparison, memory = rows(ran.stdout, "Watch update")[1], rows(ran.stdout, "Watch")[-1]
    assert comparison[:2] == ["grpc.aio", "stream"]
    assert len(memory) == 3
    assert "own part of a Watch" in ran.stdout


def test_every_system_of_the_day_makes_and_follows_all_jobs() -> None:
    """With callbacks, and where all watch, the cloud is read once for each job."""
    ran = run(
        *(sys.executable, ROOT / "bench" / "day.py", "--jobs", 4, "--seconds", 3, "--median", 1, "--idle", 0.4),
        env=without_go(),
    )
    assert ran.returncode == 0, ran.stderr
    assert "no Go here" in ran.stderr
    for name, called_back in SYSTEMS.items():
        *_, reads, creates, callbacks, _three, _two = rows(ran.stdout, name)[0]
        assert int(creates) == 10_000
        assert int(callbacks) == called_back
        assert int(reads) >= 10_000
    assert rows(ran.stdout, "- and all watch")[0][-5] == "10000"
    assert "4.00" in rows(ran.stdout, "gateway, callbacks")[1]
