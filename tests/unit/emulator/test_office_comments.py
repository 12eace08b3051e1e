"""What `Comments` hides and shows of documents, through the real LibreOffice."""

import io
from typing import Any

import pypdfium2 as pdfium
import pytest
from PIL import Image, ImageChops

from docpreview_emulator import Emulator

from .cloud_client import BUCKET, REGION, Cloud
from .office_files import commented_slide, reviewed
from .office_jobs import converted, needs_office
from .test_rendering import image

pytestmark = needs_office

HIDE, SHOW = {"Comments": 0}, {"Comments": 1}


def coloured(picture: Image.Image) -> tuple[int, int, int, int] | None:
    """The box of what is not grey."""
    red, green, blue = picture.convert("RGB").split()
    difference = ImageChops.lighter(ImageChops.difference(red, green), ImageChops.difference(green, blue))
    return difference.point(lambda value: 255 if value > 32 else 0).getbbox()


async def text(emulator: Emulator, cloud: Cloud, options: dict[str, Any]) -> str:
    """The words on the page, by a job that makes a PDF of it."""
    await converted(emulator, cloud, "review.docx", reviewed(), "whole-${Number}.pdf", TgtType="pdf", **options)
    data = emulator.get_object(BUCKET, REGION, "whole-1.pdf")
    with pdfium.PdfDocument(io.BytesIO(data)) as document:
        return str(document[0].get_textpage().get_text_range())


async def test_hidden_comments_leave_no_note_and_apply_the_changes(emulator: Emulator, cloud: Cloud) -> None:
    """Deleted words are gone and inserted ones are words like all others."""
    job = await converted(emulator, cloud, "review.docx", reviewed(), "hide-${Number}.png", TgtType="png", **HIDE)
    assert job.message == ""
    picture = image(emulator, "hide-1.png")
    assert coloured(picture) is None
    assert (await text(emulator, cloud, HIDE)).split() == ["INSERTED", "euros"]


@pytest.mark.parametrize("options", [SHOW, {}])
async def test_shown_comments_are_notes_in_the_margin_beside_marks_of_the_changes(
    emulator: Emulator, cloud: Cloud, options: dict[str, Any]
) -> None:
    """Also when a create does not say, as the echo of the cloud's sample does."""
    await converted(emulator, cloud, "review.docx", reviewed(), "show-${Number}.png", TgtType="png", **options)
    picture = image(emulator, "show-1.png")
    width, height = picture.size
    assert coloured(picture.crop((0, 0, width // 2, height))), "marks of the changes"
    assert coloured(picture.crop((width * 3 // 4, 0, width, height))), "a note"
    words = await text(emulator, cloud, options)
    assert [word for word in ("DELETED", "INSERTED", "euros", "Reviewer", "REMARK") if word in words] == [
        *("DELETED", "INSERTED", "euros", "Reviewer", "REMARK")
    ]


@pytest.mark.parametrize("options", [HIDE, SHOW])
async def test_comments_of_slides_are_never_on_their_pictures(
    emulator: Emulator, cloud: Cloud, options: dict[str, Any]
) -> None:
    """The vendor's parameter is one of text documents."""
    await converted(emulator, cloud, "deck.pptx", commented_slide(), "slide-${Number}.png", TgtType="png", **options)
    assert image(emulator, "slide-1.png").convert("L").getextrema() == (255, 255)
