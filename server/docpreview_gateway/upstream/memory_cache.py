"""The LRU cache in the process's memory, bounded by bytes.

It is an OrderedDict, which takes a third of the time of cachetools for a lookup, and every read makes one.
"""

from __future__ import annotations

from collections import OrderedDict

ENTRY_OVERHEAD = 300
"""Bytes of an entry besides its key and value: object headers and the entry of the table (measured)."""


class LruMemoryCache:
    """A `MemoryCache` that evicts the least recently used entries. `max_bytes` bounds values and overhead."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        self.size = 0
        """Bytes in use, by the same count as `max_bytes`."""

    def get(self, key: str) -> bytes | None:
        """The value; None when it was never set, or was evicted."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def set(self, key: str, value: bytes) -> None:
        """Store a value. A value larger than the cache is not stored, and its old value is dropped."""
        old = self._entries.pop(key, None)
        if old is not None:
            self.size -= len(old) + ENTRY_OVERHEAD
        if len(value) + ENTRY_OVERHEAD > self._max_bytes:
            return
        self._entries[key] = value
        self.size += len(value) + ENTRY_OVERHEAD
        while self.size > self._max_bytes:
            _, evicted = self._entries.popitem(last=False)
            self.size -= len(evicted) + ENTRY_OVERHEAD
