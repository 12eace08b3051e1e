"""Completion callbacks: the cloud tells that a job has ended, and its watchers hear of it without a poll."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from docpreview_gateway.settings.sections import CallbackSettings, WatchSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, REGION, settings, until
from tests.integration.money import ONE_PAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.settings.loading import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as found:
        found.put_object(BUCKET, REGION, "a.pdf", ONE_PAGE)
        found.hold_jobs()
        yield found


def reads(emulator: Emulator) -> int:
    """Requests for single jobs that have reached the cloud."""
    return sum(request.operation == "get" for request in emulator.requests)


def called_back(emulator: Emulator) -> Settings:
    """Settings of a gateway that takes callbacks, and polls once a minute."""
    port = free_port()
    callbacks = CallbackSettings(public_url=f"http://127.0.0.1:{port}/cb", listen=f"127.0.0.1:{port}")
    return settings(emulator, callbacks=callbacks, watch=WatchSettings(poll_floor_seconds=60, poll_cap_seconds=60))


async def test_watchers_hear_of_the_end_at_once_by_a_single_read(emulator: Emulator) -> None:
    """The callback is a hint: it makes the gateway read the job, signed, and nothing that it says is believed."""
    async with (
        Gateway(called_back(emulator)) as gateway,
        DocPreviewClient(f"127.0.0.1:{gateway.port}") as client,
        asyncio.timeout(20),
    ):
        job = await client.create(BUCKET, "a.pdf", output_object="out/${Number}.jpg")
        waiting = [asyncio.create_task(client.wait(BUCKET, job.job_id)) for _ in range(5)]
        await until(lambda: gateway.registry.get_sample_value("docpreview_watchers") == 5)
        before = reads(emulator)
        emulator.release_jobs()
        for done in await asyncio.gather(*waiting):
            assert done.state == PreviewJob.STATE_SUCCESS
        assert reads(emulator) == before + 1
