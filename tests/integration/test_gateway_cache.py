"""What a caller sees of the cache, and how little the cloud sees of the callers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from docpreview_gateway.settings.upstream import CacheSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, World, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"


@pytest.fixture
async def cached() -> AsyncIterator[World]:
    """A gateway that keeps answers."""
    async with caching(CacheSettings()) as world:
        yield world


@asynccontextmanager
async def caching(cache: CacheSettings) -> AsyncIterator[World]:
    async with (
        Emulator() as emulator,
        Gateway(settings(emulator, cache=cache)) as gateway,
        DocPreviewClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        yield World(emulator, gateway, client)


async def finished_job(world: World) -> str:
    await world.upload("a.pdf", DOCUMENT.read_bytes())
    job = await world.client.create(BUCKET, "a.pdf", output_object="p-${Page}.jpg")
    return (await world.client.wait(BUCKET, job.job_id)).job_id


async def get(world: World, job_id: str, *metadata: tuple[str, str]) -> tuple[PreviewJob, str]:
    """A job and the `x-cache` that came with it."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{world.gateway.port}") as channel:
        call = PreviewJobServiceStub(channel).GetPreviewJob(
            GetPreviewJobRequest(bucket=BUCKET, job_id=job_id), metadata=metadata
        )
        job = await call
        trailers = await call.trailing_metadata() or ()
    return job, str(dict(trailers)["x-cache"])


async def test_job_that_has_ended(cached: World) -> None:
    """It costs the cloud nothing more, however many ask for it, wait for it or watch it."""
    job_id = await finished_job(cached)
    cached.emulator.clear_requests()
    assert (await get(cached, job_id))[1] == "hit"
    await cached.client.wait(BUCKET, job_id)
    states = [job.state async for job in cached.client.watch(BUCKET, job_id)]
    assert states == [PreviewJob.STATE_SUCCESS]
    assert cached.emulator.requests == []


async def test_caller_that_wants_the_clouds_word(cached: World) -> None:
    """`cache-control: no-cache` reads through."""
    job_id = await finished_job(cached)
    cached.emulator.clear_requests()
    assert (await get(cached, job_id, ("cache-control", "no-cache")))[1] == "miss"
    assert len(cached.emulator.requests) == 1


async def test_cloud_that_fails() -> None:
    """A job that is known is answered from the copy, and the answer says so."""
    async with caching(CacheSettings(active_seconds=0)) as world:
        await world.upload("a.pdf", DOCUMENT.read_bytes())
        world.emulator.hold_jobs()
        job = await world.client.create(BUCKET, "a.pdf", output_object="p-${Page}.jpg")
        world.emulator.add_fault("throttle", "get", times=None)
        copy, told = await get(world, job.job_id)
        assert (copy.job_id, told) == (job.job_id, "stale")
        world.emulator.release_jobs()


async def test_memory_of_the_cache(cached: World) -> None:
    """It is in the metrics."""
    await finished_job(cached)
    size = cached.gateway.registry.get_sample_value("docpreview_cache_bytes")
    assert size is not None
    assert size > 100
    hits = {"tier": "memory", "outcome": "hit"}
    assert cached.gateway.registry.get_sample_value("docpreview_cache_lookups_total", hits)
