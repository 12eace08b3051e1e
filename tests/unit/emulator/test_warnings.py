"""What pages do not show although the job succeeded: in the job's message and in the log."""

import logging
from pathlib import Path

import pytest

from docpreview_emulator import Emulator

from .cloud_client import BUCKET, REGION, Cloud
from .conftest import QUICK
from .pdf_files import pdf

IGNORED = "Ignored in ImageParams: imageSlim (not modelled)."


async def test_a_warning_is_in_the_message_of_the_successful_job_and_in_the_log(
    emulator: Emulator, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await cloud.job_id("seven.pdf", EndPage=1, ImageParams="imageSlim")
    await emulator.wait_for_job(job_id)
    reply = await cloud.get(job_id)
    assert (reply.text("JobsDetail/State"), reply.text("JobsDetail/Code")) == ("Success", "Success")
    assert reply.text("JobsDetail/Message") == IGNORED
    logged = [record for record in caplog.records if record.name.startswith("docpreview_emulator")]
    assert (logging.WARNING, f"job {job_id}: {IGNORED}") in [(each.levelno, each.getMessage()) for each in logged]


async def test_a_job_without_warnings_has_no_message(emulator: Emulator, cloud: Cloud) -> None:
    job_id = await cloud.job_id("seven.pdf", EndPage=1)
    await emulator.wait_for_job(job_id)
    assert (await cloud.get(job_id)).text("JobsDetail/Message") == ""


async def test_warnings_survive_a_restart(tmp_path: Path) -> None:
    async with Emulator(tmp_path, settings=QUICK) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "one.pdf", pdf(1))
        job_id = await cloud.job_id("one.pdf", ImageParams="imageSlim")
        await emulator.wait_for_job(job_id)
    async with Emulator(tmp_path, settings=QUICK) as emulator, Cloud(emulator.url) as cloud:
        job = emulator.job(job_id)
        assert job.result is not None
        assert job.result.warnings == (IGNORED,)
        assert (await cloud.get(job_id)).text("JobsDetail/Message") == IGNORED
