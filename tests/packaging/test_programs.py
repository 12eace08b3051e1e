"""What happens to tests whose program is missing, as `make test` and CI see it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.packaging.project import ROOT, run, tool
from tests.programs import PROGRAMS

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

HELM = "tests/chart/test_rendering.py::test_the_schemas_refuse_a_misspelt_key"


def without_helm(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A run of one test that needs helm, on a machine that has none."""
    bare = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    bare |= {"PATH": str(folder), "HOME": str(folder), **environment}
    return run(tool("pytest"), "-o", f"cache_dir={folder}", *options, HELM, cwd=ROOT, env=bare)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_program_that_is_missing(tmp_path: Path, workers: str) -> None:
    """One row says how many tests were skipped for want of it, and how to get it."""
    done = without_helm(tmp_path, "-n", workers)
    assert done.returncode == 0, done.stdout
    assert f"helm 1 {PROGRAMS['helm']}" in " ".join(done.stdout.split())


def test_second_run_of_a_tier(tmp_path: Path) -> None:
    """Its table has what the first skipped, too."""
    without_helm(tmp_path)
    done = without_helm(tmp_path, "--continued")
    assert f"helm 2 {PROGRAMS['helm']}" in " ".join(done.stdout.split())


def test_program_that_is_missing_in_ci(tmp_path: Path) -> None:
    """The test fails, and is named at once with the reason and the way out."""
    done = without_helm(tmp_path, CI="true")
    assert done.returncode == 1
    named = done.stdout.index(f"FAILED {HELM}")
    assert named < done.stdout.index("= FAILURES =")
    assert PROGRAMS["helm"] in done.stdout
