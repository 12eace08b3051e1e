"""The cache in memory: what makes room for what."""

from __future__ import annotations

import random

from docpreview_gateway.upstream.memory_cache import ENTRY_OVERHEAD, LruMemoryCache


def test_least_recently_used_makes_room() -> None:
    """What was read lately stays."""
    cache = LruMemoryCache(3 * (ENTRY_OVERHEAD + 10))
    for key in "abc":
        cache.set(key, b"0123456789")
    assert cache.get("a") == b"0123456789"
    cache.set("d", b"0123456789")
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]


def test_value_that_is_too_large() -> None:
    """It is not kept, nor is what it was to replace, and nothing else makes room for it."""
    cache = LruMemoryCache(2 * (ENTRY_OVERHEAD + 10))
    cache.set("a", b"0123456789")
    cache.set("b", b"0123456789")
    cache.set("b", bytes(2000))
    assert (cache.get("a"), cache.get("b")) == (b"0123456789", None)
    assert cache.size == ENTRY_OVERHEAD + 10


def test_the_size_counts_what_is_cached_and_stays_within_the_bound() -> None:
    """Whatever is set and replaced, it is that of what is there, and within the bound."""
    chance = random.Random(1)  # noqa: S311 - repeatable
    cache = LruMemoryCache(50_000)
    for _ in range(5000):
        cache.set(str(chance.randrange(200)), bytes(chance.randrange(3000)))
        values = [value for value in (cache.get(str(key)) for key in range(200)) if value is not None]
        assert cache.size == sum(len(value) + ENTRY_OVERHEAD for value in values) <= 50_000


def test_no_room_at_all() -> None:
    """A cache of no bytes keeps nothing."""
    cache = LruMemoryCache(0)
    cache.set("a", b"")
    assert (cache.get("a"), cache.size) == (None, 0)
