"""Jobs that need LibreOffice."""

import io
from collections.abc import Sequence
from typing import Any

import pypdfium2 as pdfium
import pytest
from PIL import Image, ImageChops

from docpreview_emulator import Emulator
from docpreview_emulator.model import Job

from .cloud_client import BUCKET, REGION, Cloud

needs_office = pytest.mark.usefixtures("_office")


async def converted(emulator: Emulator, cloud: Cloud, key: str, data: bytes, template: str, **options: Any) -> Job:
    """The ended job of a document that is put under the key."""
    emulator.put_object(BUCKET, REGION, key, data)
    return await emulator.wait_for_job(await cloud.job_id(key, template, **options))


async def words(emulator: Emulator, cloud: Cloud, key: str, data: bytes, **options: Any) -> list[str]:
    """The words on the first page, or on that of the first sheet, by a job that makes a PDF of it."""
    await converted(emulator, cloud, key, data, "words/${SheetID}/${Number}.pdf", TgtType="pdf", **options)
    whole = emulator.get_object(BUCKET, REGION, "words/1/1.pdf")
    with pdfium.PdfDocument(io.BytesIO(whole)) as document:
        return str(document[0].get_textpage().get_text_range()).split()


async def heights(
    emulator: Emulator, cloud: Cloud, key: str, data: bytes, texts: Sequence[str]
) -> list[tuple[float, float]]:
    """Bottom and top of each text on the first page, in points from its lower edge; the page has all of them."""
    await converted(emulator, cloud, key, data, "heights/${SheetID}/${Number}.pdf", TgtType="pdf")
    found = []
    with pdfium.PdfDocument(io.BytesIO(emulator.get_object(BUCKET, REGION, "heights/1/1.pdf"))) as document:
        page = document[0].get_textpage()
        for text in texts:
            match = page.search(text).get_next()
            assert match is not None, text
            boxes = [page.get_charbox(match[0] + index) for index in range(match[1])]
            found.append((min(box[1] for box in boxes), max(box[3] for box in boxes)))
    return found


def coloured(picture: Image.Image) -> tuple[int, int, int, int] | None:
    """The box of what is not grey."""
    red, green, blue = picture.convert("RGB").split()
    difference = ImageChops.lighter(ImageChops.difference(red, green), ImageChops.difference(green, blue))
    return difference.point([255 * (value > 32) for value in range(256)]).getbbox()
