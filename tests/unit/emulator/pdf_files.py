"""Small PDFs: blank, with odd boxes, with a form, under a password."""

import hashlib
import io
from collections.abc import Sequence

import pypdfium2 as pdfium


def pdf(pages: int, width: float = 200, height: float = 100) -> bytes:
    """A PDF of blank pages; sizes in points."""
    document = pdfium.PdfDocument.new()
    for _ in range(pages):
        document.new_page(width, height)
    file = io.BytesIO()
    document.save(file)
    document.close()
    return file.getvalue()


def of_objects(objects: Sequence[str], trailer: str = "") -> bytes:
    """A PDF of these objects, numbered from 1; the first is the catalog."""
    body, offsets = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj{content}endobj\n".encode()
    table = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{at:010d} 00000 n \n" for at in offsets)
    end = f"trailer<</Size {len(objects) + 1}/Root 1 0 R{trailer}>>\nstartxref\n{len(body)}\n%%EOF"
    return body + (table + end).encode()


def boxed_pdf(*pages: str) -> bytes:
    """A PDF of blank pages with the boxes as they are written, e.g. `/MediaBox[0 0 300 300]`."""
    kids = " ".join(f"{number} 0 R" for number in range(3, 3 + len(pages)))
    tree = f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>"
    return of_objects(
        ["<</Type/Catalog/Pages 2 0 R>>", tree, *(f"<</Type/Page/Parent 2 0 R{boxes}>>" for boxes in pages)]
    )


FORM_BOXES = {
    "text": (10, 20, 190, 40),
    "unshown text": (10, 60, 190, 80),
    "tick": (10, 100, 30, 120),
    "no tick": (40, 100, 60, 120),
    "choice": (10, 140, 160, 160),
    "hidden": (10, 180, 190, 200),
}
"""Where `form_pdf` has its fields, in points from the upper left corner: left, top, right, bottom."""


def form_pdf(xfa: str = "") -> bytes:
    """A PDF of 200 by 210 points with a filled form, and nothing else.

    The field `text` and the tick have their appearance in the file, `unshown text` and `choice` only a value.
    """
    drawn = "/Tx BMC q BT /Helv 14 Tf 0 g 4 6 Td (FILLED 12345) Tj ET Q EMC"
    blue = "q 0 0 1 rg 2 2 16 16 re f Q"
    styled, letters = "/DA(/Helv 14 Tf 0 g)", "/Resources<</Font<</Helv 4 0 R>>>>"
    box = "/FT/Btn/AP<</N<</Yes 6 0 R>>>>"
    fields = {
        "text": f"/F 4/FT/Tx/V(FILLED 12345){styled}/AP<</N 5 0 R>>",
        "unshown text": f"/F 4/FT/Tx/V(VALUE 67890){styled}",
        "tick": f"/F 4{box}/V/Yes/AS/Yes",
        "no tick": f"/F 4{box}/V/Off/AS/Off",
        "choice": f"/F 4/FT/Ch/Ff 131072/V(two)/Opt[(one)(two)]{styled}",
        "hidden": f"/F 2/FT/Tx/V(HIDDEN){styled}",
    }
    places = {name: (left, 210 - bottom, right, 210 - top) for name, (left, top, right, bottom) in FORM_BOXES.items()}
    widgets = [
        f"<</Type/Annot/Subtype/Widget/P 3 0 R/T({name})/Rect[{' '.join(map(str, places[name]))}]{rest}>>"
        for name, rest in fields.items()
    ]
    names = " ".join(f"{number} 0 R" for number in range(7, 7 + len(widgets)))
    form = f"/AcroForm<</Fields[{names}]{styled}/DR<</Font<</Helv 4 0 R>>>>{xfa}>>"
    return of_objects(
        [
            f"<</Type/Catalog/Pages 2 0 R{'/NeedsRendering true' if xfa else ''}{form}>>",
            "<</Type/Pages/Kids[3 0 R]/Count 1>>",
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 210]/Annots[{names}]>>",
            "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
            f"<</Subtype/Form/BBox[0 0 180 20]{letters}/Length {len(drawn)}>>stream\n{drawn}\nendstream",
            f"<</Subtype/Form/BBox[0 0 20 20]/Length {len(blue)}>>stream\n{blue}\nendstream",
            *widgets,
        ]
    )


def encrypted_pdf(password: bytes) -> bytes:
    """A one-page PDF under a user password, by the standard security handler of revision 2 (RC4, 40 bits)."""
    padding = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
    padded, file_id, permissions = (password + padding)[:32], b"0123456789abcdef", -4
    owner = _rc4(hashlib.md5(padded).digest()[:5], padded)  # noqa: S324 - the format's algorithm
    seed = padded + owner + permissions.to_bytes(4, "little", signed=True) + file_id
    user = _rc4(hashlib.md5(seed).digest()[:5], padding)  # noqa: S324
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>",
        f"<</Filter/Standard/V 1/R 2/P {permissions}/O<{owner.hex()}>/U<{user.hex()}>>>",
    ]
    return of_objects(objects, f"/Encrypt 4 0 R/ID[<{file_id.hex()}><{file_id.hex()}>]")


def _rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    out = bytearray()
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)
