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


async def test_a_watch_yields_every_state_but_no_heartbeat_until_the_job_ends(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    gateway.will("WatchPreviewJob", [SUBMITTED, HEARTBEAT, RUNNING, HEARTBEAT, succeeded()])
    assert await states(client) == ["SUBMITTED", "RUNNING", "SUCCESS"]
    assert len(gateway.calls) == 1


async def test_a_watch_of_an_ended_job_yields_its_state_at_once(gateway: FakeGateway, client: DocPreviewClient) -> None:
    gateway.will("WatchPreviewJob", [failed()])
    assert await states(client) == ["FAILED"]


async def test_a_stopping_gateway_is_watched_again_without_repeating_a_state(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """The next stream is opened when the gateway asked for it, and the repeated present state is not yielded twice."""
    gateway.will("WatchPreviewJob", [SUBMITTED, STOPPING], [SUBMITTED, RUNNING, STOPPING], [RUNNING, succeeded()])
    assert await states(client) == ["SUBMITTED", "RUNNING", "SUCCESS"]
    assert len(gateway.calls) == 3


async def test_a_stream_that_reaches_its_limit_is_opened_again(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """WATCH_LIMIT_REACHED is part of a watch's life."""
    limit = failure(grpc.StatusCode.UNAVAILABLE, "WATCH_LIMIT_REACHED", retry_delay=timedelta(0))
    gateway.will("WatchPreviewJob", [HEARTBEAT, limit], [succeeded()])
    assert await states(client) == ["SUCCESS"]


async def test_a_broken_connection_is_replaced_without_repeating_a_state(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """Only the states that are new are yielded."""
    gateway.will("WatchPreviewJob", [RUNNING, BROKEN], [succeeded()])
    assert await states(client) == ["RUNNING", "SUCCESS"]


async def test_a_watch_without_a_gateway_is_unavailable_at_once(gateway: FakeGateway) -> None:
    """It does not try until its deadline."""
    gateway.stop()
    async with DocPreviewClient(gateway.target) as client:
        with pytest.raises(Unavailable):
            await states(client)


async def test_a_watch_gives_up_on_a_gateway_that_is_away_beyond_its_patience(gateway: FakeGateway) -> None:
    gateway.will("WatchPreviewJob", [RUNNING, BROKEN], [BROKEN])
    options = ClientOptions(patience=Patience(unreachable=timedelta(milliseconds=100)))
    async with DocPreviewClient(gateway.target, options=options) as client:
        with pytest.raises(Unavailable, match="Socket closed"):
            await states(client)


async def test_a_stream_without_heartbeats_is_replaced(gateway: FakeGateway) -> None:
    """It is dead, and given back."""
    gateway.will("WatchPreviewJob", [RUNNING, Silence()], [RUNNING, succeeded()])
    options = ClientOptions(patience=Patience(idle=timedelta(milliseconds=200)))
    async with DocPreviewClient(gateway.target, options=options) as client:
        assert await states(client) == ["RUNNING", "SUCCESS"]
        assert await ended(gateway.call("WatchPreviewJob", 1))


async def test_a_stream_that_breaks_after_the_terminal_state_is_no_error(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """Nothing can follow a terminal state, so how the stream ends does not matter."""
    gateway.will("WatchPreviewJob", [succeeded(), BROKEN])
    assert await states(client) == ["SUCCESS"]
    assert len(gateway.calls) == 1


async def test_a_watch_of_a_missing_job_is_not_found(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """Errors other than Unavailable end the watch."""
    gateway.will("WatchPreviewJob", [failure(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")])
    with pytest.raises(NotFound):
        await states(client)


async def test_the_timeout_of_a_watch_counts_over_all_its_streams(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """What came before it has been yielded."""
    gateway.will("WatchPreviewJob", [RUNNING, STOPPING], [Silence()])
    with pytest.raises(DeadlineExceeded):
        await states(client, timeout=timedelta(milliseconds=700))
    assert gateway.call("WatchPreviewJob", 2).seconds < 0.7


async def test_a_watch_ends_when_it_may_only_come_back_after_its_deadline(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    later = failure(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_delay=timedelta(minutes=1))
    gateway.will("WatchPreviewJob", [RUNNING, later])
    with pytest.raises(DeadlineExceeded):
        await states(client, timeout=timedelta(milliseconds=300))
    assert len(gateway.calls) == 1


async def test_a_cancelled_watch_raises_and_ends_its_stream_at_the_gateway(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    gateway.will("WatchPreviewJob", [RUNNING, Silence()])
    watching = asyncio.create_task(states(client))
    call = await asyncio.to_thread(gateway.call, "WatchPreviewJob")
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert await ended(call)


async def test_a_closed_watch_ends_its_stream_at_the_gateway(gateway: FakeGateway, client: DocPreviewClient) -> None:
    gateway.will("WatchPreviewJob", [RUNNING, Silence()])
    async with aclosing(client.watch(BUCKET, JOB_ID)) as jobs:
        async for _ in jobs:
            break
    assert await ended(gateway.call("WatchPreviewJob"))


async def test_a_watch_left_by_break_ends_its_stream_at_the_gateway(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """The stream ends when the generator is collected."""
    gateway.will("WatchPreviewJob", [RUNNING, Silence()])
    async for _ in client.watch(BUCKET, JOB_ID):
        break
    assert await ended(gateway.call("WatchPreviewJob"))


async def test_create_and_watch_creates_one_job_and_yields_each_state_once(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """The first is the answer to the create."""
    gateway.will("CreatePreviewJob", SUBMITTED)
    gateway.will("WatchPreviewJob", [SUBMITTED, RUNNING, succeeded()])
    jobs = client.create_and_watch(BUCKET, "a.pptx", output_object="b/${Number}.jpg")
    assert [seen async for seen in jobs] == [SUBMITTED, RUNNING, succeeded()]
    assert len(gateway.asked("CreatePreviewJob")) == 1
