"""Page selection, and the names of outputs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from docpreview_emulator.errors import JobFailure, invalid_argument

MAX_PAGES = 5000
MAX_SINGLE_IMAGE_PAGES = 20
BEYOND_THE_END = "-3015"  # the vendor's code in its synchronous interface; none is published for jobs
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def read_ranges(text: str) -> list[tuple[int, int]]:
    """The ranges of `PageRanges`, e.g. `1,2-4,7`, both ends included; empty when there are none.

    Raises:
        CloudError: 400 InvalidArgument.
    """
    ranges = []
    for part in text.split(",") if text else []:
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last:
            raise invalid_argument("DocProcess/PageRanges must look like 1,2-4,7.")
        ranges.append((first, last))
    return ranges


def selected(process: Mapping[str, str], total: int, *, is_sheet: bool = False) -> list[int]:
    """The selected page numbers of a document (or of one sheet) of `total` pages, in order.

    PageRanges takes precedence over StartPage and EndPage, as in the vendor's sample. Ends beyond the last page are
    clamped, but a selection that begins after it is an error, unless it is a sheet: other sheets may be longer. 0 means
    unset.

    Raises:
        JobFailure: the selection begins after the last page, or ends before it begins.
    """
    ranges = read_ranges(process["PageRanges"])
    if not ranges:
        first, last = max(int(process["StartPage"]), 1), int(process["EndPage"])
        if 0 < last < first:
            raise JobFailure(BEYOND_THE_END, f"No page is selected: EndPage {last} comes before StartPage {first}.")
        ranges = [(first, last if last > 0 else max(total, 1))]
    for first, _ in ranges:
        if first > total and not is_sheet:
            raise JobFailure(BEYOND_THE_END, f"Page {first} does not exist: the document has {_pages(total)}.")
    return list(dict.fromkeys(page for first, last in ranges for page in range(first, min(last, total) + 1)))


def _pages(total: int) -> str:
    return "1 page" if total == 1 else f"{total} pages"


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """What is asked of the rendering of a document, or of one sheet."""

    process: Mapping[str, str]
    """The job's `DocProcess` values, all of them."""

    watermark: Mapping[str, str] = field(default_factory=dict)
    """The values of its `DocWatermark`, with a path as `Image`; empty: there is none."""

    images: Mapping[str, str] = field(default_factory=dict)
    """The files of the images of watermarks in `ImageParams`, by their addresses."""

    limit: int = MAX_PAGES
    """The last page that is converted: less than MAX_PAGES after other sheets."""

    page_megapixels: int = 200
    """Megapixels that one image may have."""

    job_megapixels: int = 20_000
    """Megapixels that all images together may have."""

    is_sheet: bool = False
    """Whether it is a sheet, which may have none of the pages."""


@dataclass(frozen=True, slots=True)
class OutputName:
    """The template of the outputs' keys, and whether `${Number}` counts source pages."""

    template: str
    number_is_page: bool

    @classmethod
    def of(cls, template: str, process: Mapping[str, str]) -> "OutputName":
        """The naming for a job.

        The vendor's text says that `${Number}` counts outputs from 1; its sample with PageRanges `1,3` made `abc_1` and
        `abc_3`. So it is the source page when PageRanges is given, and a count with StartPage and EndPage.
        """
        return cls(template, number_is_page=bool(process["PageRanges"]))

    def fill(self, *, number: int, page: int, sheet: int = 1) -> str:
        """The key of one output, with the template's leading slash if it has one."""
        values = {"Number": page if self.number_is_page else number, "Page": page, "SheetID": sheet}
        return re.sub(r"\$\{(Number|Page|SheetID)\}", lambda match: str(values[match[1]]), self.template)
