"""Helpers for tests of uploads: a gateway over real sockets, the calls of UploadService, and the PUTs of a client."""

from __future__ import annotations

import hashlib
import io
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
from google.rpc import error_details_pb2, status_pb2

from docpreview.v1.upload_service_pb2 import AbortUploadRequest, CompleteUploadRequest, CreateUploadRequest
from docpreview.v1.upload_service_pb2_grpc import UploadServiceStub
from docpreview_emulator import Emulator
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, settings
from tests.integration.identity import bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from docpreview.v1.upload_service_pb2 import Upload, UploadedObject, UploadPart


@dataclass
class Uploading:
    """An emulator, a gateway before it, and a client without cloud keys."""

    emulator: Emulator
    gateway: Gateway
    channel: grpc.aio.Channel
    http: aiohttp.ClientSession
    token: str = ""

    def stub(self) -> Any:
        return UploadServiceStub(self.channel)

    @property
    def options(self) -> dict[str, Any]:
        return {"timeout": 20, "metadata": bearer(self.token) if self.token else None}

    async def begin(self, data: bytes, key: str = "in/${UploadId}.pdf", **more: Any) -> Upload:
        request = CreateUploadRequest(bucket=BUCKET, object=key, content_length=len(data), **more)
        upload: Upload = await self.stub().CreateUpload(request, **self.options)
        return upload

    async def put(self, part: UploadPart, data: bytes, **changed: str | None) -> tuple[int, str]:
        """Send a part as a client does, with some headers changed or, if None, left out. Status, and ETag or code."""
        url, headers = part.url, dict(part.headers)
        for name, value in changed.items():
            headers.pop(name.replace("_", "-"))
            if value is not None:
                headers[name.replace("_", "-")] = value
        async with self.http.put(url, data=io.BytesIO(data), headers=headers) as reply:
            text = await reply.text()
        if reply.status == 200:
            return 200, reply.headers["ETag"]
        return reply.status, text.partition("<Code>")[2].partition("</Code>")[0]

    async def put_all(self, upload: Upload, data: bytes) -> list[str]:
        etags = []
        for part in upload.parts:
            status, etag = await self.put(part, data[part.offset : part.offset + part.length])
            assert status == 200, etag
            etags.append(etag)
        return etags

    async def complete(self, upload: Upload, etags: list[str]) -> UploadedObject:
        request = CompleteUploadRequest(upload_token=upload.upload_token, etags=etags)
        made: UploadedObject = await self.stub().CompleteUpload(request, **self.options)
        return made

    async def abort(self, upload: Upload) -> None:
        await self.stub().AbortUpload(AbortUploadRequest(upload_token=upload.upload_token), **self.options)

    def counted(self, stage: str, caller: str = "anonymous") -> float | None:
        labels = {"caller": caller, "stage": stage}
        return self.gateway.registry.get_sample_value("docpreview_upload_bytes_total", labels)


@asynccontextmanager
async def uploading(**changes: object) -> AsyncIterator[Uploading]:
    async with (
        Emulator() as emulator,
        Gateway(settings(emulator, **changes)) as gateway,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
        aiohttp.ClientSession(skip_auto_headers=("content-type",)) as http,
    ):
        yield Uploading(emulator, gateway, channel, http)


def md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, str, str]:
    """Code, reason and message; of an invalid request the violations instead."""
    metadata: Mapping[str, Any] = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    told = error.details() or ""
    for detail in status.details:
        detail.Unpack(info)
        if detail.Unpack(bad):
            told = "; ".join(f"{wrong.field} {wrong.description}" for wrong in bad.field_violations)
    return error.code().name, info.reason, told
