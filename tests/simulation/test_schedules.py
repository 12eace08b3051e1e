"""Random schedules in the simulated world: what must hold, whatever fails.

A seed that fails is run again by `python -m tests.simulation.campaign SEED 1`, which prints all that happened.
"""

from __future__ import annotations

import pytest

from tests.simulation.schedules import run_seed

SEEDS = 300
MANY_SEEDS = 10_000
PART, MANY_PART = 100, 1000


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_random_faults_break_no_promise(first: int) -> None:
    for seed in range(first, first + PART):
        run_seed(seed)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(SEEDS, SEEDS + MANY_SEEDS, MANY_PART))
def test_many_random_faults_break_no_promise(first: int) -> None:
    for seed in range(first, first + MANY_PART):
        run_seed(seed)
