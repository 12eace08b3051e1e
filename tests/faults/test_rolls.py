"""Rolling restarts under load: no call fails, and every watcher sees the terminal state."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from tests.faults.fleet import (
    DOCUMENT,
    WATCHERS,
    Fleet,
    Load,
    Service,
    last_state,
    plain_callers,
    shipped_callers,
)
from tests.faults.gateway_process import BUCKET, REGION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ROLLS = [
    pytest.param(3, id="3 rolls"),
    pytest.param(int(os.environ.get("FAULTS_ROLLS", "50")), id="many rolls", marks=[pytest.mark.soak]),
]

AGE = 1.0
ENDPOINT_AWARE = {
    "limits": {"connection_age_seconds": AGE},
    "drain": {"delay_seconds": 1.1 * AGE + 1.5, "grace_seconds": 20},
}
"""The advice of docs/configuration.md with shorter times: the balancer below polls readiness every 0.1 s."""

FAST = {"drain": {"delay_seconds": 0.5, "grace_seconds": 20}}


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as running:
        running.hold_jobs()
        running.put_object(BUCKET, REGION, DOCUMENT, b"%PDF-1.4")
        yield running


async def rolled(
    fleet: Fleet, emulator: Emulator, watchers: DocPreviewClient, load: Load, plan: tuple[int, int]
) -> None:
    """Make all rolls under the load, each with new watchers, whose jobs end when the roll is over."""
    rolls, connections = plan
    async with load.running():
        for _ in range(rolls):
            jobs = [await new_job(watchers) for _ in range(WATCHERS)]
            watches = [asyncio.create_task(last_state(watchers, job)) for job in jobs]
            await fleet.roll(connections)
            for job in jobs:
                emulator.set_job_state(job, "Success")
            ended = await asyncio.wait_for(asyncio.gather(*watches), 30)
            assert ended == [PreviewJob.STATE_SUCCESS] * WATCHERS
    print(f"\n{fleet.rolls} rolls: {dict(load.results)}")  # noqa: T201 - the figures
    assert load.results.keys() == {"OK"}, load.failures[:5]


async def new_job(client: DocPreviewClient) -> str:
    return (await client.create(BUCKET, DOCUMENT, output_object="out/p-${Page}.jpg")).job_id


@pytest.mark.parametrize("rolls", ROLLS)
@pytest.mark.timeout(1800)
async def test_plain_callers_behind_a_balancer_see_no_failure_when_the_drain_outlasts_connections(
    emulator: Emulator, tmp_path: Path, rolls: int
) -> None:
    """These callers retry nothing; some of their calls are creates."""
    async with (
        Fleet(tmp_path, emulator.port, ENDPOINT_AWARE) as fleet,
        Service(fleet) as service,
        DocPreviewClient(service.address) as watchers,
        plain_callers(service.address, await new_job(watchers)) as load,
    ):
        await rolled(fleet, emulator, watchers, load, (rolls, 0))


@pytest.mark.parametrize("rolls", ROLLS)
@pytest.mark.timeout(1800)
async def test_the_shipped_client_sees_no_failure_during_a_fast_drain(
    emulator: Emulator, tmp_path: Path, rolls: int
) -> None:
    """Its service config retries calls that a stopping server cancels."""
    async with Fleet(tmp_path, emulator.port, FAST) as fleet:
        target = "ipv4:" + ",".join(each.address for each in fleet.replicas)
        async with (
            DocPreviewClient(target) as watchers,
            shipped_callers(target, await new_job(watchers)) as load,
        ):
            await rolled(fleet, emulator, watchers, load, (rolls, 1))
