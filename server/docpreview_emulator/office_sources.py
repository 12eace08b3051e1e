"""Input documents for LibreOffice: their import filters, encodings, and a check of their content.

LibreOffice opens almost anything as text: a damaged presentation would become pages of garbage, where the cloud fails
the job. So the first bytes of a file must fit its suffix.
"""

import codecs
import shutil
import zipfile
from pathlib import Path

from docpreview_emulator.errors import JobFailure
from docpreview_emulator.formats import Family, family_of

_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # old binary formats, and new ones under a password
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_ZIP = b"PK\x03\x04"
_MARKUP = (b"<", b"\xef\xbb\xbf<", b"{\\rtf")  # web pages, XML and RTF under a name such as .doc or .xls are common
_NEW_FORMATS = {"pptx", "potx", "ppsx", "pptm", "potm", "ppsm", "docx", "dotx", "docm", "dotm", "xlsx", "xltx", "xlsb"}
_HEAD = 64 * 1024

# Suffixes of WPS Office name formats of Microsoft Office.
_WPS = {"wps": "doc", "wpt": "dot", "et": "xls", "ett": "xlt", "ets": "xls", "dps": "ppt", "dpt": "pot"}

_TEXT_FILTER = ("Text (encoded)", "UTF8,LF,,,")
_CSV_FILTER = ("Text - txt - csv (StarCalc)", "44,34,76,1")
_WEB_FILTER = ("HTML (StarWriter)", "")


def import_filter(suffix: str) -> tuple[str, str]:
    """LibreOffice's import filter and its options; empty when LibreOffice detects the format."""
    family = family_of(suffix)
    if family is Family.PLAIN:
        return _TEXT_FILTER
    if family is Family.WEB:
        return _WEB_FILTER
    return _CSV_FILTER if suffix == "csv" else ("", "")


def copy_for_office(source: Path, suffix: str, directory: Path) -> Path:
    """A copy of the document with a name and an encoding that LibreOffice recognizes.

    Raises:
        JobFailure: the content does not match the suffix.
    """
    if family_of(suffix) is Family.PLAIN or suffix == "csv":
        copy = directory / f"source.{'csv' if suffix == 'csv' else 'txt'}"
        copy.write_text(_decoded(source.read_bytes()), encoding="utf-8", newline="")
        return copy
    if family_of(suffix) is not Family.WEB:
        _check_content(source, suffix)
    copy = directory / f"source.{_WPS.get(suffix, suffix)}"
    shutil.copyfile(source, copy)
    return copy


def is_encrypted_package(source: Path) -> bool:
    """Whether it is a document of a new format under a password: a compound file with the package inside."""
    with source.open("rb") as file:
        return file.read(len(_COMPOUND)) == _COMPOUND and _ENCRYPTED_PACKAGE in file.read()


def _check_content(source: Path, suffix: str) -> None:
    with source.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(_ZIP):
        fits = _is_whole_zip(source)
    elif head.startswith(_COMPOUND):
        fits = True
    else:
        fits = suffix not in _NEW_FORMATS and head.startswith(_MARKUP)
    if not fits:
        raise JobFailure("FileOpenFailed", "The document is damaged or not of its declared type.")


def _is_whole_zip(source: Path) -> bool:
    try:
        with zipfile.ZipFile(source) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError):
        return False


def _decoded(data: bytes) -> str:
    """Text in the encodings that such files have: UTF-8, UTF-16 with its mark, or GB 18030."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("gb18030", errors="replace")
