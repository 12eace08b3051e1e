"""The cloud's request id of a call that failed: its support asks for it, so log and operator page have it."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest

from docpreview.v1 import preview_job_service_pb2 as pb
from docpreview.v1.preview_job_pb2 import ObjectLocation
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview.v1.preview_queue_service_pb2_grpc import PreviewQueueServiceStub
from docpreview.v1.upload_service_pb2 import CreateUploadRequest
from docpreview.v1.upload_service_pb2_grpc import UploadServiceStub
from docpreview_emulator import Emulator
from docpreview_gateway.settings.access import PolicySettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, REGION, settings
from tests.integration.identity import Policy, bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

SHOWN = "x-upstream-request-id"
JOB = "d" + "1" * 32
ID = "7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10"


class Scene:
    """A gateway whose key the cloud rejects; `whole` sees all jobs of the bucket, `part` those of a prefix."""

    def __init__(
        self, gateway: Gateway, policy: Policy, channel: grpc.aio.Channel, stop: Callable[[], Awaitable[None]]
    ) -> None:
        self.gateway, self.policy, self.stop = gateway, policy, stop
        self.jobs: Any = PreviewJobServiceStub(channel)
        self.queues: Any = PreviewQueueServiceStub(channel)
        self.uploads: Any = UploadServiceStub(channel)

    async def refused(self, method: Any, request: Any, caller: str = "whole") -> dict[str, Any]:
        """The trailers of a call that the cloud's refusal ended."""
        call = method(request, metadata=bearer(self.policy.tokens[caller]), timeout=20)
        with pytest.raises(grpc.aio.AioRpcError):
            _ = [reply async for reply in call] if hasattr(call, "__aiter__") else await call
        return dict(await call.trailing_metadata())


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    policy = Policy(tmp_path / "policy.yaml")
    policy.add("whole", BUCKET, uploads=[{"bucket": BUCKET, "prefixes": ["part/"]}])
    policy.add("part", BUCKET, "part/")
    policy.write()
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator())
        emulator.put_object(BUCKET, REGION, "part/a.pdf", b"%PDF-1.4")
        values = settings(emulator, policy=PolicySettings(file=policy.path))
        gateway = await stack.enter_async_context(Gateway(values))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}"))
        emulator.add_fault("latency", "*", seconds=0.2, times=None)
        emulator.add_fault("error", "*", status=403, code="SignatureDoesNotMatch", times=None)
        yield Scene(gateway, policy, channel, stack.aclose)


def creation(request_id: str = "") -> pb.CreatePreviewJobRequest:
    output = ObjectLocation(object="previews/${Page}.jpg")
    return pb.CreatePreviewJobRequest(bucket=BUCKET, input_object="part/a.pdf", output=output, request_id=request_id)


def lines(written: bytes) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in written.splitlines() if line.startswith(b"{")]
    return [line for line in found if line["event"] in {"call", "create", "upload"}]


async def test_every_refused_call_is_logged_with_the_clouds_request_id(
    scene: Scene, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Reads that led or joined others, waits, watches, lists, creates with and without `request_id`, uploads."""
    get = pb.GetPreviewJobRequest(bucket=BUCKET, job_id=JOB)
    jobs, upload = scene.jobs, CreateUploadRequest(bucket=BUCKET, object="part/${UploadId}.pdf", content_length=2**25)
    calls = [
        *[(jobs.GetPreviewJob, get) for _ in range(5)],
        (jobs.BatchGetPreviewJobs, pb.BatchGetPreviewJobsRequest(bucket=BUCKET, job_ids=[JOB])),
        *[(jobs.WaitPreviewJob, pb.WaitPreviewJobRequest(bucket=BUCKET, job_id=JOB)) for _ in range(2)],
        *[(jobs.WatchPreviewJob, pb.WatchPreviewJobRequest(bucket=BUCKET, job_id=JOB)) for _ in range(2)],
        (jobs.ListPreviewJobs, pb.ListPreviewJobsRequest(bucket=BUCKET)),
        (scene.queues.ListPreviewQueues, ListPreviewQueuesRequest(bucket=BUCKET)),
        (jobs.CreatePreviewJob, creation()),
        *[(jobs.CreatePreviewJob, creation(ID)) for _ in range(2)],
        (scene.uploads.CreateUpload, upload),
    ]
    trailers = await asyncio.gather(*(scene.refused(*call) for call in calls))
    await scene.stop()
    found = lines(capfdbinary.readouterr().err)
    ends = [line for line in found if line["event"] == "call"]
    assert len(ends) == len(calls)
    assert "coalesced" in {line["cache"] for line in ends}
    assert {line["reason"] for line in ends} == {"UPSTREAM_CREDENTIALS"}
    assert [line for line in found if not line["upstream_request_id"]] == []
    assert {line["event"] for line in found} == {"call", "create", "upload"}
    assert [each[SHOWN] for each in trailers]


async def test_the_operator_page_finds_a_refused_call_by_the_clouds_request_id(scene: Scene) -> None:
    trailers = await scene.refused(scene.jobs.GetPreviewJob, pb.GetPreviewJobRequest(bucket=BUCKET, job_id=JOB))
    url = f"http://127.0.0.1:{scene.gateway.admin_port}/calls"
    async with httpx.AsyncClient(trust_env=False) as client:
        page = (await client.get(url, params={"id": trailers[SHOWN]})).text
    assert "UPSTREAM_CREDENTIALS" in page
    assert page.count(trailers[SHOWN]) > 1


async def test_a_caller_from_whom_jobs_are_hidden_does_not_get_the_clouds_request_id_that_is_logged(
    scene: Scene, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """It would tell whether another caller's request was joined."""
    get, wait = pb.GetPreviewJobRequest(bucket=BUCKET, job_id=JOB), pb.WaitPreviewJobRequest(bucket=BUCKET, job_id=JOB)
    trailers = [
        await scene.refused(scene.jobs.GetPreviewJob, get, "part"),
        await scene.refused(scene.jobs.WaitPreviewJob, wait, "part"),
    ]
    await scene.stop()
    ids = [line["upstream_request_id"] for line in lines(capfdbinary.readouterr().err)]
    assert len(ids) == 2
    for request_id in ids:
        assert request_id
        assert request_id not in repr(trailers)
