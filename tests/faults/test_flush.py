"""Redis servers that are emptied or set back while gateways use them (C3 of reliability's table)."""

from __future__ import annotations

import asyncio
import signal
import uuid
from typing import TYPE_CHECKING

import grpc
import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from tests.faults.campaign import DOCUMENT, DURABLE, cloud, creates, reason_of
from tests.faults.gateway_process import BUCKET, GatewayProcess
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from pathlib import Path

CREATE = CreatePreviewJobRequest(
    bucket=BUCKET,
    input_object=DOCUMENT,
    output=ObjectLocation(object="out/p-${Page}.jpg"),
    request_id=str(uuid.UUID(int=1, version=4)),
)


async def test_a_flushed_cache_costs_a_cloud_read_per_replica_and_no_second_job(tmp_path: Path) -> None:
    """A hundred readers at each of two replicas cost one or two cloud calls, and the `request_id` is still known."""
    for name in ("cache", "ledger"):
        (tmp_path / name).mkdir()
    with running_redis(tmp_path / "cache") as cache, running_redis(tmp_path / "ledger", *DURABLE) as ledger:
        changes = {
            "shared_state": {"url": cache.url, "ledger_url": ledger.url},
            "replicas": 2,
            # So short that every burst misses the memory of its process.
            "cache": {"active_seconds": 0.01},
        }
        async with (
            cloud() as emulator,
            GatewayProcess(tmp_path / "one", emulator.port, changes) as one,
            GatewayProcess(tmp_path / "other", emulator.port, changes) as other,
            grpc.aio.insecure_channel(one.address) as to_one,
            grpc.aio.insecure_channel(other.address) as to_other,
        ):
            stubs = [PreviewJobServiceStub(channel) for channel in (to_one, to_other)]
            job_id = (await stubs[0].CreatePreviewJob(CREATE, timeout=20)).job_id
            emulator.clear_requests()
            assert cache.command("FLUSHALL").startswith(b"+OK")
            # The cloud is slow enough for all readers to arrive before its first answer.
            emulator.add_fault(operation="get", kind="latency", seconds=1.0, times=10)
            request = GetPreviewJobRequest(bucket=BUCKET, job_id=job_id)
            read = await asyncio.gather(
                *(stubs[number % 2].GetPreviewJob(request, timeout=20) for number in range(200)),
                *(stub.CreatePreviewJob(CREATE, timeout=20) for stub in stubs),
            )
            assert {job.job_id for job in read} == {job_id}
            assert creates(emulator) == []
            # Beside these a gateway may ask whether the cloud is there, by a list.
            assert len([request for request in emulator.requests if request.operation == "get"]) <= len(stubs)


async def test_a_gateway_that_starts_first_on_a_server_that_lost_a_create_makes_no_second_job(tmp_path: Path) -> None:
    """The machine of both has crashed. The other gateway knows that the server is another one, and cannot say so."""
    with running_redis(tmp_path) as store:
        changes = {"shared_state": {"url": store.url}, "replicas": 2}
        async with (
            cloud() as emulator,
            GatewayProcess(tmp_path / "one", emulator.port, changes) as one,
            GatewayProcess(tmp_path / "other", emulator.port, changes) as other,
            grpc.aio.insecure_channel(one.address) as channel,
        ):
            stub = PreviewJobServiceStub(channel)
            first = CreatePreviewJobRequest()
            first.CopyFrom(CREATE)
            first.request_id = str(uuid.UUID(int=2, version=4))
            await stub.CreatePreviewJob(first, timeout=20)
            store.command("SAVE")
            await stub.CreatePreviewJob(CREATE, timeout=20)
            other.signal(signal.SIGSTOP)
            await one.stop()
            store.kill()
            store.start()
            await one.start()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.CreatePreviewJob(CREATE, timeout=20, wait_for_ready=True)
            assert reason_of(refused.value) == "LEDGER_UNAVAILABLE"
            assert len(creates(emulator)) == 2
            other.signal(signal.SIGCONT)
