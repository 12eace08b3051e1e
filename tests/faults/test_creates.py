"""Creates with `request_id` in a storm: killed gateways, lost replies, late requests, lists that lag behind."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from tests.faults.storm import Plan, storm
from tests.faults.vendor import vendor_storm

if TYPE_CHECKING:
    from pathlib import Path

SEED = int(os.environ.get("FAULTS_SEED", "1"))
FULL = os.environ.get("FAULTS_FULL") == "1"


def soaks() -> list[Plan]:
    """One of some minutes; FAULTS_FULL=1: five that take hours together."""
    if FULL:
        return [Plan(seed, ids=10_000, kills=200, pauses=20) for seed in range(SEED, SEED + 5)]
    return [
        Plan(SEED, ids=2_000, kills=20, pauses=10),
        Plan(SEED, ids=1_000, kills=15, gateways=3, store_kills=20, pauses=15),
    ]


@pytest.mark.timeout(240)
async def test_never_two_jobs(tmp_path: Path) -> None:
    """Whatever breaks, an id has at most one job, one answer, and in the end a known one (I1 to I6)."""
    outcome = await storm(Plan(SEED, ids=300, kills=5), tmp_path)
    assert outcome.violations == [], str(outcome)
    assert outcome.kills == 5


@pytest.mark.timeout(240)
async def test_replicas_whose_redis_is_killed(tmp_path: Path) -> None:
    """As above, where three gateways share a ledger; each of them may stand still and go on as if nothing had been."""
    outcome = await storm(Plan(SEED, ids=100, kills=3, gateways=3, store_kills=5, pauses=3), tmp_path)
    assert outcome.violations == [], str(outcome)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("plan", soaks(), ids=str)
async def test_an_id_never_has_two_jobs_in_a_long_fault_campaign(tmp_path: Path, plan: Plan) -> None:
    """As above, for longer."""
    outcome = await storm(plan, tmp_path)
    print(f"\n{outcome}")  # noqa: T201 - the figures
    assert outcome.violations == [], str(outcome)
    assert outcome.kills == plan.kills


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_without_the_gateway(caplog: pytest.LogCaptureFixture) -> None:
    """The vendor's SDK under the same faults bills creates more than once, which is what the gateway is for."""
    caplog.set_level(logging.CRITICAL)
    bill = await vendor_storm(Plan(SEED, ids=100, kills=0))
    print(f"\n{bill}")  # noqa: T201 - the figures
    assert bill.surplus > 0
