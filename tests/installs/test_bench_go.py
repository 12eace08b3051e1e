"""The Go service of `make bench`, which is built here."""

from __future__ import annotations

import sys

import pytest

from tests.packaging.project import ROOT, run
from tests.programs import need

pytestmark = pytest.mark.slow

GO_ALONE = """
from run import measure
from subjects import start_go
for (subject,) in measure(lambda *where: [(each,) for each in start_go(*where)], 1, 0.1):
    print(subject.name, subject.rate)
"""


def test_the_go_service_answers_cached_and_uncached() -> None:
    """As a subject of `make bench`, whose calls check the answers."""
    need("go")
    ran = run(sys.executable, "-c", GO_ALONE, cwd=ROOT / "bench")
    assert ran.returncode == 0, ran.stderr
    rates = dict(line.rsplit(" ", 1) for line in ran.stdout.splitlines())
    assert {"Go, cached", "Go, uncached"} == set(rates)
    assert all(float(rate) > 0 for rate in rates.values())


@pytest.mark.long
def test_the_go_service_makes_the_jobs_of_the_day() -> None:
    """All five services poll it, since it cannot be watched; those that come after the end get it from the LRU."""
    need("go")
    ran = run(*(sys.executable, ROOT / "bench" / "day.py", "--jobs", 4, "--seconds", 3, "--median", 1, "--idle", 0.4))
    assert ran.returncode == 0, ran.stderr
    (row,) = [line.split() for line in ran.stdout.splitlines() if line.startswith("Go service") and "SDK" not in line]
    *_, reads, creates, callbacks, _three, _two = row
    assert int(creates) == 10_000
    assert int(callbacks) == 0
    assert int(reads) > 10_000
