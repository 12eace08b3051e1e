"""`make contact-sheet`: a picture with a tile for each page, and for each failed document one with its message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from docpreview_emulator.formats import Family, family_of, suffix_of
from tests.contact_sheet import ALARM, OFFICE, PDFS, Shown, draw, main, sheet
from tests.programs import need
from tests.unit.emulator.pdf_files import encrypted_pdf, form_pdf, pdf

if TYPE_CHECKING:
    from pathlib import Path


async def test_each_page_is_a_tile_and_a_failed_document_says_why() -> None:
    documents = [
        Shown("two pages", "two.pdf", pdf(2)),
        Shown("not opened", "locked.pdf", encrypted_pdf(b"pass")),
        Shown("a form", "form.pdf", form_pdf()),
    ]
    tiles = await draw(documents)
    assert [tile.image is not None for tile in tiles] == [True, True, False, True]
    assert "Failed: The document is encrypted" in tiles[2].caption
    colours = {colour for _, colour in sheet(tiles).getcolors(1 << 24) or []}
    assert {(0, 0, 255), ALARM} <= colours, "the form's tick, and the caption of the failed one"


def test_the_documents_are_of_all_families() -> None:
    assert {family_of(suffix_of(shown.key)) for shown in (*PDFS, *OFFICE)} == set(Family)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_sheet_is_written_with_every_document_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("soffice")
    main(tmp_path / "build" / "sheet.png")
    with Image.open(tmp_path / "build" / "sheet.png") as written:
        assert written.width > 1000
    told = int(capsys.readouterr().out.split()[0])
    assert told > len(PDFS) + len(OFFICE)
