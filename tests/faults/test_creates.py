"""Creates with `request_id` in a storm: killed gateways, lost replies, late requests, lists that lag behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.faults.storm import Plan, storm

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(240)
async def test_never_two_jobs(tmp_path: Path) -> None:
    """Whatever breaks, an id has at most one job, one answer, and in the end a known one (I1 to I6)."""
    outcome = await storm(Plan(seed=int(os.environ.get("DOCPREVIEW_TEST_SEED", "1")), ids=300, kills=5), tmp_path)
    print(outcome)
    assert outcome.violations == []
    assert outcome.kills == 5
