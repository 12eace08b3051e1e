"""Document formats: the vendor's list of suffixes, in families with the same conversion."""

import posixpath
from enum import Enum


class Family(Enum):
    """A family of formats with the same conversion to pages."""

    PDF = "pdf"
    SLIDES = "slides"
    TEXT = "text"
    SHEETS = "sheets"
    PLAIN = "plain"
    WEB = "web"


_SUFFIXES = {
    Family.PDF: "pdf",
    Family.SLIDES: "pptx ppt pot potx pps ppsx dps dpt pptm potm ppsm",
    Family.TEXT: "doc dot wps wpt docx dotx docm dotm rtf",
    Family.SHEETS: "xls xlt et ett xlsx xltx csv xlsb xlsm xltm ets",
    Family.PLAIN: "lrc c cpp h asm s java asp bat bas prg cmd txt log xml",
    Family.WEB: "htm html",
}
SUFFIXES = " ".join(_SUFFIXES.values())
"""All suffixes that the cloud lists."""

_FAMILIES = {suffix: family for family, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}


def suffix_of(key: str, source_type: str = "") -> str:
    """The suffix that determines the format: the key's or, when it has none, the request's `SrcType`; lower case."""
    suffix = posixpath.splitext(key)[1] or source_type
    return suffix.removeprefix(".").lower()


def family_of(suffix: str) -> Family | None:
    """The family of a suffix, None when the cloud does not list it."""
    return _FAMILIES.get(suffix)
