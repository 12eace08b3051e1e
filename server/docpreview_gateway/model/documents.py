"""What the beginning and the end of a document tell: whether its suffix is right, and whether it is encrypted.

Nothing is refused that cannot be told for certain: a document is read for a few kilobytes only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from docpreview_gateway.model.pdf_encryption import needs_password

if TYPE_CHECKING:
    from collections.abc import Iterator

Finding: TypeAlias = Literal["", "mismatch", "encrypted"]

PIECE_BYTES = 64 * 1024
"""Bytes that are read of the beginning, and of the end."""

_OPEN_XML = {
    "ppt/": "pptx potx ppsx pptm potm ppsm",
    "word/": "docx dotx docm dotm",
    "xl/": "xlsx xltx xlsb xlsm xltm",
}
"""Suffixes of Office Open XML by the folder of their packages."""

_COMPOUND = {"PowerPoint Document": "ppt pot pps", "WordDocument": "doc dot", "Workbook": "xls xlt"}
"""Suffixes of Microsoft's older formats by the stream that their compound files have."""

_WPS = "wps wpt et ett ets dps dpt"
"""Suffixes of Kingsoft's formats, which are compound files or packages."""

_TEXT = "lrc c cpp h asm s java asp bat bas prg cmd txt log xml htm html csv"

_FOLDERS = {suffix: folder for folder, suffixes in _OPEN_XML.items() for suffix in suffixes.split()}
_STREAMS = {suffix: stream for stream, suffixes in _COMPOUND.items() for suffix in suffixes.split()}

SUFFIXES = frozenset({"pdf", "rtf", *_FOLDERS, *_STREAMS, *_WPS.split(), *_TEXT.split()})
"""Suffixes of the documents that the cloud converts (vendor document 460/46942)."""

