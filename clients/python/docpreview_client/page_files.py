"""Names of the files that a job's pages become. They come from numbers only, never from object keys."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final

from docpreview.v1.preview_job_pb2 import Page, PreviewJob, PreviewOptions

_SUFFIXES: Final = {"image/jpeg": ".jpg", "image/png": ".png", "application/pdf": ".pdf"}
_SUFFIX: Final = re.compile(r"\.[A-Za-z0-9]{1,8}$")
_NAME: Final = re.compile(r"(page-\d{4,}|sheet-\d{2,}-page-\d{3,}|document)(\.[a-z0-9]{1,8})?(\.part)?")
_SPREADSHEETS: Final = frozenset(
    {".csv", ".et", ".ets", ".ett", ".xls", ".xlsb", ".xlsm", ".xlsx", ".xlt", ".xltm", ".xltx"}
)


def names(job: PreviewJob) -> list[str]:
    """One name for each page, in the order of the pages; sorted they are in this order, too.

    `page-0001.jpg`, by the number of the page; `sheet-01-page-001.jpg` of a workbook; `document.pdf` of a PDF.
    """
    pages = job.result.pages
    if job.result.target_format == PreviewOptions.TARGET_FORMAT_PDF and len(pages) == 1:
        return [f"document{_suffix(pages[0])}"]
    stems = _of_sheets(pages) if job.result.total_sheet_count else _of_pages(pages)
    return [f"{stem}{_suffix(page)}" for stem, page in zip(stems, pages, strict=True)]


def is_name(text: str) -> bool:
    """Whether `names` can have made it, or it is the unfinished file of such a name."""
    return _NAME.fullmatch(text) is not None


def is_spreadsheet(name: str) -> bool:
    """Whether a document of this name has sheets, which the output's template then must have, too."""
    return PurePosixPath(name).suffix.lower() in _SPREADSHEETS


def output_template(name: str, target: PreviewOptions.TargetFormat.ValueType) -> str:
    """The default template of the results of a document of this name, of which no two creates have the same."""
    kinds = {PreviewOptions.TARGET_FORMAT_PNG: "png", PreviewOptions.TARGET_FORMAT_PDF: "pdf"}
    suffix = kinds.get(target, "jpg")
    sheet = "sheet-${SheetID}/" if is_spreadsheet(name) else ""
    return f"out/${{RequestToken}}/{sheet}page-${{Number}}.{suffix}"


def _of_pages(pages: Sequence[Page]) -> Iterator[str]:
    numbers = [page.page_number for page in pages]
    if len(set(numbers)) < len(numbers) or min(numbers, default=1) < 1:
        numbers = list(range(1, len(pages) + 1))
    return (f"page-{number:04d}" for number in numbers)


def _of_sheets(pages: Sequence[Page]) -> Iterator[str]:
    """By the number of the sheet and that of the page in it; pages are counted where the cloud does not number them."""
    places = [(page.page_number, page.picture_number) for page in pages]
    if len(set(places)) < len(places) or any(number < 1 for place in places for number in place):
        places = list(_counted(pages))
    sheet_digits = max(2, *(len(str(sheet)) for sheet, _ in places), 0)
    page_digits = max(3, *(len(str(number)) for _, number in places), 0)
    return (f"sheet-{sheet:0{sheet_digits}d}-page-{number:0{page_digits}d}" for sheet, number in places)


def _counted(pages: Sequence[Page]) -> Iterator[tuple[int, int]]:
    seen: Counter[int] = Counter()
    for page in pages:
        seen[page.page_number] += 1
        yield max(page.page_number, 0), seen[page.page_number]


def _suffix(page: Page) -> str:
    if known := _SUFFIXES.get(page.content_type):
        return known
    found = _SUFFIX.search(page.object)
    return found.group().lower() if found else ""
