"""Deduplication of creates: the same document and options cost one job at the emulated cloud."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview.v1.usage_service_pb2 import GetUsageRequest, Usage
from docpreview.v1.usage_service_pb2_grpc import UsageServiceStub
from docpreview_emulator import Emulator
from docpreview_gateway.settings.access import PolicySettings
from docpreview_gateway.settings.sections import SharedStateSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, OTHER_BUCKET, REGION, settings
from tests.integration.gateway_processes import configuration, running
from tests.integration.identity import Policy, bearer
from tests.unit.rpc.conftest import error_info

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.settings.loading import Settings

PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n\
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 90 90]>>endobj\ntrailer<</Root 1 0 R>>"
CHANGED = PDF + b"\n%%EOF"


@dataclass
class World:
    """The cloud, and callers with deduplication for an hour (`one`, `other`), for a second (`brief`) and without."""

    emulator: Emulator
    policy: Policy
    state: Path

    def settings(self, **changes: Any) -> Settings:
        values = {"policy": PolicySettings(file=self.policy.path), "state_dir": self.state}
        return settings(self.emulator, **(values | changes))

    def caller(self, gateway: Gateway | int, name: str = "one") -> Caller:
        port = gateway if isinstance(gateway, int) else gateway.port
        return Caller(grpc.aio.insecure_channel(f"127.0.0.1:{port}"), bearer(self.policy.tokens[name]))


@dataclass
class Caller:
    """A caller with a channel of its own."""

    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]
    cache: str = ""
    """The `x-cache` of the last create."""

    async def create(
        self, output: str = "previews/${Number}.jpg", *, request_id: str = "", no_cache: bool = False, **options: Any
    ) -> PreviewJob:
        request = CreatePreviewJobRequest(
            bucket=BUCKET, input_object="in/a.pdf", output=ObjectLocation(object=output), request_id=request_id
        )
        for name, value in options.items():
            setattr(request.options, name, value)
        extra = (("cache-control", "no-cache"),) if no_cache else ()
        stub: Any = PreviewJobServiceStub(self.channel)
        answer = stub.CreatePreviewJob(request, metadata=(*self.metadata, *extra), timeout=20)
        job: PreviewJob = await answer
        self.cache = dict(await answer.trailing_metadata()).get("x-cache", "")
        return job

    async def usage(self) -> Usage:
        stub: Any = UsageServiceStub(self.channel)
        usage: Usage = await stub.GetUsage(GetUsageRequest(), metadata=self.metadata, timeout=10)
        return usage


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    policy = Policy(tmp_path / "policy.yaml")
    for name, seconds in (("one", 3600), ("brief", 1), ("other", 3600)):
        policy.add(name, BUCKET, dedupe_seconds=seconds, budget={"per_day": 5, "estimate": 1})
    policy.add("plain", BUCKET)
    policy.add("unbudgeted", BUCKET, dedupe_seconds=3600)
    policy.write()
    async with Emulator() as emulator:
        for bucket in (BUCKET, OTHER_BUCKET):
            emulator.put_object(bucket, REGION, "in/a.pdf", PDF)
        yield World(emulator, policy, tmp_path)


async def test_a_second_create_of_the_same_document_gets_the_first_ones_job_and_costs_no_page(world: World) -> None:
    """`x-cache`, the caller's usage and a metric show it."""
    async with Gateway(world.settings()) as gateway:
        caller = world.caller(gateway)
        first = await caller.create()
        assert caller.cache == "miss" or not caller.cache
        await world.emulator.wait_for_job(first.job_id)
        second = await caller.create()
        assert (second.job_id, second.state, caller.cache) == (first.job_id, PreviewJob.STATE_SUCCESS, "hit")
        assert second.result.pages
        assert world.emulator.accepted_jobs == 1
        usage = await caller.usage()
        assert usage.day.used_pages + usage.day.reserved_pages == 1
        counted = gateway.registry.get_sample_value("docpreview_creates_deduped_total", {"caller": "one"})
        assert counted == 1


async def test_any_difference_of_document_options_output_or_caller_makes_another_job(world: World) -> None:
    """So does `cache-control: no-cache`."""
    async with Gateway(world.settings()) as gateway:
        caller, other = world.caller(gateway), world.caller(gateway, "other")
        jobs = [
            await caller.create("previews/a-${Number}.jpg"),
            await caller.create("previews/b-${Number}.jpg"),
            await caller.create("previews/b-${Number}.jpg", quality=50),
            await other.create("previews/a-${Number}.jpg"),
            await other.create("previews/a-${Number}.jpg", no_cache=True),
        ]
        assert (await other.create("previews/a-${Number}.jpg")).job_id == jobs[-1].job_id
        world.emulator.put_object(BUCKET, REGION, "in/a.pdf", CHANGED)
        jobs.append(await other.create("previews/a-${Number}.jpg"))
        assert len({job.job_id for job in jobs}) == len(jobs) == world.emulator.accepted_jobs


async def test_an_overwritten_output_location_makes_another_job(world: World) -> None:
    """Another document was rendered into the location in between, so the first pages are gone."""
    async with Gateway(world.settings()) as gateway:
        caller = world.caller(gateway)
        jobs = [await caller.create(quality=quality) for quality in (50, 60, 50, 50)]
        assert [job.job_id == jobs[2].job_id for job in jobs] == [False, False, True, True]
        assert world.emulator.accepted_jobs == 3


