"""What the beginning and the end of a document tell, of real files."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docpreview_emulator.formats import _FAMILIES
from docpreview_gateway.model.documents import PIECE_BYTES, SUFFIXES, Excerpt, examined, second_piece
from docpreview_gateway.model.pdf_encryption import needs_password
from tests.document_files import aes_pdf, compound_file, encrypted_office, rc4_pdf
from tests.unit.emulator.office_files import letter, slides, workbook
from tests.unit.emulator.pdf_files import encrypted_pdf, pdf

SECRET_DOC = (Path(__file__).parents[1] / "emulator" / "secrets" / "secret.doc").read_bytes()
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(100)


def read(suffix: str, data: bytes) -> Excerpt:
    """As much of a document as the gateway reads of it."""
    excerpt = Excerpt(len(data), data[:PIECE_BYTES])
    wanted = second_piece(suffix, len(data), excerpt.begin)
    if wanted is None:
        return excerpt
    offset, size = wanted
    return excerpt._replace(offset=offset, piece=data[offset : offset + size])


def finding(suffix: str, data: bytes) -> str:
    return examined(suffix, read(suffix, data))


def large_package(data: bytes) -> bytes:
    """The package with a picture before all that it had."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("media/big.png", os.urandom(3 * PIECE_BYTES))
        for name in old.namelist():
            archive.writestr(name, old.read(name))
    return file.getvalue()


WORD = compound_file({"WordDocument": b"\xec\xa5" + bytes(5000), "1Table": b""})
EXCEL = compound_file({"Workbook": b"\x09\x08" + bytes(5000)})
POWER_POINT = compound_file({"Current User": b"", "PowerPoint Document": bytes(9000)})


def test_the_suffixes_are_those_that_the_cloud_lists() -> None:
    """The emulator has the vendor's list, too."""
    assert set(_FAMILIES) == SUFFIXES


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        ("pdf", pdf(2)),
        ("pdf", b"\n" * 100 + pdf(1)),
        ("pptx", slides(2)),
        ("docx", letter(["a"])),
        ("xlsx", workbook({"a": [["1"]]})),
        ("xlsm", workbook({"a": [["1"]]})),
        ("docx", large_package(letter(["a"]))),
        ("doc", WORD),
        ("xls", EXCEL),
        ("ppt", POWER_POINT),
        ("wps", WORD),
        ("et", workbook({"a": [["1"]]})),
        ("doc", b"{\\rtf1 a}"),
        ("xls", b"<html><table>"),
        ("rtf", b"{\\rtf1 a}"),
        ("txt", "文".encode("utf-16")),
        ("csv", b"a;b\n"),
        ("html", b"<p>"),
        ("c", b""),
    ],
)
def test_a_document_of_its_suffix_is_let_pass(suffix: str, data: bytes) -> None:
    """Also those that programs write under suffixes of others."""
    assert not finding(suffix, data)


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        ("pdf", letter(["a"])),
        ("pdf", b"<html>404</html>"),
        ("pptx", letter(["a"])),
        ("pptx", large_package(letter(["a"]))),
        ("docx", pdf(1)),
        ("docx", WORD),
        ("docx", letter(["a"])[:-100]),
        ("docx", large_package(letter(["a"]))[:-1000]),
        ("xlsx", PICTURE),
        ("doc", letter(["a"])),
        ("doc", EXCEL),
        ("ppt", b"{\\rtf1 a}"),
        ("xls", POWER_POINT),
        ("wps", PICTURE),
        ("rtf", WORD),
        ("txt", PICTURE),
        ("csv", workbook({"a": [["1"]]})),
        ("html", pdf(1)),
    ],
)
def test_bytes_that_are_not_what_the_suffix_says_are_found(suffix: str, data: bytes) -> None:
    """Other kinds, and packages that are cut."""
    assert finding(suffix, data) == "mismatch"


def test_a_package_without_office_is_not_an_office_document() -> None:
    """Any other archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "a")
    assert finding("docx", file.getvalue()) == "mismatch"


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        ("docx", encrypted_office()),
        ("pptx", encrypted_office()),
        ("xlsb", compound_file({"EncryptionInfo": b"", "EncryptedPackage": os.urandom(200_000)})),
        ("xlsx", compound_file({"EncryptedPackage": os.urandom(3 * PIECE_BYTES)}, directory_last=True)),
        ("doc", SECRET_DOC),
        ("wps", SECRET_DOC),
        ("ppt", compound_file({"PowerPoint Document": bytes(9000), "EncryptedSummary": b""})),
        ("pdf", encrypted_pdf(b"pass")),
        ("pdf", rc4_pdf(b"pass", 3)),
        ("pdf", rc4_pdf(b"pass", 4)),
        ("pdf", rc4_pdf(b"pass", 4, metadata=False)),
        ("pdf", aes_pdf(b"pass", 5)),
        ("pdf", aes_pdf(b"pass", 6)),
        ("pdf", b"%PDF-1.4\n" + os.urandom(3 * PIECE_BYTES) + encrypted_pdf(b"pass")),
    ],
)
def test_an_encrypted_document_is_found(suffix: str, data: bytes) -> None:
    """Of Office, old and new, and PDFs by all revisions of their handler."""
    assert finding(suffix, data) == "encrypted"


@pytest.mark.parametrize(
    "data",
    [
        encrypted_pdf(b""),
        rc4_pdf(b"", 3),
        rc4_pdf(b"", 4),
        rc4_pdf(b"", 4, metadata=False),
        aes_pdf(b"", 5),
        aes_pdf(b"", 6),
    ],
)
def test_a_pdf_that_opens_without_a_password_is_not_refused(data: bytes) -> None:
    """Only its permissions are restricted."""
    assert not finding("pdf", data)


@given(
    st.sampled_from(sorted(SUFFIXES)),
    st.sampled_from(
        [b"", WORD[:8], b"PK\x03\x04", b"%PDF-1.4 /Encrypt 1 0 R 1 0 obj/Filter/Standard /R 2 ", b"PK\x01\x02"]
    ),
    st.binary(max_size=2000),
    st.integers(0, 3000),
)
def test_no_bytes_break_the_look(suffix: str, magic: bytes, data: bytes, cut: int) -> None:
    """Documents come from strangers."""
    whole = magic + data
    excerpt = Excerpt(len(whole) + cut, whole[:600], offset=cut, piece=whole[cut:])
    second_piece(suffix, excerpt.length, excerpt.begin)
    examined(suffix, excerpt)


def test_a_pdf_whose_encryption_is_not_understood_is_not_refused() -> None:
    """Another handler, a dictionary that was not read, broken strings."""
    for encrypt in (b"<</Filter/Foo/R 2>>", b"<</Filter/Standard/R 3/O(a)/U(b)>>", b"<</Filter/Standard/R 3/O(a"):
        data = b"%%PDF-1.4\n4 0 obj%sendobj\ntrailer<</Encrypt 4 0 R>>" % encrypt
        assert not needs_password(data, data)
    far = b"%PDF-1.4\ntrailer<</Encrypt 4 0 R>>"
    assert not needs_password(far, far)


@pytest.mark.parametrize("begin", [WORD[:8], WORD[:8] + b"\xff" * 600, WORD[:600]])
def test_a_broken_compound_file_is_not_called_encrypted(begin: bytes) -> None:
    """Nothing can be told of it."""
    assert not finding("docx", begin)
