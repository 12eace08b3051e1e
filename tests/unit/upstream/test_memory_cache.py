"""The LRU cache in memory: eviction and size."""

from __future__ import annotations

import random

from docpreview_gateway.upstream.memory_cache import ENTRY_OVERHEAD, LruMemoryCache


def test_the_least_recently_used_entry_is_evicted() -> None:
    """A read counts as a use."""
    cache = LruMemoryCache(3 * (ENTRY_OVERHEAD + 10))
    for key in "abc":
        cache.set(key, b"0123456789")
    assert cache.get("a") == b"0123456789"
    cache.set("d", b"0123456789")
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]


def test_a_value_larger_than_the_cache_is_not_stored() -> None:
    """Its old value is dropped, and no other entry is evicted."""
    cache = LruMemoryCache(2 * (ENTRY_OVERHEAD + 10))
    cache.set("a", b"0123456789")
    cache.set("b", b"0123456789")
    cache.set("b", bytes(2000))
    assert (cache.get("a"), cache.get("b")) == (b"0123456789", None)
    assert cache.size == ENTRY_OVERHEAD + 10


def test_the_size_counts_what_is_cached_and_stays_within_the_bound() -> None:
    """For any sequence of sets and replacements."""
    chance = random.Random(1)  # noqa: S311 - repeatable
    cache = LruMemoryCache(50_000)
    for _ in range(5000):
        cache.set(str(chance.randrange(200)), bytes(chance.randrange(3000)))
        values = [value for value in (cache.get(str(key)) for key in range(200)) if value is not None]
        assert cache.size == sum(len(value) + ENTRY_OVERHEAD for value in values) <= 50_000


def test_a_cache_of_no_bytes_stores_nothing() -> None:
    """Each entry has an overhead."""
    cache = LruMemoryCache(0)
    cache.set("a", b"")
    assert (cache.get("a"), cache.size) == (None, 0)
