"""What an upload consists of: the key of its object, the type of its content, and its parts."""

from __future__ import annotations

from dataclasses import dataclass

from docpreview_gateway.model.output_templates import source_format

UPLOAD_ID = "${UploadId}"
"""What a key may have in the place of the id of the upload."""

PART_BYTES = 16 * 1024 * 1024
"""Bytes of each part but the last. A content of one part needs no multipart upload."""

_OFFICE = "application/vnd.openxmlformats-officedocument."
_SLIDES, _TEXTS, _SHEETS = f"{_OFFICE}presentationml", f"{_OFFICE}wordprocessingml", f"{_OFFICE}spreadsheetml"
_MACROS = "macroEnabled.12"

_TYPES = {
    "pdf": "application/pdf",
    "ppt": "application/vnd.ms-powerpoint",
    "pot": "application/vnd.ms-powerpoint",
    "pps": "application/vnd.ms-powerpoint",
    "pptx": f"{_SLIDES}.presentation",
    "potx": f"{_SLIDES}.template",
    "ppsx": f"{_SLIDES}.slideshow",
    "pptm": f"application/vnd.ms-powerpoint.presentation.{_MACROS}",
    "potm": f"application/vnd.ms-powerpoint.template.{_MACROS}",
    "ppsm": f"application/vnd.ms-powerpoint.slideshow.{_MACROS}",
    "doc": "application/msword",
    "dot": "application/msword",
    "docx": f"{_TEXTS}.document",
    "dotx": f"{_TEXTS}.template",
    "docm": f"application/vnd.ms-word.document.{_MACROS}",
    "dotm": f"application/vnd.ms-word.template.{_MACROS}",
    "rtf": "application/rtf",
    "xls": "application/vnd.ms-excel",
    "xlt": "application/vnd.ms-excel",
    "xlsx": f"{_SHEETS}.sheet",
    "xltx": f"{_SHEETS}.template",
    "xlsb": f"application/vnd.ms-excel.sheet.binary.{_MACROS}",
    "xlsm": f"application/vnd.ms-excel.sheet.{_MACROS}",
    "xltm": f"application/vnd.ms-excel.template.{_MACROS}",
    "csv": "text/csv",
    "txt": "text/plain",
    "log": "text/plain",
    "xml": "application/xml",
    "htm": "text/html",
    "html": "text/html",
}
"""Registered types by suffix."""

_ANY_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a content: its number, from 1, where it begins, and its bytes."""

    number: int
    offset: int
    length: int


def parts_of(content_length: int) -> list[Part]:
    """The parts of a content, at least one: all have PART_BYTES but the last."""
    offsets = range(0, content_length, PART_BYTES)
    return [Part(number, at, min(PART_BYTES, content_length - at)) for number, at in enumerate(offsets, 1)]


def type_of(key: str) -> str:
    """The type of content that belongs to the suffix of a key."""
    return _TYPES.get(source_format(key, ""), _ANY_TYPE)
