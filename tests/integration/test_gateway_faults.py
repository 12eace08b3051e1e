"""What callers see when the cloud misbehaves: gateway, emulator and client over real sockets."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client import (
    ClientOptions,
    DeadlineExceeded,
    DocPreviewClient,
    DocPreviewError,
    InternalError,
    OutcomeUnknown,
    Throttled,
    Unavailable,
)
from docpreview_emulator import Emulator
from docpreview_gateway.settings.upstream import UpstreamSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, REGION, World, settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"

# One attempt, so that the gateway's answers are tested and not the client's retries.
ONCE = timedelta(seconds=20)


@pytest.fixture
async def job_id(world: World) -> str:
    """A running job."""
    await world.upload("a.pdf", b"%PDF-1.4")
    world.emulator.hold_jobs()
    made = await create(world)
    world.emulator.clear_requests()
    return made.job_id


async def create(world: World) -> PreviewJob:
    return await world.client.create(BUCKET, "a.pdf", output_object="out/p-${Page}.jpg")


def posts(world: World) -> int:
    return sum(record.method == "POST" for record in world.emulator.requests)


REFUSED: list[tuple[dict[str, Any], type[DocPreviewError], str]] = [
    ({"kind": "throttle", "retry_after": 7}, Throttled, "UPSTREAM_THROTTLED"),
    ({"kind": "error", "status": 302, "code": "TemporaryRedirect"}, InternalError, "WRONG_REGION"),
    ({"kind": "error"}, OutcomeUnknown, "CREATE_OUTCOME_UNKNOWN"),
    ({"kind": "error", "status": 502, "code": "X"}, OutcomeUnknown, "CREATE_OUTCOME_UNKNOWN"),
    ({"kind": "drop_before"}, OutcomeUnknown, "CREATE_OUTCOME_UNKNOWN"),
]


@pytest.mark.parametrize(("fault", "kind", "reason"), REFUSED)
async def test_a_create_that_made_no_job_is_sent_once_and_ends_with_its_reason(
    world: World, fault: dict[str, Any], kind: type[DocPreviewError], reason: str
) -> None:
    """A list without its job is no proof yet: CREATE_OUTCOME_UNKNOWN, and how long until one is."""
    await world.upload("a.pdf", b"%PDF-1.4")
    world.emulator.add_fault(operation="create", **fault)
    with pytest.raises(kind) as caught:
        await create(world)
    assert caught.value.reason == reason
    assert (posts(world), world.emulator.accepted_jobs) == (1, 0)
    delay = caught.value.retry_delay
    if kind is OutcomeUnknown:
        assert delay is not None
        assert timedelta(seconds=150) < delay < timedelta(seconds=180)
    else:
        assert delay == (timedelta(seconds=7) if kind is Throttled else None)


LOST_REPLIES = [
    {"kind": "error", "accepted": True},
    {"kind": "drop_after"},
    {"kind": "truncate"},
    {"kind": "garbage"},
]


@pytest.mark.parametrize("fault", LOST_REPLIES)
async def test_a_create_whose_reply_is_lost_is_found_by_its_marker_and_not_sent_again(
    world: World, fault: dict[str, Any]
) -> None:
    """Also without `request_id`: every create carries a marker, so a list tells its job from others."""
    await world.upload("a.pdf", b"%PDF-1.4")
    world.emulator.add_fault(operation="create", **fault)
    made = await create(world)
    assert [job.job_id for job in world.emulator.jobs] == [made.job_id]
    assert posts(world) == 1


READS: list[tuple[dict[str, Any], type[DocPreviewError], str]] = [
    ({"kind": "throttle"}, Throttled, "UPSTREAM_THROTTLED"),
    ({"kind": "error"}, Unavailable, "UPSTREAM_INTERNAL"),
    ({"kind": "error", "status": 504, "code": "X"}, Unavailable, "UPSTREAM_UNAVAILABLE"),
    ({"kind": "drop_before"}, Unavailable, "UPSTREAM_UNAVAILABLE"),
    ({"kind": "drop_after"}, Unavailable, "UPSTREAM_UNAVAILABLE"),
    ({"kind": "truncate"}, Unavailable, "UPSTREAM_UNAVAILABLE"),
    ({"kind": "garbage"}, InternalError, "UPSTREAM_BAD_RESPONSE"),
]
ASKS: dict[str, Callable[[World, str], Awaitable[object]]] = {
    "get": lambda world, job_id: world.client.get(BUCKET, job_id, timeout=ONCE),
    "list": lambda world, _: world.client.list_page(BUCKET, timeout=ONCE),
}


@pytest.mark.parametrize(("fault", "kind", "reason"), READS)
@pytest.mark.parametrize("ask", ASKS)
async def test_a_read_from_a_failing_cloud_ends_with_the_clouds_reason(
    world: World, job_id: str, *, ask: str, fault: dict[str, Any], kind: type[DocPreviewError], reason: str
) -> None:
    """Never a part of a truncated reply."""
    world.emulator.add_fault(operation=ask, times=None, **fault)
    with pytest.raises(kind) as caught:
        await ASKS[ask](world, job_id)
    assert caught.value.reason == reason


@pytest.mark.parametrize("kind", ["error", "drop_before", "drop_after", "truncate"])
async def test_a_read_succeeds_after_a_single_fault_of_the_cloud(world: World, job_id: str, kind: str) -> None:
    """Gateway or HTTP client retry it."""
    world.emulator.add_fault(kind, "get")
    assert (await world.client.get(BUCKET, job_id)).job_id == job_id


@pytest.mark.parametrize("offset", [-1200, 1200])
async def test_clock_skew_of_the_cloud_is_corrected_without_failing_a_call_or_billing_twice(
    world: World, offset: float
) -> None:
    """A refused list teaches the gateway a difference of 20 minutes: creates are signed by the cloud's time only."""
    await world.upload("a.pdf", b"%PDF-1.4")
    world.emulator.clock.offset_seconds = offset
    job = await create(world)
    assert world.emulator.accepted_jobs == 1
    sent = [(record.operation, record.status) for record in world.emulator.requests]
    assert sent == [("list", 403), ("list", 200), ("create", 200)]
    world.emulator.clear_requests()
    await world.client.get(BUCKET, job.job_id)
    assert [record.status for record in world.emulator.requests] == [200]


