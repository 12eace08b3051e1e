"""WatchPreviewJobs over sockets: a thousand jobs in one stream."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from docpreview.v1.error_reason_pb2 import ERROR_REASON_JOB_NOT_FOUND
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import WatchPreviewJobsRequest, WatchPreviewJobsResponse
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from docpreview_gateway.settings.sections import WatchSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, World, settings
from tests.integration.test_gateway_lifecycle import held_job, to_the_end
from tests.unit.rpc.conftest import error_info, rich

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
JOBS = 1000
POLL_SECONDS = 10
MISSING = "d" + "0" * 32


@pytest.fixture
async def calm() -> AsyncIterator[World]:
    """A world whose gateway polls seldom, so that a thousand jobs do not keep this process busy."""
    watch = WatchSettings(poll_floor_seconds=POLL_SECONDS, poll_cap_seconds=POLL_SECONDS)
    async with (
        Emulator() as emulator,
        Gateway(settings(emulator, watch=watch)) as gateway,
        DocPreviewClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        yield World(emulator, gateway, client)


async def held_jobs(world: World, count: int) -> list[str]:
    """Ids of so many jobs that are held in Running."""
    world.emulator.hold_jobs()
    await world.upload("seven.pdf", DOCUMENT.read_bytes())
    creating = asyncio.Semaphore(20)

    async def create(number: int) -> str:
        async with creating:
            job = await world.client.create(BUCKET, "seven.pdf", output_object=f"out/{number}/p-${{Page}}.png")
        return job.job_id

    return await asyncio.gather(*map(create, range(count)))


async def test_jobs_are_followed_to_their_pages_in_one_stream(calm: World) -> None:
    """The present state of each, the end of each with addresses, an error for an id that there is not, and OK."""
    job_ids = await held_jobs(calm, 20)
    request = WatchPreviewJobsRequest(bucket=BUCKET, job_ids=[*job_ids, MISSING])
    request.page_url_ttl.seconds = 60
    states: dict[str, list[int]] = {job_id: [] for job_id in job_ids}
    errors = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{calm.gateway.port}") as channel, asyncio.timeout(90):
        async for event in PreviewJobServiceStub(channel).WatchPreviewJobs(request):
            if event.HasField("error"):
                errors.append((event.error.job_id, event.error.reason))
            elif event.HasField("job"):
                states[event.job.job_id].append(event.job.state)
                if event.job.state == PreviewJob.STATE_SUCCESS:
                    assert len(event.job.result.pages) == 7
                    assert all(page.url for page in event.job.result.pages)
            if all(states.values()):
                calm.emulator.release_jobs()
    assert errors == [(MISSING, ERROR_REASON_JOB_NOT_FOUND)]
    assert {tuple(dict.fromkeys((seen[0], seen[-1]))) for seen in states.values()} <= {
        (PreviewJob.STATE_SUBMITTED, PreviewJob.STATE_SUCCESS),
        (PreviewJob.STATE_RUNNING, PreviewJob.STATE_SUCCESS),
    }


@pytest.mark.slow
async def test_a_thousand_jobs_in_one_stream_do_not_burst_the_cloud_and_leave_other_calls_their_latency(
    calm: World,
) -> None:
    """Ten reads at a time come first, then a poll of each job in its interval, and all ends are told."""
    job_ids = await held_jobs(calm, JOBS)
    states: dict[str, int] = {}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{calm.gateway.port}") as channel, asyncio.timeout(240):
        begin, ended = asyncio.get_running_loop().time(), False
        async for event in PreviewJobServiceStub(channel).WatchPreviewJobs(
            WatchPreviewJobsRequest(bucket=BUCKET, job_ids=job_ids)
        ):
            states[event.job.job_id] = event.job.state
            if len(states) == JOBS and not ended:
                ended = True
                seconds = asyncio.get_running_loop().time() - begin
                polls = sum(asked.operation == "get" for asked in calm.emulator.requests)
                # The first read of each, and then one in each interval, which has a jitter of 20 %.
                assert polls <= JOBS * (1 + seconds / (0.8 * POLL_SECONDS))
                await calm.client.get(BUCKET, job_ids[0], timeout=timedelta(seconds=5))
                for job_id in job_ids:
                    calm.emulator.set_job_state(job_id, "Success")
    assert states == dict.fromkeys(job_ids, PreviewJob.STATE_SUCCESS)


async def test_a_drain_ends_a_stream_of_many_jobs_immediately_with_shutting_down(world: World) -> None:
    """UNAVAILABLE with a retry delay, as a watch."""
    job_id = await held_job(world.emulator, world.client)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{world.gateway.port}") as channel:
        stream = PreviewJobServiceStub(channel).WatchPreviewJobs(
            WatchPreviewJobsRequest(bucket=BUCKET, job_ids=[job_id])
        )
        assert isinstance(await stream.read(), WatchPreviewJobsResponse)
        await world.gateway.__aexit__(None, None, None)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await to_the_end(stream)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert error_info(caught.value).reason == "SHUTTING_DOWN"
    assert any(detail.type_url.endswith("RetryInfo") for detail in rich(caught.value).details)
