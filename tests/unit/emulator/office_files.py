"""Minimal documents of each family, written with the standard library."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from types import MappingProxyType

_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument"
_SHEET_NS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_WORD_NS = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_MATH_NS = "http://schemas.openxmlformats.org/officeDocument/2006/math"
_SLIDE_NS = "http://schemas.openxmlformats.org/presentationml/2006/main"
_DRAWING_NS = "http://schemas.openxmlformats.org/drawingml/2006/main"

FILLED, FRAMED = "<filled>", "<framed>"
_CELL_STYLES = {FILLED: 1, FRAMED: 2}
_WRAPPED = 3
_HIDDEN = ' state="hidden"'
_SIDES = "".join(f'<{side} style="thick"/>' for side in ("left", "right", "top", "bottom"))
_STYLES = (
    f'<styleSheet xmlns="{_SHEET_NS}"><fonts count="1"><font><sz val="11"/></font></fonts>'
    '<fills count="3"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill>'
    '<fill><patternFill patternType="solid"><fgColor rgb="FFFF0000"/></patternFill></fill></fills>'
    f'<borders count="2"><border/><border>{_SIDES}</border></borders><cellStyleXfs count="1"><xf/></cellStyleXfs>'
    '<cellXfs count="4"><xf/><xf fillId="2" applyFill="1"/><xf borderId="1" applyBorder="1"/>'
    '<xf applyAlignment="1"><alignment wrapText="1"/></xf></cellXfs></styleSheet>'
)


def workbook(
    sheets: Mapping[str, Sequence[Sequence[str]]],
    *,
    hidden: Sequence[str] = (),
    row_attributes: Mapping[int, str] = MappingProxyType({}),
    width: int = 10,
) -> bytes:
    """An xlsx with these sheets of text cells; a row of no cells forces nothing, and none has a stored height.

    `FILLED` before a text makes a cell with a red fill, `FRAMED` one with thick borders; a text with line breaks makes
    one that wraps, digits a number, and a text that begins with `=` a formula. `row_attributes` has what else is said
    of a row, by its number from 1. The first column is `width` characters wide.
    """
    tabs = "".join(
        f'<sheet name="{name}" sheetId="{number}" r:id="rId{number}"{_HIDDEN if name in hidden else ""}/>'
        for number, name in enumerate(sheets, 1)
    )
    parts = {"xl/workbook.xml": f'<workbook xmlns="{_SHEET_NS}" xmlns:r="{_OFFICE}"><sheets>{tabs}</sheets></workbook>'}
    types = {
        "xl/workbook.xml": f"{_TYPE}.spreadsheetml.sheet.main+xml",
        "xl/styles.xml": f"{_TYPE}.spreadsheetml.styles+xml",
    }
    links = [("styles", "styles", "styles.xml")]
    parts["xl/styles.xml"] = _STYLES
    for number, rows in enumerate(sheets.values(), 1):
        path = f"worksheets/sheet{number}.xml"
        cells = "".join(
            f"<row {row_attributes.get(place, '')}>{''.join(map(_cell, row))}</row>"
            for place, row in enumerate(rows, 1)
        )
        columns = f'<cols><col min="1" max="1" width="{width}" customWidth="1"/></cols>'
        data = f"{columns}<sheetData>{cells}</sheetData>"
        parts[f"xl/{path}"] = f'<worksheet xmlns="{_SHEET_NS}">{data}</worksheet>'
        types[f"xl/{path}"] = f"{_TYPE}.spreadsheetml.worksheet+xml"
        links.append((f"rId{number}", "worksheet", path))
    parts["xl/_rels/workbook.xml.rels"] = _relations(links)
    return _package(parts, types, "xl/workbook.xml")


def _cell(text: str) -> str:
    if text in _CELL_STYLES:
        return f'<c s="{_CELL_STYLES[text]}"/>'
    style = f' s="{_WRAPPED}"' if "\n" in text else ""
    for kind, number in _CELL_STYLES.items():
        if text.startswith(kind):
            style, text = f' s="{number}"', text.removeprefix(kind)
    if text.startswith("="):
        return f"<c{style}><f>{text[1:]}</f></c>"
    if text.isdecimal():
        return f"<c{style}><v>{text}</v></c>"
    return f'<c{style} t="inlineStr"><is><t>{text}</t></is></c>'


def letter(paragraphs: Sequence[str]) -> bytes:
    """A docx with one page for each paragraph."""
    page_break = '<w:p><w:r><w:br w:type="page"/></w:r></w:p>'
    body = page_break.join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    parts = {"word/document.xml": f'<w:document xmlns:w="{_WORD_NS}"><w:body>{body}</w:body></w:document>'}
    return _package(parts, {"word/document.xml": f"{_TYPE}.wordprocessingml.document.main+xml"}, "word/document.xml")


def formula(numerator: str, denominator: str) -> bytes:
    """A docx of one fraction, and no text."""
    space = f'xmlns:w="{_WORD_NS}" xmlns:m="{_MATH_NS}"'
    above, below = (f"<m:r><m:t>{text}</m:t></m:r>" for text in (numerator, denominator))
    fraction = f"<m:oMath><m:f><m:num>{above}</m:num><m:den>{below}</m:den></m:f></m:oMath>"
    parts = {"word/document.xml": f"<w:document {space}><w:body><w:p>{fraction}</w:p></w:body></w:document>"}
    return _package(parts, {"word/document.xml": f"{_TYPE}.wordprocessingml.document.main+xml"}, "word/document.xml")


def reviewed() -> bytes:
    """A docx of one line with a deleted and an inserted run, and a comment on its last word."""
    space, by = f'xmlns:w="{_WORD_NS}"', 'w:author="Reviewer" w:date="2026-01-02T03:04:05Z"'
    runs = (
        f'<w:del w:id="1" {by}><w:r><w:delText xml:space="preserve">DELETED </w:delText></w:r></w:del>'
        f'<w:ins w:id="2" {by}><w:r><w:t xml:space="preserve">INSERTED </w:t></w:r></w:ins>'
        '<w:commentRangeStart w:id="0"/><w:r><w:t>euros</w:t></w:r><w:commentRangeEnd w:id="0"/>'
        '<w:r><w:commentReference w:id="0"/></w:r>'
    )
    note = f'<w:comment w:id="0" {by} w:initials="R"><w:p><w:r><w:t>REMARK</w:t></w:r></w:p></w:comment>'
    parts = {
        "word/document.xml": f"<w:document {space}><w:body><w:p>{runs}</w:p></w:body></w:document>",
        "word/comments.xml": f"<w:comments {space}>{note}</w:comments>",
        "word/_rels/document.xml.rels": _relations([("rId1", "comments", "comments.xml")]),
    }
    kind = f"{_TYPE}.wordprocessingml"
    types = {"word/document.xml": f"{kind}.document.main+xml", "word/comments.xml": f"{kind}.comments+xml"}
    return _package(parts, types, "word/document.xml")


def reviewed_open_document(place: int) -> bytes:
    """An OpenDocument text with a comment on its last word, and where prints have it: 0 nowhere, 4 in the margin."""
    root = "urn:oasis:names:tc:opendocument:xmlns"
    spaces = f'xmlns:office="{root}:office:1.0" office:version="1.2"'
    note = "<office:annotation><dc:creator>Reviewer</dc:creator><text:p>REMARK</text:p></office:annotation>"
    item = f'<config:config-item config:name="PrintAnnotationMode" config:type="short">{place}</config:config-item>'
    files = {
        "content.xml": f'<office:document-content {spaces} xmlns:text="{root}:text:1.0"'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/"><office:body><office:text>'
        f"<text:p>{note}euros</text:p></office:text></office:body></office:document-content>",
        "settings.xml": f'<office:document-settings {spaces} xmlns:config="{root}:config:1.0" xmlns:ooo="http://openoffice.org/2004/office"><office:settings>'
        f'<config:config-item-set config:name="ooo:configuration-settings">{item}</config:config-item-set>'
        "</office:settings></office:document-settings>",
    }
    kinds = {"/": "application/vnd.oasis.opendocument.text"} | dict.fromkeys(files, "text/xml")
    entries = "".join(f'<m:file-entry m:full-path="{path}" m:media-type="{kind}"/>' for path, kind in kinds.items())
    files["META-INF/manifest.xml"] = f'<m:manifest xmlns:m="{root}:manifest:1.0">{entries}</m:manifest>'
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", kinds["/"])
        for name, text in files.items():
            archive.writestr(name, _HEAD + text)
    return file.getvalue()


def commented_slide() -> bytes:
    """A pptx of one empty slide with a comment."""
    spaces = f'xmlns:p="{_SLIDE_NS}"'
    parts, types, links = _slides(1)
    links.append(("rId9", "commentAuthors", "commentAuthors.xml"))
    parts["ppt/_rels/presentation.xml.rels"] = _relations(links)
    parts["ppt/slides/_rels/slide1.xml.rels"] = _relations(
        [("rId1", "slideLayout", "../slideLayouts/slideLayout1.xml"), ("rId2", "comments", "../comments/comment1.xml")]
    )
    author = '<p:cmAuthor id="0" name="Reviewer" initials="R" lastIdx="1" clrIdx="0"/>'
    parts["ppt/commentAuthors.xml"] = f"<p:cmAuthorLst {spaces}>{author}</p:cmAuthorLst>"
    comment = '<p:cm authorId="0" dt="2026-01-02T03:04:05" idx="1"><p:pos x="99" y="99"/><p:text>REMARK</p:text></p:cm>'
    parts["ppt/comments/comment1.xml"] = f"<p:cmLst {spaces}>{comment}</p:cmLst>"
    kind = f"{_TYPE}.presentationml"
    types |= {
        "ppt/commentAuthors.xml": f"{kind}.commentAuthors+xml",
        "ppt/comments/comment1.xml": f"{kind}.comments+xml",
    }
    return _package(parts, types, "ppt/presentation.xml")


def slides(count: int, *, hidden: Sequence[int] = ()) -> bytes:
    """A pptx with so many slides; `hidden` has numbers from 1."""
    parts, types, _ = _slides(count)
    for number in hidden:
        path = f"ppt/slides/slide{number}.xml"
        parts[path] = parts[path].replace("<p:sld ", '<p:sld show="0" ', 1)
    return _package(parts, types, "ppt/presentation.xml")


def _slides(count: int) -> tuple[dict[str, str], dict[str, str], list[tuple[str, str, str]]]:
    """The parts, their types, and the links of the presentation."""
    spaces = f'xmlns:a="{_DRAWING_NS}" xmlns:r="{_OFFICE}" xmlns:p="{_SLIDE_NS}"'
    tree = '<p:nvGrpSpPr><p:cNvPr id="1" name=""/><p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/>'
    empty = f"<p:cSld><p:spTree>{tree}</p:spTree></p:cSld>"
    ids = "".join(f'<p:sldId id="{255 + n}" r:id="rId{n + 1}"/>' for n in range(1, count + 1))
    parts = {
        "ppt/presentation.xml": (
            f"<p:presentation {spaces}>"
            '<p:sldMasterIdLst><p:sldMasterId id="2147483648" r:id="rId1"/></p:sldMasterIdLst>'
            f"<p:sldIdLst>{ids}</p:sldIdLst>"
            '<p:sldSz cx="9144000" cy="6858000"/><p:notesSz cx="6858000" cy="9144000"/></p:presentation>'
        ),
        "ppt/slideMasters/slideMaster1.xml": f"<p:sldMaster {spaces}>{empty}</p:sldMaster>",
        "ppt/slideLayouts/slideLayout1.xml": f"<p:sldLayout {spaces}>{empty}</p:sldLayout>",
        "ppt/slideMasters/_rels/slideMaster1.xml.rels": _relations(
            [("rId1", "slideLayout", "../slideLayouts/slideLayout1.xml")]
        ),
        "ppt/slideLayouts/_rels/slideLayout1.xml.rels": _relations(
            [("rId1", "slideMaster", "../slideMasters/slideMaster1.xml")]
        ),
    }
    kind = f"{_TYPE}.presentationml"
    types = {
        "ppt/presentation.xml": f"{kind}.presentation.main+xml",
        "ppt/slideMasters/slideMaster1.xml": f"{kind}.slideMaster+xml",
        "ppt/slideLayouts/slideLayout1.xml": f"{kind}.slideLayout+xml",
    }
    links = [("rId1", "slideMaster", "slideMasters/slideMaster1.xml")]
    for number in range(1, count + 1):
        path = f"slides/slide{number}.xml"
        parts[f"ppt/{path}"] = f"<p:sld {spaces}>{empty}</p:sld>"
        parts[f"ppt/slides/_rels/slide{number}.xml.rels"] = _relations(
            [("rId1", "slideLayout", "../slideLayouts/slideLayout1.xml")]
        )
        types[f"ppt/{path}"] = f"{kind}.slide+xml"
        links.append((f"rId{number + 1}", "slide", path))
    parts["ppt/_rels/presentation.xml.rels"] = _relations(links)
    return parts, types, links


def _relations(links: Sequence[tuple[str, str, str]]) -> str:
    items = "".join(
        f'<Relationship Id="{name}" Type="{_OFFICE}/{kind}" Target="{target}"/>' for name, kind, target in links
    )
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{items}</Relationships>'


def _package(parts: Mapping[str, str], types: Mapping[str, str], main: str) -> bytes:
    overrides = "".join(f'<Override PartName="/{name}" ContentType="{kind}"/>' for name, kind in types.items())
    content_types = (
        f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels"'
        f' ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Default Extension="xml" ContentType="application/xml"/>{overrides}</Types>'
    )
    everything = {
        "[Content_Types].xml": content_types,
        "_rels/.rels": _relations([("rId1", "officeDocument", main)]),
        **parts,
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in everything.items():
            archive.writestr(name, _HEAD + text)
    return file.getvalue()
