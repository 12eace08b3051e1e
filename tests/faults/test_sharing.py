"""Fault campaigns in which several callers, and another program, share documents and outputs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.history import Counted, overspent
from tests.faults.sharing import SharingPlan, run_sharing_campaign
from tests.faults.test_creates import SEED

if TYPE_CHECKING:
    from pathlib import Path


def soaks() -> list[SharingPlan]:
    """Five plans of `make soak`: replicas whose store is lost, a cloud without echo, and a single gateway."""
    common: dict[str, Any] = {"ids": 2_000, "kills": 15, "pauses": 10, "jumps": 20, "full": 10}
    return [
        SharingPlan(SEED, gateways=3, store_kills=15, losses=3, **common),
        SharingPlan(SEED + 1, gateways=2, store_kills=15, losses=3, **common),
        SharingPlan(SEED + 2, gateways=3, store_kills=15, echo=False, **common),
        SharingPlan(SEED + 3, gateways=1, **common),
        SharingPlan(SEED + 4, gateways=1, echo=False, **common),
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_callers_that_share_documents_and_outputs_are_told_their_own_jobs_and_pay_for_what_they_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """I1 to I6; the job told is that of the id and body; pages made are pages counted, and no budget is exceeded."""
    caplog.set_level(logging.CRITICAL)
    plan = SharingPlan(SEED, ids=200, kills=3, pauses=2, store_kills=2, losses=1, jumps=4, full=2)
    report = await run_sharing_campaign(plan, tmp_path)
    print(f"\n{report}")  # noqa: T201 - the figures
    assert report.violations == [], str(report)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("plan", soaks(), ids=str)
async def test_callers_that_share_everything_are_told_their_own_jobs_in_a_long_campaign(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, plan: SharingPlan
) -> None:
    """The plans of `make soak`."""
    caplog.set_level(logging.CRITICAL)
    report = await run_sharing_campaign(plan, tmp_path)
    print(f"\n{report}")  # noqa: T201 - the figures
    assert report.violations == [], str(report)


@pytest.mark.parametrize(
    ("used", "reserved", "made", "exact", "broken"),
    [
        (5, 0, 5, True, ""),
        (5, 2, 7, True, "P5"),
        (6, 0, 5, True, "P5"),
        (5, 2, 7, False, ""),
        (5, 1, 7, False, "P5"),
        (11, 0, 11, True, "P4"),
    ],
)
def test_pages_that_are_not_counted_or_beyond_a_budget_are_reported(
    used: int, reserved: int, made: int, *, exact: bool, broken: str
) -> None:
    """Each line begins with the name of its promise."""
    lines = overspent([Counted("poor", 10, used, reserved, made)], exact=exact)
    assert [line[:2] for line in lines] == ([broken] if broken else [])
