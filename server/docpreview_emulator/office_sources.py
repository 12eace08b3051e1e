"""Input documents for LibreOffice: their import filters, encodings, passwords, and a check of their content.

LibreOffice opens almost anything as text: a damaged presentation would become pages of garbage, where the cloud fails
the job. So the first bytes of a file must fit its suffix.
"""

import codecs
import re
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

from docpreview_emulator.compound_files import MAGIC as _COMPOUND
from docpreview_emulator.csv_files import separator
from docpreview_emulator.errors import JobFailure, encrypted
from docpreview_emulator.formats import Family, family_of
from docpreview_emulator.office_passwords import decrypt_presentation, is_encrypted

_ZIP = b"PK\x03\x04"
_MARKUP = (b"<", b"\xef\xbb\xbf<", b"{\\rtf")  # web pages, XML and RTF under a name such as .doc or .xls are common
_NEW_FORMATS = {"pptx", "potx", "ppsx", "pptm", "potm", "ppsm", "docx", "dotx", "docm", "dotm", "xlsx", "xltx", "xlsb"}
_HEAD = 64 * 1024

# Suffixes of WPS Office name formats of Microsoft Office.
_WPS = {"wps": "doc", "wpt": "dot", "et": "xls", "ett": "xlt", "ets": "xls", "dps": "ppt", "dpt": "pot"}

# An OpenDocument text says where prints have its notes, which would overrule what `Comments` says.
_PLACE_OF_NOTES = re.compile(rb'<config:config-item config:name="PrintAnnotationMode"[^>]*>[^<]*</config:config-item>')
_SETTINGS = "settings.xml"

_CHINESE = re.compile(rb"[\x81-\xfe][\xa1-\xfe]")  # the common characters of GB 18030
_HIGH = re.compile(rb"[\x80-\xff]")


class OfficeSource(NamedTuple):
    """A document for LibreOffice, with its import filter and the filter's options; empty: LibreOffice detects them."""

    path: Path
    filter_name: str = ""
    filter_options: str = ""
    warning: str = ""
    """A sentence for the job's message."""


def source_for_office(source: Path, suffix: str, password: str, directory: Path) -> OfficeSource:
    """A copy of the document with a name and an encoding that LibreOffice recognizes.

    Raises:
        JobFailure: the content does not match the suffix.
    """
    family = family_of(suffix)
    if suffix == "csv":
        text, warning = _decoded(source.read_bytes())
        divider, text = separator(text)
        copy = _written(directory / "source.csv", text)
        return OfficeSource(copy, "Text - txt - csv (StarCalc)", f"{ord(divider)},34,76,1", warning)
    if family is Family.PLAIN:
        text, warning = _decoded(source.read_bytes())
        copy = _written(directory / "source.txt", text)
        return OfficeSource(copy, "Text (encoded)", "UTF8,LF,,,", warning)
    copy = directory / f"source.{_WPS.get(suffix, suffix)}"
    if family is not Family.WEB:
        _check_content(source, suffix)
        if decrypt_presentation(source, password, copy):
            return OfficeSource(copy)
    if not _copy_without_place_of_notes(source, copy):
        shutil.copyfile(source, copy)
    return OfficeSource(copy, "HTML (StarWriter)" if family is Family.WEB else "")


def not_opened(source: Path, password: str) -> JobFailure:
    """Why LibreOffice has not opened a document."""
    if not is_encrypted(source):
        return JobFailure("FileOpenFailed", "The document is damaged or not of its declared type.")
    return encrypted(password)


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


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


def _copy_without_place_of_notes(source: Path, copy: Path) -> bool:
    """Copy an OpenDocument text that says where its notes are printed; False: it is another one, or encrypted."""
    if not zipfile.is_zipfile(source):
        return False
    with zipfile.ZipFile(source) as archive:
        if _SETTINGS not in archive.namelist():
            return False
        settings, found = _PLACE_OF_NOTES.subn(b"", archive.read(_SETTINGS))
        if not found:
            return False
        with zipfile.ZipFile(copy, "w") as written:
            for entry in archive.infolist():
                data = settings if entry.filename == _SETTINGS else archive.read(entry)
                written.writestr(entry, data)
    return True


def _is_whole_zip(source: Path) -> bool:
    try:
        with zipfile.ZipFile(source) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError):
        return False


def _decoded(data: bytes) -> tuple[str, str]:
    """Text in the encodings that such files have, and a warning where its encoding had to be guessed."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace"), ""
    try:
        return data.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        encoding, name = ("gb18030", "GB 18030") if _is_chinese(data) else ("cp1252", "Windows-1252")
        return data.decode(encoding, errors="replace"), f"Read as {name}, because it is not UTF-8."


def _is_chinese(data: bytes) -> bool:
    """Whether most bytes outside of ASCII are in pairs: those of Western text stand between letters of ASCII."""
    return len(_CHINESE.findall(data)) * 4 > len(_HIGH.findall(data))
