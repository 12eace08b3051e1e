"""Uploads through gateways whose wall clock is wrong, and which have not heard the cloud's: a real process."""

from __future__ import annotations

import io
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest

from docpreview.v1.upload_service_pb2 import CompleteUploadRequest, CreateUploadRequest
from docpreview.v1.upload_service_pb2_grpc import UploadServiceStub
from docpreview_emulator import Emulator
from docpreview_gateway.uploads.uploads import DEFAULT_TTL
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.faults.gateway_process import BUCKET, GatewayProcess
from tests.machine_clock import MachineClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CONTENT = b"%PDF-1.4 small"


@pytest.mark.parametrize("hours", [-25, 25])
async def test_addresses_and_tokens_of_a_gateway_with_a_wrong_clock_are_good_now(tmp_path: Path, hours: int) -> None:
    """The address puts the content, ends when it is told to, and a gateway with the right clock completes it."""
    clock = MachineClock(tmp_path / "clock")
    clock.ahead(hours)
    async with Emulator() as emulator, aiohttp.ClientSession() as http:
        upstream = {"endpoint": emulator.url, "object_url_base": emulator.url}
        wrong, right = (GatewayProcess(tmp_path / name, emulator.port, {"upstream": upstream}) for name in "ab")
        wrong.variables = clock.variables
        async with wrong, right, _stub(wrong) as create, _stub(right) as complete:
            upload = await create.CreateUpload(
                CreateUploadRequest(bucket=BUCKET, object="in/a.pdf", content_length=len(CONTENT)), timeout=10
            )
            assert abs(upload.expire_time.seconds - DEFAULT_TTL - SystemClock().now()) < 5
            (part,) = upload.parts
            async with http.put(part.url, data=io.BytesIO(CONTENT), headers=dict(part.headers)) as reply:
                assert reply.status == 200, await reply.text()
                etag = reply.headers["ETag"]
            done = CompleteUploadRequest(upload_token=upload.upload_token, etags=[etag])
            assert (await complete.CompleteUpload(done, timeout=10)).content_length == len(CONTENT)
            assert (await create.CompleteUpload(done, timeout=10)).content_length == len(CONTENT)


@asynccontextmanager
async def _stub(gateway: GatewayProcess) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        yield UploadServiceStub(channel)
