"""Rendering of PDF files to page images by pdfium and Pillow. Runs in a process of its own (`render_process`).

Values out of range are clamped to the documented range, because the cloud accepts and echoes them.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pypdfium2 as pdfium
from PIL import Image

from docpreview_emulator.errors import JobFailure
from docpreview_emulator.image_params import ignored
from docpreview_emulator.pages import MAX_PAGES, MAX_SINGLE_IMAGE_PAGES, selected
from docpreview_emulator.stamp import Stamp

SIDE_LIMIT = 65500
"""Each side of an output must stay below this many pixels."""

POINTS_PER_INCH = 72
_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_REMOVE_SECURITY = 3  # FPDF_REMOVE_SECURITY


@dataclass(slots=True)
class Rendering:
    """Result of rendering a document: outputs as (source page, file name), pages that failed, and warnings."""

    total: int
    outputs: list[tuple[int, str]] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def render(source: Path, directory: Path, process: Mapping[str, str], watermark: Mapping[str, str]) -> Rendering:
    """Render the selected pages of a PDF into files of a directory.

    Args:
        source: the PDF.
        directory: where the outputs go; it exists and is empty.
        process: the job's `DocProcess` values, all of them.
        watermark: the values of its `DocWatermark`, with a path as `Image`; empty: there is none.

    Raises:
        JobFailure: the document or the request is one that the cloud would fail.
    """
    document = _open(source, process["DocPassword"])
    try:
        if len(document) > MAX_PAGES:
            raise JobFailure("TooManyPages", f"The document has {len(document)} pages; the limit is {MAX_PAGES}.")
        if process["TgtType"].lower() == "pdf":
            return _whole(document, source, directory, Stamp.of(watermark))
        pages = selected(process, len(document))
        draw = _single if process["PicPagination"] == "1" else _separate
        rendering = draw(document, pages, _Writer.of(process, directory, Stamp.of(watermark)))
        rendering.warnings += ignored(process["ImageParams"])
        return rendering
    finally:
        document.close()


def _open(source: Path, password: str) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(source, password=password or None)
    except pdfium.PdfiumError as error:
        if error.err_code == _PASSWORD_ERROR:
            raise JobFailure("-3006", "The document is encrypted and DocPassword does not open it.") from None
        raise JobFailure("FileOpenFailed", "The document is damaged or not of its declared type.") from None


def _whole(document: pdfium.PdfDocument, source: Path, directory: Path, stamp: Stamp | None) -> Rendering:
    """The output of a PDF as PDF: all pages, without its password."""
    if stamp is not None:
        stamp.put_on_document(document)
        document.save(directory / "whole.pdf", flags=_REMOVE_SECURITY)
    elif pdfium.raw.FPDF_GetSecurityHandlerRevision(document) < 0:
        shutil.copyfile(source, directory / "whole.pdf")
    else:
        document.save(directory / "whole.pdf", flags=_REMOVE_SECURITY)
    return Rendering(len(document), [(1, "whole.pdf")])


@dataclass(frozen=True, slots=True)
class _Writer:
    directory: Path
    suffix: str
    scale: float
    quality: int
    stamp: Stamp | None

    @classmethod
    def of(cls, process: Mapping[str, str], directory: Path, stamp: Stamp | None) -> "_Writer":
        dpi, zoom = _within(process["ImageDpi"], 96, 600), _within(process["Zoom"], 10, 200)
        suffix = "png" if process["TgtType"].lower() == "png" else "jpg"
        return cls(directory, suffix, dpi / POINTS_PER_INCH * zoom / 100, _within(process["Quality"], 1, 100), stamp)

    def draw(self, document: pdfium.PdfDocument, number: int) -> Image.Image:
        """One page as an RGB image; numbers count from 1."""
        page = document[number - 1]
        try:
            check_side(*(round(side * self.scale) for side in page.get_size()))
            image: Image.Image = page.render(scale=self.scale).to_pil()
            image = image if image.mode == "RGB" else image.convert("RGB")
            if self.stamp is not None:
                self.stamp.put_on_image(image)
            return image
        finally:
            page.close()

    def save(self, image: Image.Image, page: int) -> tuple[int, str]:
        """Write an output; its source page and file name."""
        name = f"{page}.{self.suffix}"
        if self.suffix == "png":
            image.save(self.directory / name, compress_level=1)
        else:
            image.save(self.directory / name, quality=self.quality)
        return page, name


def check_side(*sides: int) -> None:
    """Refuse an output that is too large.

    Raises:
        JobFailure: a side has 65500 pixels or more.
    """
    if max(sides) >= SIDE_LIMIT:
        raise JobFailure("ImageTooLarge", f"An output side of {max(sides)} px is not below {SIDE_LIMIT} px.")


def _separate(document: pdfium.PdfDocument, pages: list[int], writer: _Writer) -> Rendering:
    """One output per page. A page that pdfium cannot draw is counted as failed; the others are rendered."""
    rendering = Rendering(len(document))
    for page in pages:
        try:
            rendering.outputs.append(writer.save(writer.draw(document, page), page))
        except pdfium.PdfiumError:
            rendering.failed.append(page)
    if pages and not rendering.outputs:
        raise JobFailure("RenderFailed", "No page of the document could be drawn.")
    return rendering


def _single(document: pdfium.PdfDocument, pages: list[int], writer: _Writer) -> Rendering:
    """All selected pages below each other in one image, white beside the narrower ones."""
    if len(pages) > MAX_SINGLE_IMAGE_PAGES:
        message = f"{len(pages)} pages do not fit into a single image; the limit is {MAX_SINGLE_IMAGE_PAGES}."
        raise JobFailure("TooManyPages", message)
    try:
        images = [writer.draw(document, page) for page in pages]
    except pdfium.PdfiumError:
        raise JobFailure("RenderFailed", "A page of the single image could not be drawn.") from None
    width, height = max(image.width for image in images), sum(image.height for image in images)
    check_side(width, height)
    whole = Image.new("RGB", (width, height), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    return Rendering(len(document), [writer.save(whole, pages[0])])


def _within(text: str, low: int, high: int) -> int:
    return min(max(int(text), low), high)
