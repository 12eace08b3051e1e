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
def test_a_missing_program_skips_its_tests_and_is_one_row_that_counts_them(tmp_path: Path, workers: str) -> None:
    """The row says how to get the program."""
    done = without_helm(tmp_path, "-n", workers)
    assert done.returncode == 0, done.stdout
    assert f"helm 1 {PROGRAMS['helm']}" in " ".join(done.stdout.split())


def test_a_continued_run_counts_what_the_first_one_skipped_too(tmp_path: Path) -> None:
    without_helm(tmp_path)
    done = without_helm(tmp_path, "--continued")
    assert f"helm 2 {PROGRAMS['helm']}" in " ".join(done.stdout.split())


def test_a_program_missing_in_ci_fails_the_test_that_needs_it(tmp_path: Path) -> None:
    """It is named at once with the reason and the way out."""
    done = without_helm(tmp_path, CI="true")
    assert done.returncode == 1
    named = done.stdout.index(f"FAILED {HELM}")
    assert named < done.stdout.index("= FAILURES =")
    assert PROGRAMS["helm"] in done.stdout
