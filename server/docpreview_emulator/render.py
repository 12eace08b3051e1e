"""Rendering of PDF files to page images by pdfium and Pillow. Runs in a process of its own (`document_process`).

Values out of range are clamped to the documented range, because the cloud accepts and echoes them.
"""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pypdfium2 as pdfium
from PIL import Image

from docpreview_emulator.errors import JobFailure, encrypted
from docpreview_emulator.image_params import ImageParams, Thumbnail
from docpreview_emulator.pages import BEYOND_THE_END, MAX_PAGES, MAX_SINGLE_IMAGE_PAGES, RenderOptions, selected
from docpreview_emulator.pixels import Size, below_each_other, check_pixels
from docpreview_emulator.stamp import Stamp

SIDE_LIMIT = 65500
"""Each side of an output must stay below this many pixels."""

MAX_THUMBNAIL_SIDE = 9999
"""Each side of a thumbnail has at most this many pixels (vendor document 1045/33713)."""

POINTS_PER_INCH = 72
MOST_NAMED_PAGES = 10
"""Page numbers that a warning names; further ones are counted."""

_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_REMOVE_SECURITY = 3  # FPDF_REMOVE_SECURITY
_UNDRAWABLE = (pdfium.PdfiumError, ValueError)
"""What a damaged page raises; other pages of the document may be drawn."""

_CUT = f"The document has more than {MAX_PAGES} pages, of which the first {MAX_PAGES} are converted."


@dataclass(slots=True)
class Rendering:
    """Result of rendering a document: outputs as (source page, file name), pages that failed, and warnings."""

    total: int
    outputs: list[tuple[int, str]] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def render(source: Path, directory: Path, options: RenderOptions) -> Rendering:
    """Render the selected pages of a PDF into files of a directory.

    Args:
        source: the PDF.
        directory: where the outputs go; it exists and is empty.
        options: what is asked.

    Raises:
        JobFailure: the document or the request is one that the cloud would fail.
    """
    process, stamp = options.process, Stamp.of(options.watermark)
    document = _open(source, process["DocPassword"])
    try:
        document.init_forms()
        if process["TgtType"].lower() == "pdf":
            rendering = _whole(document, source, directory, stamp, options.limit)
            rendering.warnings += ImageParams.read(process["ImageParams"], "pdf").warnings
            return rendering
        pages = selected(process, len(document), is_sheet=options.is_sheet)
        if not pages:
            return Rendering(len(document))
        kept = _convertible(pages, options.limit)
        if not kept:
            return Rendering(len(document), warnings=[_CUT])
        writer = _Writer.of(process, directory, stamp, options.images)
        is_single = process["PicPagination"] == "1"
        sizes = writer.sizes(document, kept)
        sizes = below_each_other(sizes) if is_single else sizes
        check_pixels(sizes, options.page_megapixels, options.job_megapixels)
        draw = _single if is_single else _separate
        rendering = draw(document, kept, writer)
        rendering.warnings = _warnings(document, rendering, writer, cut=pages[-1] > options.limit)
        return rendering
    finally:
        document.close()


def _open(source: Path, password: str) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(source, password=password or None)
    except pdfium.PdfiumError as error:
        if error.err_code == _PASSWORD_ERROR:
            raise encrypted(password) from None
        raise JobFailure("FileOpenFailed", "The document is damaged or not of its declared type.") from None


def _convertible(pages: list[int], limit: int) -> list[int]:
    kept = [page for page in pages if page <= limit]
    if not kept and limit == MAX_PAGES:
        message = f"Page {pages[0]} is not converted: only the first {MAX_PAGES} pages of a document are."
        raise JobFailure(BEYOND_THE_END, message)
    return kept


def _whole(document: pdfium.PdfDocument, source: Path, directory: Path, stamp: Stamp | None, limit: int) -> Rendering:
    """The output of a PDF as PDF: all pages up to the limit, without its password."""
    total = len(document)
    if not limit:
        return Rendering(total, warnings=[_CUT])
    rendering = Rendering(total, [(1, "whole.pdf")], warnings=[_CUT] if total > limit else [])
    for number in range(total - 1, limit - 1, -1):
        del document[number]
    if stamp is not None:
        stamp.put_on_document(document)
    if stamp is None and total <= limit and pdfium.raw.FPDF_GetSecurityHandlerRevision(document) < 0:
        shutil.copyfile(source, directory / "whole.pdf")
    else:
        document.save(directory / "whole.pdf", flags=_REMOVE_SECURITY)
    return rendering


