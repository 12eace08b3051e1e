"""The edge for callers without gRPC: JSON over HTTP, and gRPC-Web, on the port of gRPC."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import (
    CreatePreviewJobRequest,
    WatchPreviewJobsRequest,
    WatchPreviewJobsResponse,
)
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from tests.conformance.callers import Callers
from tests.conformance.world import PATIENCE, World
from tests.edge_process import EdgeProcess, edge_settings
from tests.integration.conftest import BUCKET, REGION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

JOBS = "/docpreview.v1.PreviewJobService"
ORIGIN = "https://app.example"
REQUEST = {"bucket": BUCKET, "input_object": "a.pdf", "output": {"object": "out/p-${Page}.jpg"}}


def configuration(gateway: str, folder: Path) -> Path:
    """Settings of a gateway at this address, as far as they concern its edge."""
    values = {
        "listen": gateway,
        "edge": edge_settings(origins=[ORIGIN]),
        "buckets": [{"name": BUCKET, "region": REGION, "credentials": "main"}],
        "credentials": {"main": {"secret_id": "example-secret-id", "secret_key": "EXAMPLEsecretKEY00000000000000000"}},
    }
    path = folder / "edge-gateway.yaml"
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with Emulator() as emulator, World(emulator, {}) as world:
        await world.prepare("upload", {"document": "seven-pages.pdf", "as": "a.pdf"})
        yield world


@pytest.fixture
async def door(world: World, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of Envoy, which is in front of the gateway."""
    async with behind_envoy(world, tmp_path) as client:
        yield client


@asynccontextmanager
async def behind_envoy(world: World, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        EdgeProcess(configuration(world.target, folder), folder / "edge") as edge,
        httpx.AsyncClient(
            base_url=f"http://{edge.listen}", headers={"origin": ORIGIN}, timeout=PATIENCE, trust_env=False
        ) as client,
    ):
        yield client


async def test_a_job_is_created_and_watched_as_json(door: httpx.AsyncClient) -> None:
    """The watch is a stream of JSON objects, one per line."""
    created = await door.post(f"{JOBS}/CreatePreviewJob", json=REQUEST)
    assert created.status_code == 200, created.text
    assert created.json()["state"] == "STATE_SUBMITTED"
    watched = {"bucket": BUCKET, "job_id": created.json()["job_id"], "page_url_ttl": "60s"}
    async with door.stream("POST", f"{JOBS}/WatchPreviewJob", json=watched) as stream:
        jobs = [json.loads(line)["job"] async for line in stream.aiter_lines() if line and "job" in json.loads(line)]
    assert jobs[-1]["state"] == "STATE_SUCCESS"
    assert len(jobs[-1]["result"]["pages"]) == 7


async def test_json_takes_fields_by_both_of_their_names(door: httpx.AsyncClient) -> None:
    """Those of the contract, and those of protobuf's JSON."""
    request = {"bucket": BUCKET, "inputObject": "a.pdf", "output": {"object": "out/p-${Page}.jpg"}}
    assert (await door.post(f"{JOBS}/CreatePreviewJob", json=request)).status_code == 200


async def test_a_grpc_call_takes_the_same_port(door: httpx.AsyncClient) -> None:
    """The Python client, to the address of the JSON calls."""
    made = await door.post(f"{JOBS}/CreatePreviewJob", json=REQUEST)
    async with DocPreviewClient(door.base_url.netloc.decode()) as client:
        job = await client.get(BUCKET, made.json()["job_id"])
    assert job.job_id == made.json()["job_id"]


async def test_an_error_has_its_http_status_and_a_json_body_with_every_bad_field(door: httpx.AsyncClient) -> None:
    """The body has the reason too."""
    refused = await door.post(f"{JOBS}/CreatePreviewJob", json=REQUEST | {"request_id": "x", "input_object": ""})
    assert refused.status_code == 400
    info, bad = refused.json()["details"]
    assert info["reason"] == "INVALID_REQUEST"
    assert [violation["field"] for violation in bad["field_violations"]] == ["input_object", "request_id"]


