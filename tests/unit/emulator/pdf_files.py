"""Small PDFs, with a password or without."""

import hashlib
import io

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


def encrypted_pdf(password: bytes) -> bytes:
    """A one-page PDF under a user password, by the standard security handler of revision 2 (RC4, 40 bits)."""
    padding = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
    padded, file_id, permissions = (password + padding)[:32], b"0123456789abcdef", -4
    owner = _rc4(hashlib.md5(padded).digest()[:5], padded)  # noqa: S324 - the format's algorithm
    seed = padded + owner + permissions.to_bytes(4, "little", signed=True) + file_id
    user = _rc4(hashlib.md5(seed).digest()[:5], padding)  # noqa: S324
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>",
        b"<</Filter/Standard/V 1/R 2/P %d/O<%s>/U<%s>>>" % (permissions, owner.hex().encode(), user.hex().encode()),
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj%sendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"<</Size 5/Root 1 0 R/Encrypt 4 0 R/ID[<%s><%s>]>>" % ((file_id.hex().encode(),) * 2)
    start = len(body)
    return body + b"xref\n0 5\n0000000000 65535 f \n" + table + b"trailer%s\nstartxref\n%d\n%%%%EOF" % (trailer, start)


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
