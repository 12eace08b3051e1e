"""Templates of output names: what the cloud requires of them, and that the gateway refuses the same ones."""

from itertools import product

import pytest

from docpreview_emulator import Emulator
from docpreview_emulator.errors import CloudError
from docpreview_emulator.requests import read_create
from docpreview_gateway.model.output_templates import source_format, template_problem

from .cloud_client import BUCKET, REGION, XML, Cloud, create_body

TEMPLATES = ["/".join(parts) for parts in product(("o", "${SheetID}", "${Number}"), ("p", "${Number}", "${Page}.x"))]
TEMPLATES += ["${SheetID}", "${SheetID}-${Number}", "${Number}", "/o/${Page}", "o/${number}", "o/$Number", "${Number}/"]
KINDS: list[dict[str, object]] = [{}, {"TgtType": "pdf"}, {"TgtType": "png", "PicPagination": 1}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", ["o/whole.pdf", "${Number}/whole", "${SheetID}/whole"])
async def test_a_pdf_and_a_single_image_need_a_number_or_page_in_their_name_too(
    emulator: Emulator, cloud: Cloud, kind: dict[str, object], template: str
) -> None:
    reply = await cloud.create("seven.pdf", template, **kind)
    assert (reply.status, reply.text("Code")) == (400, "InvalidArgument")
    assert reply.text("Message") == "Output/Object must contain ${Number} or ${Page} in its file name."
    assert emulator.accepted_jobs == 0


async def test_a_pdf_and_a_single_image_have_the_number_1(emulator: Emulator, cloud: Cloud) -> None:
    for kind in KINDS[1:]:
        job = await emulator.wait_for_job(await cloud.job_id("seven.pdf", "o/${Number}-${Page}", EndPage=2, **kind))
        assert job.result is not None
        assert [page.target for page in job.result.pages] == ["o/1-1"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_workbook_needs_the_number_of_its_sheet_in_the_path(cloud: Cloud, kind: dict[str, object]) -> None:
    reply = await cloud.create("book.xlsx", "o/${Number}", **kind)
    assert reply.text("Message") == "Output/Object must contain ${SheetID} in its path for a spreadsheet."
    assert (await cloud.create("book.xlsx", "${SheetID}/${Page}", **kind)).text("Code") == "ResourceNotFound"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["a.pdf", "a.docx", "a.XLSX", "a.csv", "a"])
def test_the_gateway_refuses_the_templates_that_the_emulator_refuses(key: str, kind: dict[str, object]) -> None:
    """Each reads the vendor's document with code of its own."""
    declared = {"SrcType": "xlsx"} if key == "a" else {}
    for template in TEMPLATES:
        gateway = template_problem(template, source_format(key, declared.get("SrcType", "")))
        try:
            read_create(create_body(key, template, **kind, **declared))
            emulator = True
        except CloudError:
            emulator = False
        assert emulator is (gateway is None), template


@pytest.mark.parametrize("template", ["x" * 846 + "${Number}", "é" * 423 + "${Page}", "/" + "x" * 846 + "${Number}"])
async def test_an_output_with_a_longer_key_than_objects_may_have_is_refused(cloud: Cloud, template: str) -> None:
    """Nobody could read the page with the highest number, 5,000. A slash before the key is not of it."""
    reply = await cloud.create("seven.pdf", template)
    assert reply.status == 200
    reply = await cloud.create("seven.pdf", template.replace("x", "xx", 1).replace("é", "éé", 1))
    assert (reply.status, reply.text("Code")) == (400, "KeyTooLong")


@pytest.mark.parametrize("region", ["../..", "ap chong/qing", "AP-Chongqing", "ap-chongqing."])
async def test_an_output_in_a_region_that_no_host_can_name_is_refused(cloud: Cloud, region: str) -> None:
    body = create_body("seven.pdf").replace(b"<Region>ap-chongqing<", b"<Region>" + region.encode() + b"<")
    assert region.encode() in body
    reply = await cloud.send("POST", "/doc_jobs", headers={"content-type": XML}, body=body)
    assert (reply.status, reply.text("Message")) == (400, f"{region} is no region: it must look like ap-chongqing.")


async def test_pages_that_end_before_they_begin_fail_the_job(emulator: Emulator, cloud: Cloud) -> None:
    job = await emulator.wait_for_job(await cloud.job_id("seven.pdf", StartPage=5, EndPage=2))
    message = "No page is selected: EndPage 2 comes before StartPage 5."
    assert (job.state, job.code, job.message) == ("Failed", "-3015", message)


async def test_a_target_type_that_the_cloud_does_not_know_is_jpg(emulator: Emulator, cloud: Cloud) -> None:
    """Also in the names that the page's creates give."""
    given = {"bucket": BUCKET, "region": REGION, "key": "seven.pdf", "process": {"TgtType": "gif", "EndPage": "1"}}
    async with cloud.session.post(f"{cloud.url}/_emulator/jobs", json=given) as response:
        job = await emulator.wait_for_job((await response.json())["job_id"])
    assert job.result is not None
    assert [page.target for page in job.result.pages] == ["previews/seven.pdf/1.jpg"]
    assert emulator.get_object(BUCKET, REGION, "previews/seven.pdf/1.jpg").startswith(b"\xff\xd8")