async def test_paths_and_methods_outside_the_contract_do_not_reach_the_gateway(door: httpx.AsyncClient) -> None:
    """Envoy answers them itself."""
    assert (await door.post("/grpc.health.v1.Health/Check", json={})).status_code == 404
    assert (await door.post(f"{JOBS}/DropPreviewJobs", json={})).status_code == 404
    assert (await door.post(f"{JOBS}/ListPreviewJobs?x=1", json={})).status_code == 404
    assert (await door.post(f"{JOBS}//ListPreviewJobs", json={})).status_code == 404


async def test_a_grpc_web_call_gets_its_job_and_the_status_in_the_last_frame(door: httpx.AsyncClient) -> None:
    """A browser's call in gRPC-Web."""
    request = CreatePreviewJobRequest(
        bucket=BUCKET, input_object="a.pdf", output=ObjectLocation(object="out/p-${Page}.jpg")
    ).SerializeToString()
    answer = await door.post(
        f"{JOBS}/CreatePreviewJob",
        content=b"\0" + len(request).to_bytes(4, "big") + request,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    )
    assert answer.status_code == 200
    size = int.from_bytes(answer.content[1:5], "big")
    message, trailer = answer.content[5 : 5 + size], answer.content[5 + size :]
    assert PreviewJob.FromString(message).state == PreviewJob.STATE_SUBMITTED
    assert trailer[0] == 0x80
    assert b"grpc-status:0\r\n" in trailer
    assert answer.headers["access-control-allow-origin"] == ORIGIN


async def test_many_jobs_are_watched_as_grpc_web_and_as_json(door: httpx.AsyncClient) -> None:
    """One event in each frame, or line; the last frame has the status."""
    made = [(await door.post(f"{JOBS}/CreatePreviewJob", json=REQUEST)).json()["job_id"] for _ in range(3)]
    missing = "d" + "0" * 32
    request = WatchPreviewJobsRequest(bucket=BUCKET, job_ids=[*made, missing]).SerializeToString()
    answer = await door.post(
        f"{JOBS}/WatchPreviewJobs",
        content=b"\0" + len(request).to_bytes(4, "big") + request,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    )
    *frames, (flag, trailer) = _frames(answer.content)
    events = [WatchPreviewJobsResponse.FromString(message) for _, message in frames]
    last = {event.job.job_id: event.job.state for event in events if event.HasField("job")}
    assert last == dict.fromkeys(made, PreviewJob.STATE_SUCCESS)
    assert [event.error.job_id for event in events if event.HasField("error")] == [missing]
    assert (flag, b"grpc-status:0\r\n" in trailer) == (0x80, True)
    body = {"bucket": BUCKET, "job_ids": [*made, missing]}
    async with door.stream("POST", f"{JOBS}/WatchPreviewJobs", json=body) as stream:
        told = [json.loads(line) async for line in stream.aiter_lines() if line]
    assert {event["job"]["job_id"] for event in told if "job" in event} == set(made)
    assert [event["error"]["reason"] for event in told if "error" in event] == ["ERROR_REASON_JOB_NOT_FOUND"]


def _frames(content: bytes) -> list[tuple[int, bytes]]:
    """The frames of a gRPC-Web answer: flag and content of each."""
    found = []
    while content:
        size = int.from_bytes(content[1:5], "big")
        found.append((content[0], content[5 : 5 + size]))
        content = content[5 + size :]
    return found


async def test_only_the_named_origins_may_call_from_a_browser(door: httpx.AsyncClient) -> None:
    """CORS preflight requests."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-grpc-web"}
    for origin, allowed in ((ORIGIN, True), ("https://evil.example", False)):
        answer = await door.options(f"{JOBS}/CreatePreviewJob", headers=asked | {"origin": origin})
        assert ("access-control-allow-origin" in answer.headers) is allowed


async def test_a_callers_token_passes_envoy_and_a_call_without_one_is_401(tmp_path: Path) -> None:
    """Envoy forwards the `authorization` header."""
    callers = Callers.of({"callers": {"shop": None}}, tmp_path)
    async with (
        Emulator() as emulator,
        World(emulator, callers.changes) as world,
        behind_envoy(world, tmp_path) as door,
    ):
        token = {"authorization": f"Bearer {callers.proof('shop')['token']}"}
        assert (await door.post(f"{JOBS}/ListPreviewJobs", json={"bucket": BUCKET}, headers=token)).status_code == 200
        assert (await door.post(f"{JOBS}/ListPreviewJobs", json={"bucket": BUCKET})).status_code == 401
