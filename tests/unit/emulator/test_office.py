"""Slides, text and workbooks through the real LibreOffice, one file of each family."""

from pathlib import Path
from typing import Any

import pytest
from PIL import ImageOps

from docpreview_emulator import Emulator, Settings
from tests.programs import need

from .cloud_client import Cloud
from .office_files import formula, letter, slides, workbook
from .office_jobs import converted, needs_office, words
from .test_rendering import image, targets

LONG = [[f"row {n}"] for n in range(120)]
BOOK = workbook({"Long": LONG, "Empty": [], "Short": [["a", "b"]]})


@needs_office
@pytest.mark.parametrize(
    ("key", "data", "pages"),
    [
        ("deck.pptx", slides(3), 3),
        ("letter.docx", letter(["one", "two"]), 2),
        ("main.c", b"int main(void) { return 0; }\n", 1),
        ("page.html", b"<html><body><h1>Title</h1></body></html>", 1),
        ("old.doc", b"{\\rtf1 Hello}", 1),
    ],
)
async def test_every_page_of_an_office_document_becomes_an_image(
    emulator: Emulator, cloud: Cloud, key: str, data: bytes, pages: int
) -> None:
    """Every page becomes an image with something on it, and the next conversion uses the same profile."""
    job = await converted(emulator, cloud, key, data, "o/${Number}.jpg")
    assert targets(job) == [f"o/{number}.jpg" for number in range(1, pages + 1)]
    assert min(image(emulator, "o/1.jpg").size) > 500


@needs_office
async def test_an_office_document_is_converted_in_a_data_directory_that_is_named_relatively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `docpreview-emulator serve --data-dir data`."""
    monkeypatch.chdir(tmp_path)
    async with Emulator("data", settings=Settings(submit_delay=0.0)) as emulator, Cloud(emulator.url) as cloud:
        job = await converted(emulator, cloud, "notes.txt", b"text", "o/${Number}.jpg")
        assert targets(job) == ["o/1.jpg"]
    assert (tmp_path / "data").is_dir()


@needs_office
async def test_each_sheet_of_a_workbook_has_its_folder_and_its_image_counts(emulator: Emulator, cloud: Cloud) -> None:
    """An empty sheet has no images; they are counted in the file and in the sheet."""
    job = await converted(emulator, cloud, "book.xlsx", BOOK, "o/${SheetID}/p_${Number}.jpg")
    expected = ["o/1/p_1.jpg", "o/1/p_2.jpg", "o/1/p_3.jpg", "o/3/p_1.jpg"]
    assert targets(job) == expected
    reply = await cloud.get(job.job_id)
    result = "JobsDetail/Operation/DocProcessResult"
    assert reply.text(f"{result}/TotalSheetCount") == "3"
    assert reply.texts(f"{result}/PageInfo/PageNo") == ["1", "1", "1", "3"]
    assert reply.texts(f"{result}/PageInfo/X-SheetPics") == ["3", "3", "3", "1"]
    assert reply.texts(f"{result}/PageInfo/PicIndex") == ["1", "2", "3", "4"]
    assert reply.texts(f"{result}/PageInfo/PicNum") == ["1", "2", "3", "1"]


@needs_office
async def test_the_asked_sheet_alone_is_rendered_on_the_asked_paper(emulator: Emulator, cloud: Cloud) -> None:
    """Landscape A2 is 594 by 420 mm."""
    options = {"SheetId": 3, "PaperSize": 1, "PaperDirection": 1}
    job = await converted(emulator, cloud, "book.xlsx", BOOK, "o/${SheetID}/p_${Number}.jpg", **options)
    assert targets(job) == ["o/3/p_1.jpg"]
    width, height = image(emulator, "o/3/p_1.jpg").size
    assert (width, height) == pytest.approx((594 / 25.4 * 96, 420 / 25.4 * 96), abs=2)


@needs_office
async def test_start_and_end_page_count_within_the_asked_sheet(emulator: Emulator, cloud: Cloud) -> None:
    options = {"SheetId": 1, "StartPage": 2, "EndPage": 3}
    job = await converted(emulator, cloud, "book.xlsx", BOOK, "o/${SheetID}/${Page}", **options)
    assert targets(job) == ["o/1/2", "o/1/3"]


@needs_office
@pytest.mark.parametrize(
    ("document", "options", "code"),
    [
        (("noise.pptx", b"no presentation"), {}, "FileOpenFailed"),
        (("cut.docx", letter(["x"])[:-30]), {}, "FileOpenFailed"),
        (("noise.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\xff" * 600), {}, "FileOpenFailed"),
        (("book.xlsx", BOOK), {"SheetId": 4}, "-3015"),
    ],
)
async def test_a_document_that_libreoffice_cannot_open_is_a_failed_job(
    emulator: Emulator, cloud: Cloud, document: tuple[str, bytes], options: dict[str, Any], code: str
) -> None:
    """Also one that it would open as something else."""
    job = await converted(emulator, cloud, *document, "o/${SheetID}/${Number}", **options)
    assert (job.state, job.code) == ("Failed", code)


@needs_office
async def test_a_conversion_that_takes_too_long_is_a_failed_job() -> None:
    """LibreOffice is killed."""
    settings = Settings(submit_delay=0, conversion_timeout=0.05)
    async with Emulator(settings=settings) as emulator, Cloud(emulator.url) as cloud:
        job = await converted(emulator, cloud, "deck.pptx", slides(1), "o/${Number}")
        assert (job.state, job.code) == ("Failed", "ConversionTimeout")


async def test_without_libreoffice_an_office_job_fails_as_an_unsupported_type() -> None:
    """The job fails as for a type that the cloud does not support; PDFs go on."""
    settings = Settings(submit_delay=0, soffice="")
    async with Emulator(settings=settings) as emulator, Cloud(emulator.url) as cloud:
        job = await converted(emulator, cloud, "deck.pptx", slides(1), "o/${Number}")
        assert (job.state, job.code) == ("Failed", "-3011")
        assert "LibreOffice" in job.message


@needs_office
async def test_a_formula_is_drawn(emulator: Emulator, cloud: Cloud) -> None:
    """By LibreOffice's Math, a package of its own: without it there is nothing in its place."""
    need("lomath")
    job = await converted(emulator, cloud, "formula.docx", formula("12", "34"), "o/${Number}.png", TgtType="png")
    assert targets(job) == ["o/1.png"]
    ink = ImageOps.invert(image(emulator, "o/1.png").convert("L")).getbbox()
    assert ink is not None
    assert ink[3] - ink[1] > 20, "one number stands above the other"
    assert await words(emulator, cloud, "formula.docx", formula("12", "34")) == ["12", "34"]


@needs_office
async def test_a_hidden_slide_has_no_page_and_the_message_says_so(emulator: Emulator, cloud: Cloud) -> None:
    job = await converted(emulator, cloud, "deck.pptx", slides(3, hidden=[2]), "o/${Number}")
    assert job.result is not None
    assert (job.result.total_pages, job.message) == (2, "Hidden, and without pages: 1 slide.")


@needs_office
async def test_a_presentation_all_of_whose_slides_are_hidden_is_empty(emulator: Emulator, cloud: Cloud) -> None:
    job = await converted(emulator, cloud, "deck.pptx", slides(2, hidden=[1, 2]), "o/${Number}")
    message = "The document is empty: all of its slides are hidden."
    assert (job.state, job.code, job.message) == ("Failed", "-3008", message)
