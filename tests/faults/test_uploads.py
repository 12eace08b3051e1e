"""Fault campaigns of uploads by callers that share keys, and the checker of their history."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.faults.test_creates import SEED
from tests.faults.uploading import UploadPlan, run_upload_campaign

if TYPE_CHECKING:
    from pathlib import Path


def soaks() -> list[UploadPlan]:
    """Plans of `make soak`."""
    return [
        UploadPlan(SEED, ids=1_500, large=60, kills=20, pauses=10, jumps=30),
        UploadPlan(SEED + 1, ids=1_500, large=60, kills=20, pauses=10, jumps=30, gateways=3),
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_callers_that_share_keys_get_their_own_uploads_or_true_refusals(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """U1 to U6."""
    caplog.set_level(logging.CRITICAL)
    report = await run_upload_campaign(UploadPlan(SEED, ids=120, large=8, kills=3, pauses=2, jumps=6), tmp_path)
    print(f"\n{report}")  # noqa: T201 - the figures
    assert report.violations == [], str(report)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("plan", soaks(), ids=str)
async def test_callers_that_share_keys_get_their_own_uploads_in_a_long_campaign(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, plan: UploadPlan
) -> None:
    """The plans of `make soak`."""
    caplog.set_level(logging.CRITICAL)
    report = await run_upload_campaign(plan, tmp_path)
    print(f"\n{report}")  # noqa: T201 - the figures
    assert report.violations == [], str(report)
