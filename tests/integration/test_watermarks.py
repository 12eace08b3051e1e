"""Watermarks end to end: chosen by the caller or forced by the policy, and seen on the pages."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from PIL import Image

from docpreview.v1 import preview_job_service_pb2 as pb
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions, Watermark
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from docpreview_gateway.settings.access import PolicySettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, OTHER_BUCKET, REGION, settings
from tests.integration.identity import Policy, bearer
from tests.unit.emulator.pdf_files import pdf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BLUE, RED = (0, 0, 255), (255, 0, 0)


def picture(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(file, "PNG")
    return file.getvalue()


def stamp(key: str, bucket: str = "", **place: Any) -> Watermark:
    return Watermark(image=ObjectLocation(bucket=bucket, object=key), **place)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as running:
        for key in ("in/blank.pdf", "out/blank.pdf"):
            running.put_object(BUCKET, REGION, key, pdf(1))
        running.put_object(BUCKET, REGION, "in/a logo.png", picture(RED))
        running.put_object(OTHER_BUCKET, REGION, "brand/logo.png", picture(BLUE))
        yield running


async def made(stub: Any, watermark: Watermark | None, metadata: Any = None) -> PreviewJob:
    options = PreviewOptions(target_format=PreviewOptions.TARGET_FORMAT_PNG, watermark=watermark)
    request = pb.CreatePreviewJobRequest(
        bucket=BUCKET, input_object="in/blank.pdf", output=ObjectLocation(object="p/${Number}.png"), options=options
    )
    job = await stub.CreatePreviewJob(request, metadata=metadata, timeout=20)
    asked = pb.WaitPreviewJobRequest(bucket=BUCKET, job_id=job.job_id)
    ended: PreviewJob = await stub.WaitPreviewJob(asked, metadata=metadata, timeout=60)
    return ended


def pixel(emulator: Emulator, x: int, y: int) -> Any:
    page = Image.open(io.BytesIO(emulator.get_object(BUCKET, REGION, "p/1.png")))
    return page.convert("RGB").getpixel((x, y))


async def test_a_caller_sees_its_watermark_on_the_page_and_in_the_job(emulator: Emulator) -> None:
    """At the place that it asked for."""
    async with (
        Gateway(settings(emulator)) as gateway,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
    ):
        job = await made(PreviewJobServiceStub(channel), stamp("in/a logo.png", dx=30, dy=40))
    image = ObjectLocation(bucket=BUCKET, region=REGION, object="in/a logo.png")
    assert job.options.watermark == Watermark(image=image, dx=30, dy=40)
    assert [pixel(emulator, 31, 41), pixel(emulator, 29, 41)] == [RED, (255, 255, 255)]


async def test_a_watermark_of_the_policy_is_on_every_page_whatever_the_caller_says(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Its image may be in a bucket that the caller may not read."""
    policy = Policy(tmp_path / "policy.yaml")
    image = {"bucket": OTHER_BUCKET, "object": "brand/logo.png"}
    force = {"watermark": {"image": image, "tiled": True}}
    outputs = [{"bucket": BUCKET, "prefixes": ["p/"]}]
    buckets = [{"bucket": BUCKET, "input_prefixes": ["in/"], "outputs": outputs}]
    metadata = bearer(policy.add("shop", buckets=buckets, options={"force": force}))
    policy.write()
    async with (
        Gateway(settings(emulator, policy=PolicySettings(file=policy.path))) as gateway,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
    ):
        stub: Any = PreviewJobServiceStub(channel)
        for own in (None, stamp("in/a logo.png", dx=0, dy=0)):
            job = await made(stub, own, metadata)
            assert job.options.watermark.image.bucket == OTHER_BUCKET
            assert {pixel(emulator, x, y) for x in (0, 100, 200) for y in (0, 50, 130)} == {BLUE}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await made(stub, stamp("brand/logo.png", OTHER_BUCKET), metadata)
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
