"""The image of a watermark, put on page images and on the pages of PDFs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pypdfium2 as pdfium
from PIL import Image, UnidentifiedImageError

from docpreview_emulator.errors import JobFailure

POINTS_PER_PIXEL = 72 / 96
"""On PDF pages, which have no pixels: those of the default resolution."""

MAX_PLACES = 10_000
"""Most times that an image is repeated on a page."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """An image at `dx`, `dy` pixels from the upper left corner, repeated with `gaps` between; None: it is put once.

    The vendor does not tell from which corner the distances count.
    """

    image: Image.Image
    dx: int
    dy: int
    gaps: tuple[int, int] | None

    @classmethod
    def of(cls, watermark: Mapping[str, str]) -> "Stamp | None":
        """The stamp of a job; None: it has no watermark.

        Raises:
            JobFailure: the image cannot be read.
        """
        if not watermark:
            return None
        try:
            with Image.open(watermark["Image"]) as found:
                image = found.convert("RGBA")
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            raise JobFailure("ResourceDownloadFailed", "The image of the watermark cannot be read.") from None
        dx, dy, across, down = (
            int(watermark.get(name, "0")) for name in ("Dx", "Dy", "HorizontalSpacing", "VerticalSpacing")
        )
        return cls(image, dx, dy, (across, down) if watermark.get("Batch") == "1" else None)

    def put_on_image(self, page: Image.Image) -> None:
        """Draw it on a page image."""
        for place in self._places(page.width, page.height):
            page.paste(self.image, place, self.image)

    def put_on_document(self, document: pdfium.PdfDocument) -> None:
        """Draw it on each page of a PDF."""
        bitmap = pdfium.PdfBitmap.from_pil(self.image)
        across, down = (side * POINTS_PER_PIXEL for side in self.image.size)
        for page in document:
            width, height = page.get_size()
            for left, top in self._places(int(width / POINTS_PER_PIXEL), int(height / POINTS_PER_PIXEL)):
                drawn = pdfium.PdfImage.new(document)
                drawn.set_bitmap(bitmap)
                x, y = left * POINTS_PER_PIXEL, height - top * POINTS_PER_PIXEL - down
                drawn.set_matrix(pdfium.PdfMatrix().scale(across, down).translate(x, y))
                page.insert_obj(drawn)
            page.gen_content()
            page.close()

    def _places(self, width: int, height: int) -> Iterator[tuple[int, int]]:
        """Upper left corners on a page of this size."""
        if self.gaps is None:
            yield self.dx, self.dy
            return
        across, down = (max(1, side + gap) for side, gap in zip(self.image.size, self.gaps, strict=True))
        columns, rows = range(self.dx % across - across, width, across), range(self.dy % down - down, height, down)
        if len(columns) * len(rows) > MAX_PLACES:
            raise JobFailure("ImageTooLarge", "The image of the watermark would be repeated too often.")
        yield from ((left, top) for top in rows for left in columns)
