"""A contact sheet: what the emulator makes of documents of all families, as one picture to look at.

`make contact-sheet` writes build/contact-sheet.png; `python -m tests.contact_sheet FILE` writes another file.
"""

from __future__ import annotations

import asyncio
import io
import sys
import textwrap
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageChops, ImageDraw, ImageFont

from docpreview_emulator import Emulator
from tests.unit.emulator.cloud_client import BUCKET, REGION, Cloud
from tests.unit.emulator.office_files import FILLED, FRAMED, commented_slide, letter, reviewed, slides, workbook
from tests.unit.emulator.pdf_files import boxed_pdf, encrypted_pdf, form_pdf, pdf

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from docpreview_emulator.model import Job

TILE, MARGIN, LINE = 300, 12, 15
CAPTION = 5 * LINE
COLUMNS = 5
MOST_PAGES = 3
"""Pictures of one document."""

GREY, PAPER, INK, ALARM = (205, 205, 205), (240, 240, 240), (0, 0, 0), (190, 0, 0)


@dataclass(frozen=True)
class Shown:
    """A document of the sheet: what its pictures have to show, and how it is converted."""

    promise: str
    key: str
    data: bytes
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tile:
    """One picture with its caption; None: the job has none, and the caption says why."""

    caption: str
    image: Image.Image | None
    has_warning: bool


SECRET = (Path(__file__).parent / "unit" / "emulator" / "secrets" / "secret.doc").read_bytes()
PASSWORD = "pass"


