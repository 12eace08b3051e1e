"""The cache as callers see it, and the cloud calls that it saves."""

from __future__ import annotations

import uuid
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
    """A gateway with the cache's default ages."""
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
    """A job and the `x-cache` of the answer."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{world.gateway.port}") as channel:
        call = PreviewJobServiceStub(channel).GetPreviewJob(
            GetPreviewJobRequest(bucket=BUCKET, job_id=job_id), metadata=metadata
        )
        job = await call
        trailers = await call.trailing_metadata() or ()
    return job, str(dict(trailers)["x-cache"])


async def test_reads_waits_and_watches_of_a_finished_job_cost_no_cloud_call(cached: World) -> None:
    """A terminal state never changes."""
    job_id = await finished_job(cached)
    cached.emulator.clear_requests()
    assert (await get(cached, job_id))[1] == "hit"
    await cached.client.wait(BUCKET, job_id)
    states = [job.state async for job in cached.client.watch(BUCKET, job_id)]
    assert states == [PreviewJob.STATE_SUCCESS]
    assert cached.emulator.requests == []


async def test_a_repeated_create_shows_its_job_as_it_was_last_seen_and_asks_no_cloud(cached: World) -> None:
    """It would else look as if the job had never begun."""
    await cached.upload("a.pdf", DOCUMENT.read_bytes())
    request_id = str(uuid.uuid4())
    first = await cached.client.create(BUCKET, "a.pdf", output_object="p-${Page}.jpg", request_id=request_id)
    ended = await cached.client.wait(BUCKET, first.job_id)
    cached.emulator.clear_requests()
    again = await cached.client.create(BUCKET, "a.pdf", output_object="p-${Page}.jpg", request_id=request_id)
    assert (again.job_id, again.state) == (first.job_id, PreviewJob.STATE_SUCCESS)
    assert again == ended
    assert cached.emulator.requests == []


async def test_a_no_cache_call_reads_from_the_cloud(cached: World) -> None:
    """The metadata is `cache-control: no-cache`."""
    job_id = await finished_job(cached)
    cached.emulator.clear_requests()
    assert (await get(cached, job_id, ("cache-control", "no-cache")))[1] == "miss"
    assert len(cached.emulator.requests) == 1


async def test_a_cached_job_is_served_stale_while_the_cloud_fails() -> None:
    """`x-cache` says `stale`."""
    async with caching(CacheSettings(active_seconds=0)) as world:
        await world.upload("a.pdf", DOCUMENT.read_bytes())
        world.emulator.hold_jobs()
        job = await world.client.create(BUCKET, "a.pdf", output_object="p-${Page}.jpg")
        world.emulator.add_fault("throttle", "get", times=None)
        copy, outcome = await get(world, job.job_id)
        assert (copy.job_id, outcome) == (job.job_id, "stale")
        world.emulator.release_jobs()


async def test_the_caches_memory_is_in_the_metrics(cached: World) -> None:
    """A gauge of its bytes, and counters of hits and misses."""
    await finished_job(cached)
    size = cached.gateway.registry.get_sample_value("docpreview_cache_bytes")
    assert size is not None
    assert size > 100
    hits = {"tier": "memory", "outcome": "hit"}
    assert cached.gateway.registry.get_sample_value("docpreview_cache_lookups_total", hits)