async def test_a_create_after_the_deduplication_window_makes_another_job(world: World) -> None:
    """The window of `brief` is a second."""
    async with Gateway(world.settings()) as gateway:
        caller = world.caller(gateway, "brief")
        first, begin = await caller.create(), time.monotonic()
        await asyncio.sleep(max(0.0, 1.1 + begin - time.monotonic()))
        assert (await caller.create()).job_id != first.job_id


@pytest.mark.parametrize("state", ["Failed", "Cancel"])
async def test_an_unsuccessful_job_is_not_used_for_deduplication(world: World, state: str) -> None:
    """The next create makes another job."""
    world.emulator.hold_jobs()
    async with Gateway(world.settings()) as gateway:
        caller = world.caller(gateway)
        first = await caller.create()
        assert (await caller.create()).job_id == first.job_id
        world.emulator.set_job_state(first.job_id, state)
        assert (await caller.create()).job_id != first.job_id


async def test_a_caller_without_deduplication_gets_two_jobs_and_its_document_is_not_read(world: World) -> None:
    """Not even a HEAD request of the document is sent."""
    async with Gateway(world.settings()) as gateway:
        caller = world.caller(gateway, "plain")
        assert (await caller.create()).job_id != (await caller.create()).job_id
        assert not [each for each in world.emulator.requests if each.method == "HEAD"]


async def test_a_new_request_id_gets_the_rendered_job_and_stays_bound_to_it(world: World) -> None:
    """The id costs no page, and keeps its job after the document has changed."""
    one, two = str(uuid.uuid4()), str(uuid.uuid4())
    async with Gateway(world.settings()) as gateway:
        caller = world.caller(gateway)
        first = await caller.create(request_id=one)
        second = await caller.create(request_id=two)
        assert (second.job_id, caller.cache) == (first.job_id, "hit")
        world.emulator.put_object(BUCKET, REGION, "in/a.pdf", CHANGED)
        assert (await caller.create(request_id=two)).job_id == first.job_id
        assert (await caller.create(request_id=one)).job_id == first.job_id
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.create(request_id=two, quality=50)
        assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
        third = await caller.create()
        assert third.job_id != first.job_id
        await world.emulator.wait_for_job(third.job_id)
        usage = await caller.usage()
        assert usage.day.used_pages + usage.day.reserved_pages == world.emulator.accepted_jobs == 2


async def test_concurrent_equal_creates_in_one_process_make_one_job(world: World) -> None:
    """All callers get the same job."""
    async with Gateway(world.settings()) as gateway:
        caller = world.caller(gateway)
        jobs = await asyncio.gather(*(caller.create() for _ in range(10)))
        assert len({job.job_id for job in jobs}) == world.emulator.accepted_jobs == 1


@pytest.mark.parametrize(
    "fault", [{"kind": "error", "status": 403, "code": "AccessDenied"}, {"kind": "drop_before", "times": 2}]
)
async def test_a_document_that_cannot_be_checked_is_always_rendered_anew(world: World, fault: dict[str, Any]) -> None:
    """The create is sent, and its output location counts as overwritten."""
    async with Gateway(world.settings()) as gateway:
        caller = world.caller(gateway)
        jobs = [await caller.create()]
        world.emulator.add_fault(operation="object", **fault)
        jobs += [await caller.create() for _ in range(2)]
        assert len({job.job_id for job in jobs}) == 3


async def test_a_hanging_object_store_delays_a_create_by_a_few_seconds_only(world: World) -> None:
    """The create is sent without deduplication."""
    world.emulator.add_fault("latency", "object", seconds=15)
    async with Gateway(world.settings()) as gateway:
        begin = time.monotonic()
        await world.caller(gateway).create()
        assert time.monotonic() - begin < 10


async def test_a_killed_gateways_successor_still_deduplicates(world: World, tmp_path: Path) -> None:
    """Deduplication records are on disk."""
    path = configuration(world.emulator, tmp_path, policy={"file": str(world.policy.path)})
    async with running(path) as gateway:
        first = await world.caller(gateway.port).create()
        await gateway.kill()
    async with running(path) as gateway:
        caller = world.caller(gateway.port)
        assert ((await caller.create()).job_id, caller.cache) == (first.job_id, "hit")


async def test_a_document_rendered_by_one_replica_is_known_to_the_other(world: World, redis_server: Any) -> None:
    """Replicas share deduplication records in Redis."""
    state = SharedStateSettings.model_validate({"url": redis_server.url})
    async with (
        Gateway(world.settings(shared_state=state, state_dir=world.state / "1")) as one,
        Gateway(world.settings(shared_state=state, state_dir=world.state / "2")) as other,
    ):
        first = await world.caller(one).create()
        caller = world.caller(other)
        assert ((await caller.create()).job_id, caller.cache) == (first.job_id, "hit")
        assert (await caller.create(request_id=str(uuid.uuid4()))).job_id == first.job_id


async def test_creates_without_request_id_are_made_without_deduplication_when_the_ledger_is_gone(world: World) -> None:
    """Of callers without budget: pages of the others could not be counted, and are not made."""
    state = SharedStateSettings.model_validate({"url": "redis://127.0.0.1:1/0"})
    async with Gateway(world.settings(shared_state=state)) as gateway:
        caller = world.caller(gateway, "unbudgeted")
        assert (await caller.create()).job_id != (await caller.create()).job_id
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await world.caller(gateway).create()
        assert error_info(caught.value).reason == "LIMITER_UNAVAILABLE"
        assert world.emulator.accepted_jobs == 2
