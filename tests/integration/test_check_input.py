"""`creates.check_input` over real sockets: each refusal, before the cloud is asked for a job and before pages count."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_job_pb2 import PreviewOptions
from docpreview_client import DocPreviewClient, DocPreviewError
from docpreview_emulator import Emulator
from docpreview_gateway.settings.sections import LimitSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.document_files import encrypted_office
from tests.integration.conftest import BUCKET, REGION, World, settings
from tests.unit.emulator.office_files import slides
from tests.unit.emulator.pdf_files import encrypted_pdf, pdf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PAGES = "p/${Number}.jpg"
BUDGET = LimitSettings.model_validate({"anonymous": {"budget": {"per_day": 100, "estimate": 40}}})


@pytest.fixture
async def checked() -> AsyncIterator[World]:
    """A gateway that looks at documents, and counts pages."""
    async with (
        Emulator() as emulator,
        Gateway(settings(emulator, creates={"check_input": True}, limits=BUDGET)) as gateway,
        DocPreviewClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        yield World(emulator, gateway, client)


async def refused(world: World, key: str, request_id: str = "") -> tuple[str, str, str]:
    with pytest.raises(DocPreviewError) as caught:
        await world.client.create(BUCKET, key, output_object=PAGES, request_id=request_id)
    return caught.value.code.name, caught.value.reason, str(caught.value)


def objects_read(world: World) -> int:
    return sum(record.operation == "object" for record in world.emulator.requests)


@pytest.mark.parametrize(
    ("key", "data", "code", "reason"),
    [
        ("missing.pdf", None, "NOT_FOUND", "INPUT_OBJECT_NOT_FOUND"),
        ("empty.pdf", b"", "FAILED_PRECONDITION", "INPUT_OBJECT_EMPTY"),
        ("program.exe", b"MZ", "INVALID_ARGUMENT", "INPUT_FORMAT_UNSUPPORTED"),
        ("open.odp", slides(1), "INVALID_ARGUMENT", "INPUT_FORMAT_UNSUPPORTED"),
        ("slides.pdf", slides(1), "FAILED_PRECONDITION", "INPUT_FORMAT_MISMATCH"),
        ("page.pptx", b"<html>not found</html>", "FAILED_PRECONDITION", "INPUT_FORMAT_MISMATCH"),
        ("cut.pptx", slides(1)[:-50], "FAILED_PRECONDITION", "INPUT_FORMAT_MISMATCH"),
        ("secret.pdf", encrypted_pdf(b"pass"), "FAILED_PRECONDITION", "INPUT_ENCRYPTED"),
        ("secret.pptx", encrypted_office(), "FAILED_PRECONDITION", "INPUT_ENCRYPTED"),
    ],
)
async def test_a_document_that_the_cloud_cannot_convert_costs_nothing(
    checked: World, key: str, data: bytes | None, code: str, reason: str
) -> None:
    """No job is made, no page counts, and no id is recorded: with a good document the same id makes the job."""
    if data is not None:
        await checked.upload(key, data)
    request_id = str(uuid.uuid4())
    assert (await refused(checked, key, request_id=request_id))[:2] == (code, reason)
    assert not checked.emulator.accepted_jobs
    assert objects_read(checked) == (0 if reason == "INPUT_FORMAT_UNSUPPORTED" else 1)
    usage = await checked.client.usage()
    assert (usage.day.used_pages, usage.day.reserved_pages) == (0, 0)
    if reason != "INPUT_FORMAT_UNSUPPORTED":
        await checked.upload(key, pdf(1) if key.endswith(".pdf") else slides(1))
        assert await checked.client.create(BUCKET, key, output_object=PAGES, request_id=request_id)


async def test_a_document_above_200_mib_is_refused_after_one_small_read(checked: World) -> None:
    """Its length is in the reply to the first range."""
    await checked.upload("large.pdf", b"%PDF-1.4" + bytes(200 * 1024 * 1024))
    assert (await refused(checked, "large.pdf"))[:2] == ("FAILED_PRECONDITION", "INPUT_OBJECT_TOO_LARGE")
    assert objects_read(checked) == 1


async def test_an_encrypted_document_with_its_password_becomes_pages(checked: World) -> None:
    """Whether it is the right one is left to the cloud."""
    await checked.upload("secret.pdf", encrypted_pdf(b"pass"))
    job = await checked.client.create(
        BUCKET, "secret.pdf", output_object=PAGES, options=PreviewOptions(password="pass")
    )
    assert (await checked.emulator.wait_for_job(job.job_id)).state == "Success"


async def test_a_large_document_is_read_at_both_ends(checked: World) -> None:
    """Two requests, and then the job."""
    await checked.upload("large.pdf", pdf(1).replace(b"%%EOF", b"%" + os.urandom(100_000).hex().encode() + b"\n%%EOF"))
    await checked.client.create(BUCKET, "large.pdf", output_object=PAGES)
    ranges = [dict(record.headers).get("range") for record in checked.emulator.requests if record.operation == "object"]
    assert ranges[0] == "bytes=0-65535"
    assert len(ranges) == 2


async def test_a_repeated_create_gets_its_job_after_its_document_is_gone(checked: World) -> None:
    """What was promised with the id holds."""
    await checked.upload("a.pdf", pdf(1))
    request_id = str(uuid.uuid4())
    first = await checked.client.create(BUCKET, "a.pdf", output_object=PAGES, request_id=request_id)
    await checked.upload("a.pdf", b"")
    again = await checked.client.create(BUCKET, "a.pdf", output_object=PAGES, request_id=request_id)
    assert again.job_id == first.job_id
    assert checked.emulator.accepted_jobs == 1


async def test_an_object_store_that_fails_stops_no_create(checked: World) -> None:
    """The cloud reads the document itself."""
    checked.emulator.put_object(BUCKET, REGION, "a.pdf", pdf(1))
    checked.emulator.add_fault("error", "object", times=None)
    assert await checked.client.create(BUCKET, "a.pdf", output_object=PAGES)


async def test_without_the_setting_nothing_is_looked_at(world: World) -> None:
    """The cloud says what it cannot convert."""
    await world.upload("slides.pdf", slides(1))
    await world.client.create(BUCKET, "slides.pdf", output_object=PAGES)
    assert objects_read(world) == 0
