"""The image or text of a watermark, put on page images and on the pages of PDFs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pypdfium2 as pdfium
from PIL import Image, UnidentifiedImageError

from docpreview_emulator.errors import JobFailure
from docpreview_emulator.fonts import installed, undrawn_letters
from docpreview_emulator.image_params import GRAVITIES, Mark
from docpreview_emulator.lettering import text_image

POINTS_PER_PIXEL = 72 / 96
"""On PDF pages, which have no pixels: those of the default resolution."""

MAX_PLACES = 10_000
"""Most times that an image is repeated on a page."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """An image at `dx`, `dy` pixels from the edges that `gravity` names; a centred side has no distance.

    It is repeated with `gaps` between; None: it is put once.
    """

    image: Image.Image
    dx: int
    dy: int
    gaps: tuple[int, int] | None
    gravity: str = "northwest"

    @classmethod
    def of(cls, watermark: Mapping[str, str]) -> "Stamp | None":
        """The stamp of a job's `DocWatermark`; None: it has none.

        The vendor does not tell from which corner its distances count: here from the upper left.

        Raises:
            JobFailure: the image cannot be read.
        """
        if not watermark:
            return None
        image = _read(watermark["Image"])
        dx, dy, across, down = (
            int(watermark.get(name, "0")) for name in ("Dx", "Dy", "HorizontalSpacing", "VerticalSpacing")
        )
        return cls(image, dx, dy, (across, down) if watermark.get("Batch") == "1" else None)

    @classmethod
    def of_mark(cls, mark: Mark, images: Mapping[str, str]) -> "tuple[Stamp, list[str]]":
        """The stamp of a watermark of `ImageParams`, and warnings; `images` has the files of its addresses.

        Raises:
            JobFailure: the image cannot be read.
        """
        lacking: list[str] = []
        if mark.image:
            image = _read(images[mark.image])
            image.putalpha(image.getchannel("A").point(lambda alpha: alpha * mark.opacity // 100))
        else:
            image, lacking = text_image(mark.text, mark.font_size, mark.colour, mark.opacity)
        if mark.degree:
            image = image.rotate(-mark.degree, Image.Resampling.BICUBIC, expand=True)
        gaps = (mark.dx, mark.dy) if mark.tiled else None
        gravity = "northwest" if mark.tiled else mark.gravity
        warnings = undrawn_letters(lacking, installed()) if lacking else []
        return cls(image, mark.dx, mark.dy, gaps, gravity), warnings

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
            row, column = divmod(GRAVITIES.index(self.gravity), 3)
            yield _start(column, self.dx, width - self.image.width), _start(row, self.dy, height - self.image.height)
            return
        across, down = (max(1, side + gap) for side, gap in zip(self.image.size, self.gaps, strict=True))
        columns, rows = range(self.dx % across - across, width, across), range(self.dy % down - down, height, down)
        if len(columns) * len(rows) > MAX_PLACES:
            raise JobFailure("ImageTooLarge", "The image of the watermark would be repeated too often.")
        yield from ((left, top) for top in rows for left in columns)


def _start(place: int, distance: int, free: int) -> int:
    """Where it begins at the near edge (0), in the middle (1) and at the far edge (2) with so many pixels free."""
    return (distance, free // 2, free - distance)[place]


def _read(path: str) -> Image.Image:
    try:
        with Image.open(path) as found:
            return found.convert("RGBA")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        raise JobFailure("ResourceDownloadFailed", "The image of the watermark cannot be read.") from None
