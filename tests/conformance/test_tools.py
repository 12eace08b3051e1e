"""Tools that use the gateway's reflection: grpcurl for single calls, ghz for load."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from docpreview_emulator import Emulator
from tests.conformance.world import World
from tests.integration.conftest import BUCKET
from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with Emulator() as emulator, World(emulator, {"reflection": True}) as world:
        await world.prepare("upload", {"document": "seven-pages.pdf", "as": "a.pdf"})
        yield world


async def output(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    text, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, text.decode()


def objects(text: str) -> list[dict[str, Any]]:
    """A stream of concatenated JSON objects."""
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


async def test_grpcurl_lists_services_creates_a_job_and_watches_it_end(world: World) -> None:
    """Descriptions come from reflection."""
    grpcurl = (need("grpcurl"), "-plaintext")
    assert "docpreview.v1.PreviewJobService" in (await output(*grpcurl, world.target, "list"))[1].split()
    service = "docpreview.v1.PreviewJobService"
    request = {"bucket": BUCKET, "input_object": "a.pdf", "output": {"object": "out/p-${Page}.jpg"}}
    _, created = await output(*grpcurl, "-d", json.dumps(request), world.target, f"{service}/CreatePreviewJob")
    watched = {"bucket": BUCKET, "job_id": json.loads(created)["job_id"]}
    status, jobs = await output(*grpcurl, "-d", json.dumps(watched), world.target, f"{service}/WatchPreviewJob")
    assert status == 0
    assert objects(jobs)[-1]["job"]["state"] == "STATE_SUCCESS"


async def test_grpcurl_calls_no_method_that_does_not_exist(world: World) -> None:
    """Not even while it tries versions of reflection; it describes all services that are listed."""
    grpcurl = (need("grpcurl"), "-plaintext")
    for command in ("list", "describe"):
        status, text = await output(*grpcurl, world.target, command)
        assert (status, "grpc.reflection.v1.ServerReflection" in text) == (0, True), text
    assert world.unknown_methods == 0


async def test_grpcurl_shows_the_details_of_an_error(world: World) -> None:
    """Their types come by reflection or are Google's own."""
    status, text = await output(
        *(need("grpcurl"), "-plaintext", "-d", json.dumps({"bucket": "unknown-1250000000", "job_id": "d1"})),
        *(world.target, "docpreview.v1.PreviewJobService/GetPreviewJob"),
    )
    assert status != 0
    assert "PermissionDenied" in text
    assert "BUCKET_NOT_CONFIGURED" in text


async def test_parallel_calls_of_ghz_all_succeed(world: World) -> None:
    """Load generator smoke test."""
    status, text = await output(
        *(need("ghz"), "--insecure", "--call", "docpreview.v1.PreviewQueueService/ListPreviewQueues"),
        *("-d", json.dumps({"bucket": BUCKET}), "-n", "200", "-c", "10", "--format", "json", world.target),
    )
    assert status == 0, text
    assert json.loads(text)["statusCodeDistribution"] == {"OK": 200}
