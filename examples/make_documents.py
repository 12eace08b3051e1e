"""Makes the example documents anew: two PDFs and a presentation, written without any library so that they stay small.

    python examples/make_documents.py

The results are checked in beside this script; the tests build their own documents from the functions here.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
WIDTH, HEIGHT = 595, 842  # A4 in points
PALETTE = ("0.13 0.35 0.60", "0.75 0.28 0.20", "0.16 0.50 0.35", "0.55 0.35 0.60", "0.80 0.55 0.12")

CHAPTERS = (
    ("A document becomes pages", "Slides, texts, sheets and PDFs are turned into page images by the cloud."),
    ("One gateway holds the keys", "Services call it over gRPC; only the gateway signs requests."),
    ("A job is submitted", "Create returns at once with a job id. The work happens in a queue."),
    ("Everybody may watch", "One poller looks at the job, however many callers wait for it."),
    ("Pages are objects", "Each page is an image in the output bucket, named by the job's template."),
    ("Addresses are signed", "A page's address opens it for a while, without any key."),
    ("Nothing is billed twice", "A create whose outcome is unknown is never sent again by itself."),
)


@dataclass(frozen=True)
class Sheet:
    """The content of one PDF page."""

    title: str
    text: str
    number: int
    total: int


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def _content(page: Sheet) -> bytes:
    colour = PALETTE[page.number % len(PALETTE)]
    bars = " ".join(f"{60 + 60 * i} 180 40 {30 + (page.number * 37 + i * 53) % 160} re f" for i in range(8))
    return "\n".join(
        (
            f"{colour} rg 0 {HEIGHT - 90} {WIDTH} 90 re f",
            f"1 g BT /F1 26 Tf 50 {HEIGHT - 58} Td ({_escape(page.title)}) Tj ET",
            f"0.15 g BT /F2 14 Tf 50 {HEIGHT - 150} Td ({_escape(page.text)}) Tj ET",
            f"{colour} rg {bars}",
            f"0.85 g BT /F1 200 Tf 225 450 Td ({page.number}) Tj ET",
            f"0.4 g BT /F2 11 Tf 260 40 Td (page {page.number} of {page.total}) Tj ET",
        )
    ).encode("latin-1")


def pdf(pages: list[tuple[str, str]]) -> bytes:
    """A PDF 1.4 document of A4 pages with a title, a line of text and a small chart each."""
    total = len(pages)
    sheets = [Sheet(title, text, number, total) for number, (title, text) in enumerate(pages, 1)]
    kids = " ".join(f"{5 + 2 * index} 0 R" for index in range(total))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {total} /Kids [{kids}] >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for index, sheet in enumerate(sheets):
        content = _content(sheet)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {WIDTH} {HEIGHT}] /Contents {6 + 2 * index} 0 R "
            "/Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> >>".encode()
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n".encode() + content + b"\nendstream")
    return _assembled(objects)


def _assembled(objects: list[bytes]) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    return bytes(out) + f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()


def seven_pages() -> bytes:
    """The story of a job in seven pages."""
    return pdf(list(CHAPTERS))


def sixty_pages() -> bytes:
    """More than fifty pages, for progress and paging."""
    return pdf([(f"Chapter {number}", f"This is chapter {number} of a longer document.") for number in range(1, 61)])


OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
SLIDES = "http://schemas.openxmlformats.org/presentationml/2006/main"
TYPES = "application/vnd.openxmlformats-officedocument.presentationml"
NAMESPACES = f'xmlns:a="{DRAWING}" xmlns:r="{OFFICE}" xmlns:p="{SLIDES}"'
GROUP = "<p:nvGrpSpPr><p:cNvPr id='1' name=''/><p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/>"


def _relations(*targets: tuple[str, str]) -> str:
    items = "".join(
        f'<Relationship Id="rId{number}" Type="{OFFICE}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(targets, 1)
    )
    return f'<Relationships xmlns="{PACKAGE}/relationships">{items}</Relationships>'


def _box(number: int, top: int, size: int, text: str) -> str:
    return (
        f"<p:sp><p:nvSpPr><p:cNvPr id='{number}' name='box {number}'/><p:cNvSpPr/><p:nvPr/></p:nvSpPr>"
        f"<p:spPr><a:xfrm><a:off x='500000' y='{top}'/><a:ext cx='8100000' cy='1500000'/></a:xfrm>"
        "<a:prstGeom prst='rect'><a:avLst/></a:prstGeom></p:spPr>"
        f"<p:txBody><a:bodyPr/><a:p><a:r><a:rPr lang='en' sz='{size}'/><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp>"
    )


def _slide(title: str, text: str) -> str:
    shapes = GROUP + _box(2, 600000, 4000, title) + _box(3, 2500000, 2400, text)
    return f"<p:sld {NAMESPACES}><p:cSld><p:spTree>{shapes}</p:spTree></p:cSld></p:sld>"


def write_pptx(path: Path, slides: list[tuple[str, str]]) -> None:
    """A presentation with a title and a text on each slide."""
    numbers = range(1, len(slides) + 1)
    overrides = "".join(
        f'<Override PartName="/ppt/{part}.xml" ContentType="{TYPES}.{kind}+xml"/>'
        for part, kind in (
            ("presentation", "presentation.main"),
            ("slideMasters/slideMaster1", "slideMaster"),
            ("slideLayouts/slideLayout1", "slideLayout"),
            *((f"slides/slide{number}", "slide") for number in numbers),
        )
    )
    ids = "".join(f'<p:sldId id="{255 + number}" r:id="rId{number + 1}"/>' for number in numbers)
    colours = "bg1='lt1' tx1='dk1' bg2='lt2' tx2='dk2' folHlink='folHlink' hlink='hlink' " + " ".join(
        f"accent{number}='accent{number}'" for number in range(1, 7)
    )
    tree = f"<p:cSld><p:spTree>{GROUP}</p:spTree></p:cSld>"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types"><Default Extension="xml" '
        'ContentType="application/xml"/><Default Extension="rels" '
        f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>{overrides}</Types>',
        "_rels/.rels": _relations(("officeDocument", "ppt/presentation.xml")),
        "ppt/presentation.xml": f"<p:presentation {NAMESPACES}><p:sldMasterIdLst><p:sldMasterId id='2147483648' "
        f"r:id='rId1'/></p:sldMasterIdLst><p:sldIdLst>{ids}</p:sldIdLst><p:sldSz cx='9144000' cy='6858000'/>"
        "<p:notesSz cx='6858000' cy='9144000'/></p:presentation>",
        "ppt/_rels/presentation.xml.rels": _relations(
            ("slideMaster", "slideMasters/slideMaster1.xml"),
            *(("slide", f"slides/slide{number}.xml") for number in numbers),
        ),
        "ppt/slideMasters/slideMaster1.xml": f"<p:sldMaster {NAMESPACES}>{tree}<p:clrMap {colours}/>"
        "<p:sldLayoutIdLst><p:sldLayoutId id='2147483649' r:id='rId1'/></p:sldLayoutIdLst></p:sldMaster>",
        "ppt/slideMasters/_rels/slideMaster1.xml.rels": _relations(("slideLayout", "../slideLayouts/slideLayout1.xml")),
        "ppt/slideLayouts/slideLayout1.xml": f"<p:sldLayout {NAMESPACES}>{tree}</p:sldLayout>",
        "ppt/slideLayouts/_rels/slideLayout1.xml.rels": _relations(("slideMaster", "../slideMasters/slideMaster1.xml")),
    }
    for number, (title, text) in enumerate(slides, 1):
        parts[f"ppt/slides/slide{number}.xml"] = _slide(title, text)
        parts[f"ppt/slides/_rels/slide{number}.xml.rels"] = _relations(
            ("slideLayout", "../slideLayouts/slideLayout1.xml")
        )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            archive.writestr(entry, f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>{content}', 8)


def main() -> None:
    """Write all three."""
    (HERE / "seven-pages.pdf").write_bytes(seven_pages())
    (HERE / "sixty-pages.pdf").write_bytes(sixty_pages())
    write_pptx(HERE / "normal.pptx", list(CHAPTERS[:4]))


if __name__ == "__main__":
    main()