@pytest.mark.parametrize("offset", [-1200, 1200])
async def test_page_urls_open_while_the_clocks_differ(world: World, offset: float) -> None:
    """They are signed by the cloud's clock."""
    await world.upload("a.pdf", DOCUMENT.read_bytes())
    world.emulator.clock.offset_seconds = offset
    job = await create(world)
    done = await world.client.wait(BUCKET, job.job_id, page_url_ttl=timedelta(minutes=1))
    async with aiohttp.ClientSession() as browser, browser.get(done.result.pages[0].url) as reply:
        assert reply.status == 200


@pytest.mark.parametrize("kind", ["latency", "drip"])
async def test_a_read_slower_than_the_callers_deadline_is_deadline_exceeded_in_time(
    world: World, job_id: str, kind: str
) -> None:
    """Also while bytes keep arriving."""
    world.emulator.add_fault(kind, "get", seconds=20, times=None)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    with pytest.raises(DeadlineExceeded):
        await world.client.get(BUCKET, job_id, timeout=timedelta(seconds=0.5))
    assert loop.time() - begin < 1.5


async def test_a_create_slower_than_the_callers_deadline_is_outcome_unknown(world: World) -> None:
    """The client raises OutcomeUnknown."""
    await world.upload("a.pdf", b"%PDF-1.4")
    world.emulator.add_fault("latency", "create", seconds=20)
    with pytest.raises(OutcomeUnknown):
        await world.client.create(BUCKET, "a.pdf", output_object="out/p-${Page}.jpg", timeout=timedelta(seconds=0.5))
    assert posts(world) == 1


async def test_a_dripping_reply_is_cut_off_by_the_gateways_timeout() -> None:
    """The time-out of an attempt covers the whole reply, not the time between two bytes."""
    async with Emulator() as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", b"%PDF-1.4")
        emulator.hold_jobs()
        upstream = UpstreamSettings(endpoint=emulator.url, timeout_seconds=0.4)
        async with (
            Gateway(settings(emulator, upstream=upstream)) as gateway,
            DocPreviewClient(f"127.0.0.1:{gateway.port}", options=ClientOptions(health_checking=False)) as client,
        ):
            world = World(emulator, gateway, client)
            job = await create(world)
            emulator.add_fault("drip", "get", seconds=3, times=None)
            with pytest.raises(Unavailable) as caught:
                await client.get(BUCKET, job.job_id)
            assert caught.value.reason == "UPSTREAM_TIMEOUT"


async def test_a_watch_survives_a_few_failed_polls(world: World, job_id: str) -> None:
    """Watchers do not see failures that the next polls overcome."""
    world.emulator.add_fault("error", "get", times=2)
    world.emulator.add_fault("throttle", "get", times=1)
    world.emulator.add_fault("drop_after", "get", times=1)
    async for job in world.client.watch(BUCKET, job_id):
        assert job.state == PreviewJob.STATE_RUNNING
        break


async def test_a_refused_connection_is_unavailable_for_reads_and_creates(world: World) -> None:
    """The outcome of such a create is known: nothing was sent."""
    await world.emulator.__aexit__(None, None, None)
    with pytest.raises(Unavailable) as caught:
        await create(world)
    assert caught.value.reason == "UPSTREAM_UNREACHABLE"
    assert caught.value.retry_delay == timedelta(seconds=1)
