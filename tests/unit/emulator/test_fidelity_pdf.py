"""Pictures of a PDF show what its pages show; what they cannot show is said."""

import io
from typing import Any

import pypdfium2 as pdfium
import pytest
from PIL import Image

from docpreview_emulator import Emulator
from docpreview_emulator.model import Job

from .cloud_client import BUCKET, REGION, Cloud
from .pdf_files import FORM_BOXES, boxed_pdf, form_pdf, pdf

POINTS: dict[str, Any] = {"TgtType": "png", "ImageDpi": 96, "Zoom": 75}
"""A picture with a pixel for each point."""

CUT = "The document has more than 5000 pages, of which the first 5000 are converted."


async def converted(
    emulator: Emulator, cloud: Cloud, document: bytes, template: str = "o/${Page}", **options: Any
) -> Job:
    emulator.put_object(BUCKET, REGION, "a.pdf", document)
    return await emulator.wait_for_job(await cloud.job_id("a.pdf", template, **options))


def picture(emulator: Emulator, key: str = "o/1") -> Image.Image:
    return Image.open(io.BytesIO(emulator.get_object(BUCKET, REGION, key))).convert("RGB")


def ink(image: Image.Image, box: tuple[int, int, int, int]) -> int:
    """How many pixels of the box are dark."""
    return sum(image.crop(box).convert("L").point(lambda value: value < 128).histogram()[1:])


def numbers(job: Job) -> tuple[str, int, int, list[str]]:
    """State, pages of the document, pages that failed, and the names of the outputs."""
    assert job.result is not None, (job.code, job.message)
    return job.state, job.result.total_pages, job.result.failed_pages, [page.target for page in job.result.pages]


@pytest.fixture
async def form(emulator: Emulator, cloud: Cloud) -> Image.Image:
    """The picture of a filled form."""
    assert (await converted(emulator, cloud, form_pdf(), **POINTS)).message == ""
    return picture(emulator)


@pytest.mark.parametrize("field", ["text", "unshown text", "choice"])
def test_the_value_of_a_field_is_in_the_picture_with_and_without_an_appearance_in_the_file(
    form: Image.Image, field: str
) -> None:
    assert ink(form, FORM_BOXES[field]) > 50


def test_a_ticked_box_is_ticked_and_an_empty_one_is_empty(form: Image.Image) -> None:
    left, top, right, bottom = FORM_BOXES["tick"]
    assert form.getpixel(((left + right) // 2, (top + bottom) // 2)) == (0, 0, 255)
    assert ink(form, FORM_BOXES["no tick"]) == 0


def test_a_hidden_field_stays_hidden(form: Image.Image) -> None:
    assert ink(form, FORM_BOXES["hidden"]) == 0


async def test_the_values_of_a_form_are_in_a_single_image_and_in_a_pdf_too(emulator: Emulator, cloud: Cloud) -> None:
    await converted(emulator, cloud, form_pdf(), "o/${Number}", PicPagination=1, **POINTS)
    assert ink(picture(emulator), FORM_BOXES["text"]) > 50
    await converted(emulator, cloud, form_pdf(), "o/form-${Number}.pdf", TgtType="pdf")
    await converted(emulator, cloud, emulator.get_object(BUCKET, REGION, "o/form-1.pdf"), **POINTS)
    assert ink(picture(emulator), FORM_BOXES["unshown text"]) > 50


async def test_a_form_whose_pages_another_program_would_make_is_drawn_with_a_warning(
    emulator: Emulator, cloud: Cloud
) -> None:
    job = await converted(emulator, cloud, form_pdf(xfa="/XFA(<xdp/>)"), **POINTS)
    assert job.message == "The document is an XFA form, of which only the pages for other viewers are drawn."
    assert ink(picture(emulator), FORM_BOXES["text"]) > 50


SQUARE, OUTSIDE = "/MediaBox[0 0 300 300]", "/MediaBox[0 0 200 300]/CropBox[600 600 900 900]"
WHOLE = "Drawn whole, because their CropBox is outside of their MediaBox: page 2."


async def test_a_crop_box_outside_of_the_media_box_does_not_spoil_the_file(emulator: Emulator, cloud: Cloud) -> None:
    """The page is drawn without its CropBox, and the message says so."""
    job = await converted(emulator, cloud, boxed_pdf(SQUARE, OUTSIDE, SQUARE), **POINTS)
    assert numbers(job) == ("Success", 3, 0, ["o/1", "o/2", "o/3"])
    assert [picture(emulator, f"o/{page}").size for page in (1, 2, 3)] == [(300, 300), (200, 300), (300, 300)]
    assert job.message == WHOLE


async def test_a_crop_box_outside_of_the_media_box_does_not_spoil_a_single_image(
    emulator: Emulator, cloud: Cloud
) -> None:
    job = await converted(emulator, cloud, boxed_pdf(SQUARE, OUTSIDE), "o/${Number}", PicPagination=1, **POINTS)
    assert (job.message, picture(emulator).size) == (WHOLE, (300, 600))


async def test_a_warning_names_ten_pages_and_counts_the_others(emulator: Emulator, cloud: Cloud) -> None:
    job = await converted(emulator, cloud, boxed_pdf(*[OUTSIDE] * 12), **POINTS)
    assert job.message.endswith("pages 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more.")


@pytest.mark.parametrize("single", [0, 1])
async def test_a_page_that_is_missing_in_the_file_is_counted_and_named_and_the_others_are_drawn(
    emulator: Emulator, cloud: Cloud, single: int
) -> None:
    damaged = boxed_pdf(SQUARE, SQUARE, SQUARE).replace(b"4 0 obj<</Type/Page/", b"4 0 obj<</Type/Lost/")
    job = await converted(emulator, cloud, damaged, PicPagination=single, **POINTS)
    assert numbers(job)[:3] == ("Success", 3, 1)
    assert job.message == "Not drawn, because they are damaged: page 2."


async def test_of_5001_pages_the_first_5000_are_converted_and_the_message_says_so(
    emulator: Emulator, cloud: Cloud
) -> None:
    job = await converted(emulator, cloud, pdf(5001, 20, 10), StartPage=4999)
    assert numbers(job) == ("Success", 5001, 0, ["o/4999", "o/5000"])
    assert job.message == CUT


async def test_of_5001_pages_all_5000_pictures_are_stored(emulator: Emulator, cloud: Cloud) -> None:
    job = await converted(emulator, cloud, pdf(5001, 20, 10))
    assert numbers(job)[3] == [f"o/{page}" for page in range(1, 5001)]


async def test_a_pdf_of_5001_pages_has_5000_pages_as_pdf(emulator: Emulator, cloud: Cloud) -> None:
    job = await converted(emulator, cloud, pdf(5001, 20, 10), "o/whole-${Number}.pdf", TgtType="pdf")
    assert (job.message, len(pdfium.PdfDocument(emulator.get_object(BUCKET, REGION, "o/whole-1.pdf")))) == (CUT, 5000)


async def test_a_selection_before_the_5000th_page_is_converted_without_a_message(
    emulator: Emulator, cloud: Cloud
) -> None:
    job = await converted(emulator, cloud, pdf(5001, 20, 10), PageRanges="1,5000")
    assert (numbers(job)[3], job.message) == (["o/1", "o/5000"], "")


async def test_a_selection_after_the_5000th_page_fails_and_says_why(emulator: Emulator, cloud: Cloud) -> None:
    job = await converted(emulator, cloud, pdf(5001, 20, 10), StartPage=5001)
    assert (job.state, job.code) == ("Failed", "-3015")
    assert job.message == "Page 5001 is not converted: only the first 5000 pages of a document are."
