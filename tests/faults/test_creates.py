"""Fault campaigns of creates with `request_id`: killed gateways, lost replies, late requests, lists that lag."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from tests.faults.campaign import Plan, run_campaign
from tests.faults.vendor import run_vendor_campaign

if TYPE_CHECKING:
    from pathlib import Path

SEED = int(os.environ.get("FAULTS_SEED", "1"))
FULL = os.environ.get("FAULTS_FULL") == "1"


def soaks() -> list[Plan]:
    """Plans of `make soak`, some minutes each; with FAULTS_FULL=1 five plans that take hours."""
    if FULL:
        return [Plan(seed, ids=10_000, kills=200, pauses=20) for seed in range(SEED, SEED + 5)]
    return [
        Plan(SEED, ids=2_000, kills=20, pauses=10),
        Plan(SEED, ids=1_000, kills=15, gateways=3, store_kills=20, pauses=15),
    ]


@pytest.mark.timeout(240)
async def test_an_id_never_has_two_jobs_in_a_fault_campaign(tmp_path: Path) -> None:
    """One gateway: an id has at most one job and one answer, and finally a known outcome (I1 to I6)."""
    report = await run_campaign(Plan(SEED, ids=300, kills=5), tmp_path)
    assert report.violations == [], str(report)
    assert report.kills == 5


@pytest.mark.timeout(240)
async def test_an_id_never_has_two_jobs_at_replicas_whose_redis_is_killed(tmp_path: Path) -> None:
    """Three gateways share a ledger in Redis; any of them may be stopped by SIGSTOP and continued."""
    report = await run_campaign(Plan(SEED, ids=100, kills=3, gateways=3, store_kills=5, pauses=3), tmp_path)
    assert report.violations == [], str(report)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("plan", soaks(), ids=str)
async def test_an_id_never_has_two_jobs_in_a_long_fault_campaign(tmp_path: Path, plan: Plan) -> None:
    """The plans of `make soak`, for one gateway and for three."""
    report = await run_campaign(plan, tmp_path)
    print(f"\n{report}")  # noqa: T201 - the figures
    assert report.violations == [], str(report)
    assert report.kills == plan.kills


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_the_vendors_sdk_without_the_gateway_bills_creates_more_than_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Baseline of the campaigns: the same faults without the gateway."""
    caplog.set_level(logging.CRITICAL)
    bill = await run_vendor_campaign(Plan(SEED, ids=100, kills=0))
    print(f"\n{bill}")  # noqa: T201 - the figures
    assert bill.surplus > 0
