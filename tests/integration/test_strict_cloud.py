"""A gateway before a strict cloud: callers are told of a bucket that is not there, or is in another region."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview_client import BlockingClient, NotFound
from docpreview_emulator import Emulator, Settings
from docpreview_emulator.gateway_process import BUCKET, REGION, gateway_before
from docpreview_emulator.threaded import running
from tests.unit.emulator.cloud_client import Cloud
from tests.unit.emulator.pdf_files import pdf

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("region", ["", "ap-guangzhou", REGION])
def test_a_bucket_that_is_not_there_or_elsewhere_is_bucket_not_found_for_callers(tmp_path: Path, region: str) -> None:
    """Once it is created in the gateway's region, its document becomes a job."""
    with running(Emulator(settings=Settings(strict=True, submit_delay=0.0))) as emulator:
        asyncio.run(fill(emulator, region or "eu-frankfurt", BUCKET if region else "other-1250000000"))
        with gateway_before(emulator, tmp_path) as gateway, BlockingClient(gateway.address) as client:
            if region == REGION:
                assert client.create(BUCKET, "a.pdf", output_object="out/${Number}").job_id
                return
            for call in (
                lambda: client.create(BUCKET, "a.pdf", output_object="out/${Number}"),
                lambda: list(client.list(BUCKET)),
                lambda: list(client.list_queues(BUCKET)),
            ):
                with pytest.raises(NotFound) as refused:
                    call()
                assert refused.value.reason == "BUCKET_NOT_FOUND"


async def fill(emulator: Emulator, region: str, bucket: str) -> None:
    """Create a bucket with a document."""
    async with Cloud(emulator.url) as cloud:
        host = f"{bucket}.cos.{region}.myqcloud.com"
        assert (await cloud.send("PUT", "/", host=host)).status == 200
        assert (await cloud.put("a.pdf", pdf(1), host=host)).status == 200