@dataclass(frozen=True, slots=True)
class _Writer:
    directory: Path
    suffix: str
    scale: float
    quality: int
    stamp: Stamp | None
    steps: list[Thumbnail | Stamp]
    """The operations of `ImageParams`."""

    warnings: list[str] = field(default_factory=list)
    uncropped: list[int] = field(default_factory=list)
    """Pages that are drawn without their CropBox, which lies outside of their MediaBox."""

    @classmethod
    def of(
        cls, process: Mapping[str, str], directory: Path, stamp: Stamp | None, images: Mapping[str, str]
    ) -> "_Writer":
        dpi, zoom = _within(process["ImageDpi"], 96, 600), _within(process["Zoom"], 10, 200)
        suffix = "png" if process["TgtType"].lower() == "png" else "jpg"
        params = ImageParams.read(process["ImageParams"], suffix)
        quality = params.quality(_within(process["Quality"], 1, 100))
        writer = cls(directory, suffix, dpi / POINTS_PER_INCH * zoom / 100, quality, stamp, [])
        for step in params.steps:
            if isinstance(step, Thumbnail):
                writer.steps.append(step)
            else:
                drawn, warnings = Stamp.of_mark(step, images)
                writer.steps.append(drawn)
                writer.warnings.extend(warnings)
        writer.warnings.extend(params.warnings)
        return writer

    def sizes(self, document: pdfium.PdfDocument, pages: list[int]) -> list[Size]:
        """The sizes of the images of pages before they are drawn; a damaged page has none."""
        found = []
        for page in pages:
            with contextlib.suppress(*_UNDRAWABLE):
                width, height = document.get_page_size(page - 1)
                found.append((width * self.scale, height * self.scale))
        return found

    def draw(self, document: pdfium.PdfDocument, number: int) -> Image.Image:
        """One page as an RGB image; numbers count from 1."""
        page = self._page(document, number)
        try:
            check_side(*(round(side * self.scale) for side in page.get_size()))
            image: Image.Image = page.render(scale=self.scale).to_pil()
            image = image if image.mode == "RGB" else image.convert("RGB")
            if self.stamp is not None:
                self.stamp.put_on_image(image)
            return image
        finally:
            page.close()

    def _page(self, document: pdfium.PdfDocument, number: int) -> pdfium.PdfPage:
        page = document[number - 1]
        if min(page.get_size()) > 0:
            return page
        self.uncropped.append(number)
        page.set_cropbox(*page.get_mediabox())
        page.close()
        return document[number - 1]

    def save(self, image: Image.Image, page: int) -> tuple[int, str]:
        """Write an output after the operations of `ImageParams`; its source page and file name."""
        for step in self.steps:
            if isinstance(step, Stamp):
                step.put_on_image(image)
            else:
                image = _resized(image, step)
        name = f"{page}.{self.suffix}"
        if self.suffix == "png":
            image.save(self.directory / name, compress_level=1)
        else:
            image.save(self.directory / name, quality=self.quality)
        return page, name


def _resized(image: Image.Image, thumbnail: Thumbnail) -> Image.Image:
    size = thumbnail.size(image.size)
    if max(size) > MAX_THUMBNAIL_SIDE:
        message = f"A thumbnail's side of {max(size)} px is above {MAX_THUMBNAIL_SIDE} px."
        raise JobFailure("ImageTooLarge", message)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


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
        except _UNDRAWABLE:
            rendering.failed.append(page)
    if pages and not rendering.outputs:
        raise _no_page()
    return rendering


def _single(document: pdfium.PdfDocument, pages: list[int], writer: _Writer) -> Rendering:
    """All selected pages that can be drawn below each other in one image, white beside the narrower ones."""
    if len(pages) > MAX_SINGLE_IMAGE_PAGES:
        message = f"{len(pages)} pages do not fit into a single image; the limit is {MAX_SINGLE_IMAGE_PAGES}."
        raise JobFailure("TooManyPages", message)
    rendering, images = Rendering(len(document)), []
    for page in pages:
        try:
            images.append(writer.draw(document, page))
        except _UNDRAWABLE:
            rendering.failed.append(page)
    if not images:
        raise _no_page()
    width, height = max(image.width for image in images), sum(image.height for image in images)
    check_side(width, height)
    whole = Image.new("RGB", (width, height), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    rendering.outputs = [writer.save(whole, pages[0])]
    return rendering


def _no_page() -> JobFailure:
    return JobFailure("RenderFailed", "No page of the document could be drawn.")


def _warnings(document: pdfium.PdfDocument, rendering: Rendering, writer: _Writer, *, cut: bool) -> list[str]:
    found = [*([_CUT] if cut else []), *writer.warnings]
    if rendering.failed:
        found.append(f"Not drawn, because they are damaged: {_named(rendering.failed)}.")
    if writer.uncropped:
        found.append(f"Drawn whole, because their CropBox is outside of their MediaBox: {_named(writer.uncropped)}.")
    if document.get_formtype() == pdfium.raw.FORMTYPE_XFA_FULL:
        found.append("The document is an XFA form, of which only the pages for other viewers are drawn.")
    return found


def _named(pages: list[int]) -> str:
    """Page numbers for a warning."""
    names = ", ".join(map(str, pages[:MOST_NAMED_PAGES]))
    more = len(pages) - MOST_NAMED_PAGES
    return f"page{'s' if len(pages) > 1 else ''} {names}{f' and {more} more' if more > 0 else ''}"


def _within(text: str, low: int, high: int) -> int:
    return min(max(int(text), low), high)
