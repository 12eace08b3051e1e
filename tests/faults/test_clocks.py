"""Clock skew far beyond `ledger.fence_slack_seconds`: creates go on, by the cloud's clock, and never make two jobs."""

from __future__ import annotations

import asyncio
import random
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from tests.faults.campaign import Clients, Intent, attributed, cloud
from tests.faults.gateway_process import BUCKET, RECONCILED, GatewayProcess
from tests.faults.history import History, violations
from tests.machine_clock import MachineClock
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_emulator import Emulator

INTENT = Intent(str(uuid.UUID(int=7, version=4)), "first", 0, twins=False, tries_other=False)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Emulator, Clients]]:
    async with (
        cloud() as emulator,
        GatewayProcess(folder, emulator.port) as gateway,
        Clients([gateway.address], random.Random(1)) as clients,  # noqa: S311 - a seed makes it repeatable
    ):
        yield emulator, clients


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
async def test_a_lost_reply_of_a_cloud_with_clock_skew_is_found(tmp_path: Path, ahead: float) -> None:
    """Signatures and the time span of the list are by the cloud's own time: no difference of clocks hides a job."""
    async with running(tmp_path) as (emulator, clients):
        emulator.clock.offset_seconds = ahead
        emulator.add_fault(operation="create", kind="drop_after")
        answers = await clients.ask([INTENT])
        if answers[0].outcome == "info":
            # The list lags: a later one has it.
            await asyncio.sleep(RECONCILED)
        final = await clients.ask([INTENT])
        assert violations(History(answers, final, {}, attributed(emulator))) == []
        assert [record.status for record in emulator.requests if record.operation == "create"] == [None]


async def test_an_unknown_outcome_stays_unknown_while_the_clouds_clock_is_back_and_then_gets_one_job(
    tmp_path: Path,
) -> None:
    """The cloud's clock jumps after the POST was lost: by its time the signature is valid for ten minutes more."""
    async with running(tmp_path) as (emulator, clients):
        emulator.add_fault(operation="create", kind="drop_before")
        answers = await clients.ask([INTENT])
        emulator.clock.offset_seconds = -600.0
        await asyncio.sleep(RECONCILED)
        answers += await clients.ask([INTENT])
        assert {each.reason for each in answers} == {"CREATE_OUTCOME_UNKNOWN"}
        assert emulator.accepted_jobs == 0
        emulator.clock.offset_seconds = 0.0
        final = await clients.ask([INTENT])
        assert violations(History(answers, final, {}, attributed(emulator))) == []


async def test_a_create_during_clock_skew_is_signed_by_the_clouds_clock_and_made(tmp_path: Path) -> None:
    """It was refused with CLOCK_SKEW when records rested on this machine's clock."""
    async with running(tmp_path) as (emulator, clients):
        emulator.clock.offset_seconds = 1200.0
        made = await clients.ask([INTENT])
        emulator.clock.offset_seconds = 0.0
        again = await clients.ask([INTENT])
        assert violations(History(made, again, {}, attributed(emulator))) == []
        assert [each.outcome for each in made] == ["ok"]


async def test_a_job_that_was_read_by_a_clock_a_day_ahead_is_read_again_once_the_clock_is_right(tmp_path: Path) -> None:
    """Each replica, and each for itself and from the other, was told for a day that the job runs."""
    clock = MachineClock(tmp_path / "clock")
    clock.ahead(25)
    with running_redis(tmp_path) as store:
        changes = {"shared_state": {"url": store.url}, "replicas": 2}
        async with cloud() as emulator, AsyncExitStack() as stack:
            gateways = [GatewayProcess(tmp_path / name, emulator.port, changes) for name in ("wrong", "right")]
            gateways[0].variables = clock.variables
            addresses = [each.address for each in gateways]
            await asyncio.gather(*map(stack.enter_async_context, gateways))
            async with Clients(addresses, random.Random(1)) as clients:  # noqa: S311 - as above
                (made,) = await clients.ask([INTENT])
                assert made.outcome == "ok"
                running = {PreviewJob.STATE_SUBMITTED, PreviewJob.STATE_RUNNING}
                assert set(await states(addresses, made.job_id)) <= running
                clock.ahead(0)
                emulator.set_job_state(made.job_id, "Success")
                async with asyncio.timeout(10):
                    while await states(addresses, made.job_id) != [PreviewJob.STATE_SUCCESS] * 2:  # noqa: ASYNC110 - no event tells it
                        await asyncio.sleep(0.1)


async def states(addresses: list[str], job_id: str) -> list[PreviewJob.State.ValueType]:
    """What each gateway says of a job, one after the other."""
    found = []
    for address in addresses:
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = PreviewJobServiceStub(channel)
            job = await stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id=job_id), timeout=10)
        found.append(job.state)
    return found
