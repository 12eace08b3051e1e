"""A cache in the process's memory, bounded by bytes."""

from __future__ import annotations

from contextlib import suppress

from cachetools import LRUCache

ENTRY_OVERHEAD = 420
"""Bytes that an entry costs beside its key and value: the objects' headers and its places in two tables (measured)."""


class LruMemoryCache:
    """The port `MemoryCache`: the least recently used entries make room. `max_bytes` counts values and overhead."""

    def __init__(self, max_bytes: int) -> None:
        self._entries: LRUCache[str, bytes] = LRUCache(max_bytes, getsizeof=lambda value: len(value) + ENTRY_OVERHEAD)

    @property
    def size(self) -> int:
        """Bytes in use, by the same count as `max_bytes`."""
        return int(self._entries.currsize)

    def get(self, key: str) -> bytes | None:
        """What was set, unless it had to make room."""
        return self._entries.get(key)

    def set(self, key: str, value: bytes) -> None:
        """Keep a value; one that is larger than the whole cache is not kept."""
        with suppress(ValueError):
            self._entries[key] = value