def _encoded(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode()


PDFS = (
    Shown("three values, a blue tick, no tick, nothing hidden", "form.pdf", form_pdf()),
    Shown("three pages; the second without its CropBox", "crop.pdf", boxed_pdf(
        "/MediaBox[0 0 300 300]", "/MediaBox[0 0 200 300]/CropBox[600 600 900 900]", "/MediaBox[0 0 300 300]"
    )),
    Shown("a turned page is wide", "turned.pdf", boxed_pdf("/MediaBox[0 0 200 300]/Rotate 90")),
    Shown("an encrypted PDF opens with its password", "secret.pdf", encrypted_pdf(b"pass"), {"DocPassword": "pass"}),
    Shown("an encrypted PDF fails without its password", "locked.pdf", encrypted_pdf(b"pass")),
    Shown("a small thumbnail", "small.pdf", form_pdf(), {"ImageParams": "imageMogr2/thumbnail/100x"}),
    Shown("DRAFT across the page", "draft.pdf", pdf(1, 300, 300), {
        "ImageParams": f"watermark/2/text/{_encoded('DRAFT')}/fontsize/30/batch/1/degree/30/dx/40/dy/40/dissolve/40"
    }),
    Shown("a Chinese text in red, below right", "chinese.pdf", pdf(1, 300, 300), {
        "ImageParams": f"watermark/2/text/{_encoded('内部资料')}/fontsize/40/fill/{_encoded('#FF0000')}/dx/10/dy/10"
    }),
    Shown("an operation that is ignored is named", "slim.pdf", form_pdf(), {"ImageParams": "imageSlim"}),
)  # fmt: skip

OFFICE = (
    Shown("two slides", "deck.pptx", slides(2)),
    Shown("no comment of a slide", "comment.pptx", commented_slide()),
    Shown("two pages with a line each", "letter.docx", letter(["First page", "Second page"])),
    Shown("Chinese, Japanese and Korean text", "cjk.docx", letter(["中文文档 日本語の文書 한국어 문서"])),
    Shown("a note in the margin, marks of changes", "shown.docx", reviewed(), {"Comments": 1}),
    Shown("INSERTED euros, no note, no marks", "hidden.docx", reviewed(), {"Comments": 0}),
    Shown("two sheets", "book.xlsx", workbook({"One": [["a", "b"], ["c"]], "Empty": [], "Three": [["third sheet"]]})),
    Shown(
        "a red header with its titles, framed numbers and their sum",
        "table.xlsx",
        workbook(
            {
                "T": [
                    [f"{FILLED}Name", f"{FILLED}Count", f"{FILLED}Price"],
                    *([f"row {row}", f"{FRAMED}{row}00", f"{FRAMED}{row}"] for row in range(1, 6)),
                    ["sum", "=SUM(B2:B6)"],
                ]
            }
        ),
    ),
    Shown(
        "colours without text, then borders without text",
        "plan.xlsx",
        workbook({"Filled": [[FILLED] * 3] * 5, "Framed": [[FRAMED] * 3] * 5}),
    ),
    Shown("three lines in a cell", "lines.xlsx", workbook({"L": [["above"], ["one\ntwo\nthree"], ["below"]]})),
    Shown("a column that the paper cuts", "wide.xlsx", workbook({"W": [["a", "b"]]}, width=160)),
    Shown("one sheet, and that another is hidden", "some.xlsx", workbook({"A": [["a"]], "B": [["b"]]}, hidden=["B"])),
    Shown(
        "a table of a web page, all rows",
        "export.xls",
        b"<table border=1>"
        + b"".join(b"<tr><td>row %d</td><td>%d</td></tr>" % (row, 3 * row) for row in range(1, 13))
        + b"</table>",
    ),
    Shown("four cells", "cells.csv", b"one,two\nthree,four\n"),
    Shown("cells between semicolons, with umlauts", "umlauts.csv", "Straße;Zürich\n1,5;2,5\n".encode("cp1252")),
    Shown("a long text in lines", "long.csv", f"id,note,who\n1,{'a long note ' * 60},Ann\n".encode()),
    Shown("a protected document opens with its password", "secret.doc", SECRET, {"DocPassword": PASSWORD}),
    Shown("a protected document fails without it", "locked.doc", SECRET),
    Shown("one of two slides", "hidden.pptx", slides(2, hidden=[2])),
    Shown("that a picture is a link", "linked.html", b"<p>text <img src='http://127.0.0.1:9/a.png'></p>"),
    Shown("Chinese text in GB 18030", "notes.txt", "中文 text\n".encode("gb18030")),
    Shown("a line of C", "main.c", b"int main(void) { return 0; }\n"),
    Shown("a heading", "page.html", b"<html><body><h1>Title</h1><p>and text</p></body></html>"),
    Shown("Hello in bold", "rich.rtf", b"{\\rtf1 {\\b Hello}}"),
)


async def draw(documents: Iterable[Shown]) -> list[Tile]:
    """The pictures that an emulator makes of the documents."""
    tiles = []
    async with Emulator() as emulator, Cloud(emulator.url) as cloud:
        for shown in documents:
            emulator.put_object(BUCKET, REGION, shown.key, shown.data)
            template = f"o/{shown.key}/${{SheetID}}/${{Page}}"
            job_id = await cloud.job_id(shown.key, template, TgtType="png", **shown.options)
            tiles += _tiles(emulator, shown, await emulator.wait_for_job(job_id))
    return tiles


def _tiles(emulator: Emulator, shown: Shown, job: Job) -> list[Tile]:
    result = job.result.pages[:MOST_PAGES] if job.result is not None else ()
    message = f" [{job.state}: {job.message}]" if job.message else ""
    caption = f"{shown.key}: {shown.promise}{message}"
    images = [Image.open(io.BytesIO(emulator.get_object(BUCKET, REGION, page.target))) for page in result]
    if not images:
        return [Tile(caption, None, has_warning=True)]
    return [Tile(caption, image, bool(job.message)) for image in images]


def sheet(tiles: Sequence[Tile]) -> Image.Image:
    """All pictures with their captions, in rows."""
    rows = -(-len(tiles) // COLUMNS)
    width, height = TILE + MARGIN, TILE + CAPTION + MARGIN
    whole = Image.new("RGB", (COLUMNS * width + MARGIN, rows * height + MARGIN), PAPER)
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(LINE - 3)
    for number, tile in enumerate(tiles):
        left, top = MARGIN + number % COLUMNS * width, MARGIN + number // COLUMNS * height
        if tile.image is not None:
            picture = _inked(tile.image.convert("RGB"))
            picture.thumbnail((TILE, TILE))
            whole.paste(picture, (left, top))
            pen.rectangle((left - 1, top - 1, left + picture.width, top + picture.height), outline=GREY)
        caption = "\n".join(textwrap.wrap(tile.caption, 48)[: CAPTION // LINE])
        pen.text((left, top + TILE + 2), caption, fill=ALARM if tile.has_warning else INK, font=font)
    return whole


def _inked(picture: Image.Image) -> Image.Image:
    """Of a large page the part that is not white, which can be read when it is small."""
    if picture.height < 2 * TILE:
        return picture
    box = ImageChops.difference(picture, Image.new("RGB", picture.size, "white")).getbbox()
    if box is None:
        return picture
    left, top, right, bottom = box
    outer = max(left - MARGIN, 0), max(top - MARGIN, 0)
    return picture.crop((*outer, min(right + MARGIN, picture.width), min(bottom + MARGIN, picture.height)))


def main(target: Path, documents: Sequence[Shown] = (*PDFS, *OFFICE)) -> None:
    """Write the sheet."""
    tiles = asyncio.run(draw(documents))
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet(tiles).save(target)
    sys.stdout.write(f"{len(tiles)} pictures: {target}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/contact-sheet.png"))
