"""A shared cache without a server."""

from __future__ import annotations


class FakeSharedCache:
    """A `SharedCache` in memory. Values never expire; tests change `values` directly."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lives: dict[str, float] = {}
        self.spent = 0.0

    async def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def set(self, key: str, value: bytes, seconds: float, *, spent: float = 0.0) -> None:
        self.values[key] = value
        self.spent = spent
        self.lives[key] = seconds
