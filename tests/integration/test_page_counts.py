"""Pages of a document are as many as other programs count: poppler's `pdfinfo` in PDFs, LibreOffice in all others."""

from __future__ import annotations

import io
import subprocess
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from docpreview_emulator import Emulator, Settings
from tests.programs import need
from tests.unit.emulator.cloud_client import BUCKET, REGION, Cloud
from tests.unit.emulator.office_files import letter, slides, workbook
from tests.unit.emulator.pdf_files import boxed_pdf, encrypted_pdf, form_pdf, pdf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_emulator.model import Job

A4 = '<pageSetup paperSize="9" orientation="portrait"/>'
"""The emulator's own paper for spreadsheets, which LibreOffice alone has to be told."""

WORDS = "All words of a long paragraph have to find their way around the ends of lines and pages. "


def with_each_sheet(book: bytes, ending: str) -> bytes:
    """The workbook with these elements at the end of each sheet."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            text = old.read(name).decode().replace("</sheetData>", f"</sheetData>{ending}")
            new.writestr(name, text)
    return result.getvalue()


def wide(rows: int) -> list[list[str]]:
    """Rows that need several pages beside each other."""
    return [[f"cell {row}/{column}" for column in range(14)] for row in range(rows)]


PDFS = {
    "seven.pdf": pdf(7),
    "boxes.pdf": boxed_pdf("/MediaBox[0 0 300 300]", "/MediaBox[0 0 300 300]/CropBox[600 600 900 900]"),
    "form.pdf": form_pdf(),
    "secret.pdf": encrypted_pdf(b"pass"),
}
OFFICE = {
    "deck.pptx": slides(9),
    "letter.docx": letter([WORDS * 60, WORDS, WORDS * 130]),
    "rich.rtf": ("{\\rtf1 " + f"{WORDS * 50}\\page " * 3 + "end}").encode(),
    "book.xlsx": with_each_sheet(workbook({"Long": [["x"]] * 200, "Empty": [], "Wide": wide(70)}), A4),
    "notes.txt": (WORDS * 9 + "\n").encode() * 40,
    "main.log": b"2026-01-02 03:04:05 a line of a log\n" * 300,
    "page.html": f"<html><body>{f'<p>{WORDS * 40}</p><hr>' * 5}</body></html>".encode(),
}
SECONDS = 280
"""LibreOffice may take so long where other tests run beside it."""

pytestmark = pytest.mark.timeout(2 * SECONDS)

OLDER = {"old-deck.ppt": "deck.pptx", "old-letter.doc": "letter.docx", "old-book.xls": "book.xlsx"}
"""The older formats, written by LibreOffice from the newer ones."""


def pages_of(file: Path, password: str = "") -> int:
    """The pages that poppler counts."""
    told = subprocess.run([need("pdfinfo"), "-upw", password, file], check=True, capture_output=True, text=True).stdout
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("Pages:"))


def office(directory: Path, target: str, *files: Path) -> None:
    """Have LibreOffice write the files in another format."""
    profile = f"-env:UserInstallation={(directory / 'profile').as_uri()}"
    # The emulator opens web pages as text documents, with pages instead of a window.
    web = ["--infilter=HTML (StarWriter)"] if files[0].suffix == ".html" else []
    command = [need("soffice"), profile, "--headless", *web, "--convert-to", target, "--outdir", str(directory)]
    subprocess.run([*command, *files], check=True, capture_output=True, timeout=SECONDS)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, int]]:
    """Each office document and its pages, as LibreOffice alone makes them."""
    need("pdfinfo")
    directory = tmp_path_factory.mktemp("direct")
    for name, data in OFFICE.items():
        (directory / name).write_bytes(data)
    for name, source in OLDER.items():
        older = directory / name
        office(directory, older.suffix[1:], directory / source)
        (directory / source).with_suffix(older.suffix).rename(older)
    files = [directory / name for name in (*OFFICE, *OLDER)]
    office(directory, "pdf", *(file for file in files if file.suffix != ".html"))
    office(directory, "pdf", *(file for file in files if file.suffix == ".html"))
    return {file.name: (file.read_bytes(), pages_of(directory / f"{file.stem}.pdf")) for file in files}


@pytest.fixture
async def emulator(tmp_path: Path) -> AsyncIterator[Emulator]:
    """Thousands of slides take LibreOffice two GB."""
    async with Emulator(tmp_path / "data", settings=Settings(submit_delay=0.0, max_memory=4096)) as running:
        yield running


async def converted(emulator: Emulator, key: str, data: bytes, **options: Any) -> Job:
    emulator.put_object(BUCKET, REGION, key, data)
    template = "o/${SheetID}/${Page}" if key.endswith(("xlsx", "xls")) else "o/${Page}"
    async with Cloud(emulator.url) as cloud:
        return await emulator.wait_for_job(await cloud.job_id(key, template, **options), timeout=SECONDS)


async def counted(emulator: Emulator, key: str, data: bytes, **options: Any) -> tuple[int, int, str]:
    """The pages that a job tells, the pictures that it stores, and its message."""
    job = await converted(emulator, key, data, **options)
    assert job.result is not None, (job.code, job.message)
    stored = [emulator.get_object(BUCKET, REGION, page.target) for page in job.result.pages]
    return job.result.total_pages, len(stored), job.message


@pytest.mark.parametrize("name", PDFS)
async def test_a_pdf_has_the_pages_that_poppler_counts(emulator: Emulator, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PDFS[name])
    pages = pages_of(tmp_path / name, "pass")
    assert (await counted(emulator, name, PDFS[name], DocPassword="pass"))[:2] == (pages, pages)


@pytest.mark.parametrize("name", [*OFFICE, *OLDER])
async def test_a_document_has_the_pages_that_libreoffice_alone_gives_it(
    emulator: Emulator, documents: dict[str, tuple[bytes, int]], name: str
) -> None:
    data, pages = documents[name]
    assert pages > 1, "otherwise it shows little"
    assert (await counted(emulator, name, data))[:2] == (pages, pages)


CUT = "The document has more than 5000 pages, of which the first 5000 are converted."


@pytest.mark.long
async def test_of_a_text_of_5001_pages_the_first_5000_are_converted(emulator: Emulator) -> None:
    need("soffice")
    text = "{\\rtf1 " + "x\\page " * 5000 + "x}"
    assert await counted(emulator, "long.rtf", text.encode(), StartPage=4999) == (5001, 2, CUT)


@pytest.mark.long
async def test_of_a_workbook_of_5001_pages_the_first_5000_of_all_sheets_are_converted(emulator: Emulator) -> None:
    """Each row is a page; StartPage counts in each sheet."""
    need("soffice")
    breaks = "".join(f'<brk id="{row}" max="16383" man="1"/>' for row in range(1, 2501))
    ending = f'<rowBreaks count="2500" manualBreakCount="2500">{breaks}</rowBreaks>'
    book = with_each_sheet(workbook({"First": [["x"]] * 2501, "Second": [["x"]] * 2500}), ending)
    job = await converted(emulator, "long.xlsx", book, StartPage=2499)
    assert job.result is not None, (job.code, job.message)
    assert [page.target for page in job.result.pages] == ["o/1/2499", "o/1/2500", "o/1/2501", "o/2/2499"]
    assert (job.result.total_pages, job.message) == (5001, CUT)


@pytest.mark.long
async def test_of_5001_slides_the_first_5000_are_converted(emulator: Emulator) -> None:
    need("soffice")
    assert await counted(emulator, "long.pptx", slides(5001), StartPage=4999) == (5001, 2, CUT)