_OLE = bytes.fromhex("D0CF11E0A1B11AE1")
_ZIP = b"PK\x03\x04"
_BINARY = (_OLE, _ZIP, b"%PDF-", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\x1f\x8b", b"Rar!", b"7z\xbc\xaf")
_LISTED = re.compile(rb"PK\x01\x02.{24}(..)", re.DOTALL)
_LISTED_NAME_AT = 46
_DIRECTORY_BYTES = 4096
_ENTRY_BYTES = 128
_SHIFTS = (9, 12)
"""Sectors have 512 or 4096 bytes."""

_LISTED_TABLES = 109
"""Sectors of the allocation table that a header lists."""

_MOST_SECTORS = 64
_SMALL_BYTES, _SMALL_SECTOR_BYTES = 4096, 64
_ENCRYPTED_FLAG = 0x0100


class Excerpt(NamedTuple):
    """A document's length, its beginning, and perhaps another piece of it that begins at `offset`."""

    length: int
    begin: bytes
    offset: int = 0
    piece: bytes = b""

    @property
    def end(self) -> bytes:
        """The bytes before the document's end that are known."""
        return self.piece if len(self.begin) < self.length else self.begin

    def at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from an offset; empty when they are not known."""
        if offset < len(self.begin):
            return self.begin[offset : offset + size]
        return self.piece[offset - self.offset :][:size] if offset >= self.offset else b""


def second_piece(suffix: str, length: int, begin: bytes) -> tuple[int, int] | None:
    """The first byte and the size of another piece that has to be read; None: the beginning tells what can be told."""
    if length <= len(begin):
        return None
    if begin.startswith(_OLE):
        offset = _sector_offset(begin, _first_sector(begin))
        return (offset, _DIRECTORY_BYTES) if len(begin) < offset + _DIRECTORY_BYTES and offset < length else None
    if suffix == "pdf" or begin.startswith(_ZIP):
        offset = max(len(begin), length - PIECE_BYTES)
        return offset, length - offset
    return None


def examined(suffix: str, excerpt: Excerpt) -> Finding:
    """What is wrong with a document of one of `SUFFIXES`; empty: nothing that can be told."""
    if suffix == "pdf":
        return _examined_pdf(excerpt)
    if suffix == "rtf":
        return "" if excerpt.begin.lstrip().startswith(b"{\\rtf") else "mismatch"
    if suffix in _TEXT.split():
        return "mismatch" if excerpt.begin.startswith(_BINARY) else ""
    if excerpt.begin.startswith(_OLE):
        return _examined_compound(suffix, excerpt)
    if suffix in _STREAMS:
        # Word and Excel write these too, under the same suffixes.
        return "" if suffix[0] in "dx" and excerpt.begin.lstrip().startswith((b"{\\rtf", b"<")) else "mismatch"
    return _examined_package(suffix, excerpt) if excerpt.begin.startswith(_ZIP) else "mismatch"


def _examined_pdf(excerpt: Excerpt) -> Finding:
    if b"%PDF-" not in excerpt.begin[:1024]:
        return "mismatch"
    return "encrypted" if needs_password(excerpt.begin, excerpt.end) else ""


def _examined_package(suffix: str, excerpt: Excerpt) -> Finding:
    """A package's files are listed at its end. Those that are not among its last bytes are not known."""
    end = excerpt.end
    if b"PK\x05\x06" not in end:
        return "mismatch"  # it is cut
    names = [
        end[match.start() + _LISTED_NAME_AT :][: int.from_bytes(match[1], "little")].decode(errors="replace")
        for match in _LISTED.finditer(end)
    ]
    expected = _FOLDERS.get(suffix)
    if expected is None or any(name.startswith(expected) for name in names):
        return ""
    is_other = any(name.startswith(tuple(_OPEN_XML)) for name in names)
    return "mismatch" if is_other or "[Content_Types].xml" not in names else ""


def _examined_compound(suffix: str, excerpt: Excerpt) -> Finding:
    streams = _streams(excerpt)
    if "EncryptedPackage" in streams:
        return "encrypted"
    if suffix in _FOLDERS:
        return "mismatch" if streams else ""
    if "EncryptedSummary" in streams or _is_encrypted_text(streams, excerpt):
        return "encrypted"
    expected = _STREAMS.get(suffix)
    is_other = expected not in streams and not streams.keys().isdisjoint(_COMPOUND)
    return "mismatch" if expected is not None and is_other else ""


def _is_encrypted_text(streams: dict[str, int], excerpt: Excerpt) -> bool:
    """The flag in the file information block, the beginning of Word's stream ([MS-DOC] 2.5.2)."""
    start = streams.get("WordDocument")
    flags = b"" if start is None else excerpt.at(start + 10, 2)
    return bool(int.from_bytes(flags, "little") & _ENCRYPTED_FLAG)


def _streams(excerpt: Excerpt) -> dict[str, int]:
    """Where streams begin, by name: those in the part of the directory that is known ([MS-CFB] 2.6)."""
    directory = b"".join(_directory(excerpt))
    found: dict[str, int] = {}
    for at in range(0, len(directory) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        entry = directory[at : at + _ENTRY_BYTES]
        size = int.from_bytes(entry[64:66], "little")
        name = entry[: max(size - 2, 0)].decode("utf-16-le", errors="replace") if size <= 64 else ""  # noqa: PLR2004
        if not name:
            continue
        start, length = int.from_bytes(entry[116:120], "little"), int.from_bytes(entry[120:124], "little")
        if length < _SMALL_BYTES and found:
            # It is in the stream of small ones, which is the root's, the first entry.
            found[name] = next(iter(found.values())) + _SMALL_SECTOR_BYTES * start
        else:
            found[name] = _sector_offset(excerpt.begin, start)
    return found


def _directory(excerpt: Excerpt) -> Iterator[bytes]:
    """The sectors of the directory, as far as they are known."""
    sector, size = _first_sector(excerpt.begin), _sector_offset(excerpt.begin, 0)
    for _ in range(_MOST_SECTORS):
        if not (data := excerpt.at(_sector_offset(excerpt.begin, sector), size)):
            return
        yield data
        sector = _next_sector(excerpt, sector, size)


def _next_sector(excerpt: Excerpt, sector: int, size: int) -> int:
    """What the allocation table says comes after a sector; where it is not known, most files have the next one."""
    table, entry = divmod(sector, size // 4)
    at = int.from_bytes(excerpt.begin[76 + 4 * table : 80 + 4 * table], "little")
    found = excerpt.at(_sector_offset(excerpt.begin, at) + 4 * entry, 4) if table < _LISTED_TABLES else b""
    return int.from_bytes(found, "little") if found else sector + 1


def _first_sector(begin: bytes) -> int:
    return int.from_bytes(begin[48:52], "little")


def _sector_offset(begin: bytes, sector: int) -> int:
    shift = int.from_bytes(begin[30:32], "little")
    return (sector + 1) << (shift if shift in _SHIFTS else _SHIFTS[0])
