"""What `Comments` hides and shows of documents, through the real LibreOffice."""

from typing import Any

import pytest

from docpreview_emulator import Emulator

from .cloud_client import Cloud
from .office_files import commented_slide, reviewed
from .office_jobs import coloured, converted, needs_office, words
from .test_rendering import image

pytestmark = needs_office

HIDE, SHOW = {"Comments": 0}, {"Comments": 1}


async def test_hidden_comments_leave_no_note_and_apply_the_changes(emulator: Emulator, cloud: Cloud) -> None:
    """Deleted words are gone and inserted ones are words like all others."""
    job = await converted(emulator, cloud, "review.docx", reviewed(), "hide-${Number}.png", TgtType="png", **HIDE)
    assert job.message == ""
    picture = image(emulator, "hide-1.png")
    assert coloured(picture) is None
    assert await words(emulator, cloud, "review.docx", reviewed(), **HIDE) == ["INSERTED", "euros"]


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
    shown = " ".join(await words(emulator, cloud, "review.docx", reviewed(), **options))
    assert all(word in shown for word in ("DELETED", "INSERTED", "euros", "Reviewer", "REMARK"))


async def test_comments_of_slides_are_not_on_their_pictures(emulator: Emulator, cloud: Cloud) -> None:
    """Whatever is asked: the vendor's parameter is one of text documents."""
    await converted(emulator, cloud, "deck.pptx", commented_slide(), "slide-${Number}.png", TgtType="png", **SHOW)
    assert image(emulator, "slide-1.png").convert("L").getextrema() == (255, 255)
