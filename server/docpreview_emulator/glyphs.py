"""Characters of a PDF that LibreOffice has drawn as empty boxes, because no font of this machine has them."""

from collections.abc import Mapping
from pathlib import Path

import pypdfium2 as pdfium

from docpreview_emulator.errors import JobFailure
from docpreview_emulator.fonts import installed, missing_glyphs
from docpreview_emulator.pages import selected

_ASCII = frozenset(map(chr, range(128)))


def warnings(source: Path, process: Mapping[str, str], *, is_sheet: bool) -> list[str]:
    """What the selected pages of a PDF of LibreOffice do not show; `process` has the job's `DocProcess` values."""
    text = _characters(source, process, is_sheet=is_sheet) - _ASCII
    warning = missing_glyphs(text, installed()) if text else ""
    return [warning] if warning else []


def _characters(source: Path, process: Mapping[str, str], *, is_sheet: bool) -> set[str]:
    found: set[str] = set()
    with pdfium.PdfDocument(source) as document:
        for number in _numbers(process, len(document), is_sheet=is_sheet):
            page = document[number - 1]
            words = page.get_textpage()
            found.update(words.get_text_range())
            words.close()
            page.close()
    return found


def _numbers(process: Mapping[str, str], total: int, *, is_sheet: bool) -> list[int]:
    if process["TgtType"].lower() == "pdf":
        return list(range(1, total + 1))
    try:
        return selected(process, total, is_sheet=is_sheet)
    except JobFailure:  # the job ends with it when the pages are drawn
        return []
