"""Watching: one job over as many streams as it takes."""

import asyncio
from contextlib import aclosing
from datetime import timedelta

import grpc
import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import WatchPreviewJobResponse
from docpreview_client import (
    ClientOptions,
    DeadlineExceeded,
    DocPreviewClient,
    NotFound,
    Patience,
    Unavailable,
)

from .fake_gateway import PATIENCE, Call, Failure, FakeGateway, Silence
from .samples import BUCKET, JOB_ID, failed, failure, job, succeeded

SUBMITTED = job(PreviewJob.STATE_SUBMITTED)
RUNNING = job(PreviewJob.STATE_RUNNING)
HEARTBEAT = WatchPreviewJobResponse()
STOPPING = failure(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_delay=timedelta(milliseconds=5))
BROKEN = Failure(grpc.StatusCode.UNAVAILABLE, "Socket closed")


async def states(client: DocPreviewClient, *, timeout: timedelta | None = None) -> list[str]:  # noqa: ASYNC109
    found = client.watch(BUCKET, JOB_ID, timeout=timeout)
    return [PreviewJob.State.Name(seen.state).removeprefix("STATE_") async for seen in found]


async def ended(call: Call) -> bool:
    return await asyncio.to_thread(call.ended.wait, PATIENCE)


async def test_job_that_succeeds(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """Every change comes, heartbeats do not, and the watch ends after the terminal state."""
    gateway.will("WatchPreviewJob", [SUBMITTED, HEARTBEAT, RUNNING, HEARTBEAT, succeeded()])
    assert await states(client) == ["SUBMITTED", "RUNNING", "SUCCESS"]
    assert len(gateway.calls) == 1


async def test_job_that_has_ended_already(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """The present state comes first, so a late watcher sees the end at once."""
    gateway.will("WatchPreviewJob", [failed()])
    assert await states(client) == ["FAILED"]


async def test_a_stopping_gateway_is_watched_again_without_repeating_a_state(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """The next stream is opened when the gateway asked for it, and the repeated present state is not yielded twice."""
    gateway.will("WatchPreviewJob", [SUBMITTED, STOPPING], [SUBMITTED, RUNNING, STOPPING], [RUNNING, succeeded()])
    assert await states(client) == ["SUBMITTED", "RUNNING", "SUCCESS"]
    assert len(gateway.calls) == 3


async def test_stream_that_was_open_for_long(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """WATCH_LIMIT_REACHED is part of a watch's life."""
    limit = failure(grpc.StatusCode.UNAVAILABLE, "WATCH_LIMIT_REACHED", retry_delay=timedelta(0))
    gateway.will("WatchPreviewJob", [HEARTBEAT, limit], [succeeded()])
    assert await states(client) == ["SUCCESS"]


async def test_connection_that_breaks(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """A broken connection is replaced."""
    gateway.will("WatchPreviewJob", [RUNNING, BROKEN], [succeeded()])
    assert await states(client) == ["RUNNING", "SUCCESS"]


async def test_gateway_that_is_not_there(gateway: FakeGateway) -> None:
    """When no gateway has ever answered, the watch says so instead of trying until its deadline."""
    gateway.stop()
    async with DocPreviewClient(gateway.target) as client:
        with pytest.raises(Unavailable):
            await states(client)


async def test_gateway_that_does_not_come_back(gateway: FakeGateway) -> None:
    """When no message comes for longer than the patience the watch gives up."""
    gateway.will("WatchPreviewJob", [RUNNING, BROKEN], [BROKEN])
    options = ClientOptions(patience=Patience(unreachable=timedelta(milliseconds=100)))
    async with DocPreviewClient(gateway.target, options=options) as client:
        with pytest.raises(Unavailable, match="Socket closed"):
            await states(client)


async def test_a_stream_without_heartbeats_is_replaced(gateway: FakeGateway) -> None:
    """A stream without even a heartbeat is dead: it is given back and another opened."""
    gateway.will("WatchPreviewJob", [RUNNING, Silence()], [RUNNING, succeeded()])
    options = ClientOptions(patience=Patience(idle=timedelta(milliseconds=200)))
    async with DocPreviewClient(gateway.target, options=options) as client:
        assert await states(client) == ["RUNNING", "SUCCESS"]
        assert await ended(gateway.call("WatchPreviewJob", 1))


async def test_stream_that_breaks_after_the_terminal_state(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """Nothing can follow a terminal state, so how the stream ends does not matter."""
    gateway.will("WatchPreviewJob", [succeeded(), BROKEN])
    assert await states(client) == ["SUCCESS"]
    assert len(gateway.calls) == 1


async def test_job_that_does_not_exist(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """Errors other than Unavailable end the watch."""
    gateway.will("WatchPreviewJob", [failure(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")])
    with pytest.raises(NotFound):
        await states(client)


async def test_the_timeout_of_a_watch_counts_over_all_its_streams(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """The timeout counts over all streams, and what came before it has been yielded."""
    gateway.will("WatchPreviewJob", [RUNNING, STOPPING], [Silence()])
    with pytest.raises(DeadlineExceeded):
        await states(client, timeout=timedelta(milliseconds=700))
    assert gateway.call("WatchPreviewJob", 2).seconds < 0.7


async def test_deadline_between_two_streams(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """A gateway that asks to come back after the deadline is not asked again."""
    later = failure(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_delay=timedelta(minutes=1))
    gateway.will("WatchPreviewJob", [RUNNING, later])
    with pytest.raises(DeadlineExceeded):
        await states(client, timeout=timedelta(milliseconds=300))
    assert len(gateway.calls) == 1


async def test_watcher_that_is_cancelled(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """Cancellation passes through, and the stream at the gateway ends."""
    gateway.will("WatchPreviewJob", [RUNNING, Silence()])
    watching = asyncio.create_task(states(client))
    call = await asyncio.to_thread(gateway.call, "WatchPreviewJob")
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert await ended(call)


async def test_watcher_that_leaves_early(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """Closing the generator ends the stream at the gateway."""
    gateway.will("WatchPreviewJob", [RUNNING, Silence()])
    async with aclosing(client.watch(BUCKET, JOB_ID)) as jobs:
        async for _ in jobs:
            break
    assert await ended(gateway.call("WatchPreviewJob"))


async def test_watcher_that_forgets_to_close(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """A plain `break` is enough: the stream ends when the generator is collected."""
    gateway.will("WatchPreviewJob", [RUNNING, Silence()])
    async for _ in client.watch(BUCKET, JOB_ID):
        break
    assert await ended(gateway.call("WatchPreviewJob"))


async def test_create_and_watch(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """One job is created, and its states come from the answer to the create on."""
    gateway.will("CreatePreviewJob", SUBMITTED)
    gateway.will("WatchPreviewJob", [SUBMITTED, RUNNING, succeeded()])
    jobs = client.create_and_watch(BUCKET, "a.pptx", output_object="b/${Number}.jpg")
    assert [seen async for seen in jobs] == [SUBMITTED, RUNNING, succeeded()]
    assert len(gateway.asked("CreatePreviewJob")) == 1
