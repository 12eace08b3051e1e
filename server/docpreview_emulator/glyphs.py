"""Characters of a PDF that LibreOffice has drawn as empty boxes, because no font of this machine has them."""

import codecs
import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path

import pypdfium2 as pdfium
from pypdfium2 import raw

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
            found.update(*_actual_texts(page))
            page.close()
    return found


def _actual_texts(page: pdfium.PdfPage) -> Iterator[str]:
    """Texts that stand beside glyphs in place of the glyphs' own (`ActualText`, PDF 1.7, 14.9.4).

    LibreOffice writes them where a font has one glyph, such as the empty box, for several characters. Those of a page's
    text lack the characters beyond U+FFFF.
    """
    for drawn in page.get_objects(filter=(raw.FPDF_PAGEOBJ_TEXT,)):
        for number in range(raw.FPDFPageObj_CountMarks(drawn.raw)):
            text = _parameter(raw.FPDFPageObj_GetMark(drawn.raw, number), b"ActualText")
            if text.startswith(codecs.BOM_UTF16_BE):
                yield text[len(codecs.BOM_UTF16_BE) :].decode("utf-16-be", "replace")


def _parameter(mark: object, name: bytes) -> bytes:
    """A parameter of a mark as it is in the file; empty: it does not have it."""
    size = ctypes.c_ulong()
    raw.FPDFPageObjMark_GetParamBlobValue(mark, name, None, 0, size)
    found = (ctypes.c_ubyte * size.value)()
    raw.FPDFPageObjMark_GetParamBlobValue(mark, name, found, size.value, size)
    return bytes(found)


def _numbers(process: Mapping[str, str], total: int, *, is_sheet: bool) -> list[int]:
    if process["TgtType"].lower() == "pdf":
        return list(range(1, total + 1))
    try:
        return selected(process, total, is_sheet=is_sheet)
    except JobFailure:  # the job ends with it when the pages are drawn
        return []
