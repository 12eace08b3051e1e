"""Why a job failed, for programs: real documents that fail in the emulator, told by the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from docpreview.v1.preview_job_pb2 import JobFailure, PreviewJob, PreviewOptions
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from docpreview_emulator import Settings as EmulatorSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, REGION, World, settings
from tests.integration.test_gateway_lifecycle import held_job
from tests.programs import need
from tests.unit.emulator.office_files import slides, workbook
from tests.unit.emulator.pdf_files import encrypted_pdf, pdf

SECRET = Path(__file__).with_name("secret.docx")
"""Written by LibreOffice as Word 2007 under the password "pass"."""


async def ended(world: World, key: str, data: bytes, **options: Any) -> PreviewJob:
    await world.upload(key, data)
    made = await world.client.create(
        BUCKET, key, output_object="out/${SheetID}/${Number}.jpg", options=PreviewOptions(**options)
    )
    return await world.client.wait(BUCKET, made.job_id)


def told(job: PreviewJob) -> tuple[str, str]:
    return PreviewJob.State.Name(job.state), JobFailure.Reason.Name(job.failure.reason).removeprefix("REASON_")


@pytest.mark.parametrize(
    ("key", "data", "options", "reason"),
    [
        ("secret.pdf", encrypted_pdf(b"pass"), {}, "ENCRYPTED"),
        ("secret.pdf", encrypted_pdf(b"pass"), {"password": "no"}, "WRONG_PASSWORD"),
        ("noise.pdf", b"no pdf at all", {}, "DAMAGED"),
        ("cut.pdf", pdf(3)[:100], {}, "DAMAGED"),
        ("empty.pdf", b"", {}, "DAMAGED"),
        ("two.pdf", pdf(2), {"start_page": 3}, "NO_SUCH_PAGE"),
        ("what.xyz", b"?", {}, "UNSUPPORTED"),
        ("wide.pdf", pdf(1, width=14000), {"image_dpi": 600}, "TOO_LARGE"),
    ],
)
async def test_a_pdf_that_cannot_be_converted_fails_with_its_reason(
    world: World, key: str, data: bytes, options: dict[str, Any], reason: str
) -> None:
    """The cloud's own code and message are there too."""
    job = await ended(world, key, data, **options)
    assert told(job) == ("STATE_FAILED", reason)
    assert job.failure.code
    assert job.failure.message


@pytest.mark.parametrize(
    ("key", "data", "options", "reason"),
    [
        ("secret.docx", SECRET.read_bytes(), {}, "ENCRYPTED"),
        ("secret.docx", SECRET.read_bytes(), {"password": "no"}, "WRONG_PASSWORD"),
        ("cut.pptx", slides(1)[:-30], {}, "DAMAGED"),
        ("book.xlsx", workbook({"One": [["a"]]}), {"sheet_id": 4}, "NO_SUCH_PAGE"),
    ],
)
async def test_an_office_document_that_cannot_be_converted_fails_with_its_reason(
    world: World, key: str, data: bytes, options: dict[str, Any], reason: str
) -> None:
    need("soffice")
    assert told(await ended(world, key, data, **options)) == ("STATE_FAILED", reason)


async def test_an_office_document_opens_with_its_password(world: World) -> None:
    """So the two failures above are those of the password."""
    need("soffice")
    job = await ended(world, "secret.docx", SECRET.read_bytes(), password="pass")
    assert told(job) == ("STATE_SUCCESS", "UNSPECIFIED")


async def test_a_conversion_that_takes_too_long_has_timed_out() -> None:
    need("soffice")
    async with (
        Emulator(settings=EmulatorSettings(conversion_timeout=0.05)) as emulator,
        Gateway(settings(emulator)) as gateway,
        DocPreviewClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        job = await ended(World(emulator, gateway, client), "deck.pptx", slides(1))
        assert told(job) == ("STATE_FAILED", "TIMED_OUT")


async def test_a_document_that_is_gone_when_its_job_begins_is_not_found(world: World) -> None:
    job_id = await held_job(world.emulator, world.client)
    world.emulator.delete_object(BUCKET, REGION, (await world.client.get(BUCKET, job_id)).input.object)
    world.emulator.release_jobs()
    assert told(await world.client.wait(BUCKET, job_id)) == ("STATE_FAILED", "NOT_FOUND")


@pytest.mark.parametrize(("code", "reason"), [("AccessDenied", "PERMISSION"), ("NeverHeardOf", "UNSPECIFIED")])
async def test_a_code_that_no_document_brings_about_is_told_by_its_meaning(
    world: World, code: str, reason: str
) -> None:
    """The emulator has no rights to lack."""
    job_id = await held_job(world.emulator, world.client)
    world.emulator.set_job_state(job_id, "Failed", code=code, message="no")
    job = await world.client.wait(BUCKET, job_id)
    assert (told(job), job.failure.code) == (("STATE_FAILED", reason), code)
