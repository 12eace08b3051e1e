"""Helpers for tests with a policy: its file, tokens and callers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import yaml

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_gateway.access import tokens
from tests.integration.conftest import BUCKET, OTHER_BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def caller(identities: Iterable[dict[str, Any]], bucket: str = BUCKET, prefix: str = "", **more: Any) -> dict[str, Any]:
    """Policy entry of a caller with all methods in one bucket under one prefix."""
    output = {"bucket": bucket, "prefixes": ["previews/"]}
    buckets = [{"bucket": bucket, "input_prefixes": [prefix], "outputs": [output]}]
    return {"identities": list(identities), "methods": ["*"], "buckets": buckets} | more


@dataclass
class Policy:
    """A policy file, and the tokens whose hashes it contains."""

    path: Path
    callers: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, bucket: str = BUCKET, prefix: str = "", **more: Any) -> str:
        """Add a caller and return its token."""
        token, hashed = tokens.new(secrets.token_bytes)
        self.callers[name] = caller([{"token": str(hashed)}], bucket, prefix, **more)
        self.tokens[name] = token
        return token

    def write(self) -> None:
        """Replace the file atomically."""
        new = self.path.with_suffix(".new")
        new.write_text(yaml.safe_dump({"version": 1, "callers": self.callers}))
        new.replace(self.path)

    @classmethod
    def of_two(cls, folder: Path) -> Policy:
        """A policy of the callers `one` and `two`, each with a bucket of its own."""
        policy = cls(folder / "policy.yaml")
        policy.add("one", BUCKET)
        policy.add("two", OTHER_BUCKET)
        policy.write()
        return policy


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Metadata with a bearer token."""
    return (("authorization", f"Bearer {token}"),)


async def get(
    channel: grpc.aio.Channel, metadata: Any = None, bucket: str = BUCKET, job_id: str = "d1"
) -> grpc.StatusCode:
    """The status code of a read."""
    stub: Any = PreviewJobServiceStub(channel)
    try:
        await stub.GetPreviewJob(GetPreviewJobRequest(bucket=bucket, job_id=job_id), metadata=metadata, timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def create(channel: grpc.aio.Channel, metadata: Any, key: str, bucket: str = BUCKET) -> PreviewJob:
    """Create a job of a document."""
    stub: Any = PreviewJobServiceStub(channel)
    request = CreatePreviewJobRequest(
        bucket=bucket, input_object=key, output=ObjectLocation(bucket=bucket, object="previews/${Number}.jpg")
    )
    job: PreviewJob = await stub.CreatePreviewJob(request, metadata=metadata, timeout=20)
    return job
