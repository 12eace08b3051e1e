"""Compound files: the container of Office's older formats, and of newer ones under a password ([MS-CFB]).

Streams are read, and overwritten with as many bytes; nothing is added or removed.
"""

from pathlib import Path

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_LAST_SECTOR = 0xFFFFFFFA  # numbers from here on are marks: free, end of a chain
_SHIFTS = {(9, 6), (12, 6)}  # sectors have 512 or 4096 bytes, small ones 64
_HEADER_BYTES = 512
_ENTRY_BYTES = 128
_STREAM, _ROOT = 2, 5


class CompoundFile:
    """A compound file in memory.

    Raises:
        ValueError: it is damaged, here and from each method.
    """

    def __init__(self, path: Path) -> None:
        self._data = bytearray(path.read_bytes())
        if not self._data.startswith(MAGIC) or len(self._data) < _HEADER_BYTES:
            raise ValueError("not a compound file")
        shifts = self._number(30, 2), self._number(32, 2)
        if shifts not in _SHIFTS:
            raise ValueError("sectors of a size that no version has")
        self._sector, self._small = 1 << shifts[0], 1 << shifts[1]
        self._cutoff = self._number(56)
        self._table = self._numbers(self._extents(self._table_sectors()))
        self._entries = self._directory()
        root = next((first for kind, first, _ in self._entries.values() if kind == _ROOT), _LAST_SECTOR)
        self._small_table = self._numbers(self._chain(self._number(60)))
        parts = range(0, self._sector, self._small)
        self._small_offsets = [start + part for start, _ in self._chain(root) for part in parts]

    @property
    def names(self) -> frozenset[str]:
        """The names of its streams, of all folders."""
        return frozenset(name for name, (kind, _, _) in self._entries.items() if kind == _STREAM)

    def read(self, name: str) -> bytes:
        """The bytes of a stream."""
        return b"".join(self._data[start : start + size] for start, size in self._stream(name))

    def write(self, name: str, data: bytes) -> None:
        """Overwrite a stream with as many bytes."""
        done = 0
        for start, size in self._stream(name):
            self._data[start : start + size] = data[done : done + size]
            done += size

    def save(self, path: Path) -> None:
        """Write the whole file."""
        path.write_bytes(self._data)

    def _number(self, offset: int, size: int = 4) -> int:
        return int.from_bytes(self._data[offset : offset + size], "little")

    def _numbers(self, spans: list[tuple[int, int]]) -> list[int]:
        return [self._number(at) for start, size in spans for at in range(start, start + size, 4)]

    def _table_sectors(self) -> list[int]:
        """The sectors of the allocation table: the first 109 are in the header, the others in a chain of their own."""
        sectors = [self._number(at) for at in range(76, _HEADER_BYTES, 4)]
        more, seen = self._number(68), set[int]()
        while more < _LAST_SECTOR and more not in seen:
            seen.add(more)
            *numbers, more = self._numbers(self._extents([more]))
            sectors += numbers
        sectors = [sector for sector in sectors if sector < _LAST_SECTOR]
        if len(set(sectors)) != len(sectors):
            raise ValueError("a sector of the allocation table is listed twice")
        return sectors

    def _extents(self, sectors: list[int]) -> list[tuple[int, int]]:
        spans = [((sector + 1) * self._sector, self._sector) for sector in sectors]
        if any(start >= len(self._data) for start, _ in spans):
            raise ValueError("a sector is beyond the end of the file")
        return spans

    def _chain(self, first: int) -> list[tuple[int, int]]:
        return self._extents(_followed(self._table, first))

    def _directory(self) -> dict[str, tuple[int, int, int]]:
        entries: dict[str, tuple[int, int, int]] = {}
        for start, size in self._chain(self._number(48)):
            for at in range(start, start + size, _ENTRY_BYTES):
                length = self._number(at + 64, 2)
                name = self._data[at : at + min(max(length - 2, 0), 62)].decode("utf-16-le", errors="replace")
                entries.setdefault(name, (self._number(at + 66, 1), self._number(at + 116), self._number(at + 120)))
        return entries

    def _stream(self, name: str) -> list[tuple[int, int]]:
        """Where the bytes of a stream are."""
        kind, first, length = self._entries.get(name, (0, 0, 0))
        if kind != _STREAM:
            raise ValueError(f"there is no stream {name}")
        if length < self._cutoff:
            numbers = _followed(self._small_table, first)
            if any(number >= len(self._small_offsets) for number in numbers):
                raise ValueError("a small sector is beyond the end of the file")
            spans = [(self._small_offsets[number], self._small) for number in numbers]
        else:
            spans = self._chain(first)
        return _cut(spans, length)


def _followed(table: list[int], first: int) -> list[int]:
    """The numbers of a chain in a table."""
    numbers: dict[int, None] = {}
    while first < _LAST_SECTOR:
        if first in numbers or first >= len(table):
            raise ValueError("a chain of sectors has no end")
        numbers[first] = None
        first = table[first]
    return list(numbers)


def _cut(spans: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    cut = []
    for start, size in spans:
        if length > 0:
            cut.append((start, min(size, length)))
        length -= size
    return cut
