"""What replicas share, without a server."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING

from docpreview_gateway.upstream.policies import cache_entries
from docpreview_gateway.upstream.ports import Turn

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from docpreview_gateway.upstream.ports import Subscription


class _Silent:
    """A subscription to which nothing is published."""

    async def next(self, seconds: float) -> bytes | None:
        await asyncio.sleep(seconds)
        return None


class FakeSharedCache:
    """A `SharedCache` and `SingleFlight` in memory, in which every read leads.

    Values never expire; tests change `values` directly.
    """

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lives: dict[str, float] = {}
        self.turns = 0
        """Looks that reads have made."""
        self.created_in: list[str] = []
        self.told: list[tuple[str, str, str]] = []
        self.published: list[bytes] = []
        self.is_listening = True

    def subscribe(self, _key: str) -> AbstractContextManager[Subscription]:
        return nullcontext(_Silent())

    async def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def store(self, key: str, envelope: bytes, seconds: float) -> None:
        if seconds > 0:
            self.values[key] = envelope
            self.lives[key] = seconds

    async def turn(self, key: str, now: float, *, no_cache: bool, spent: float = 0.0) -> Turn:
        assert spent >= 0
        self.turns += 1
        envelope = None if no_cache else self.values.get(key)
        entry = cache_entries.decode(key, envelope) if envelope else None
        return Turn("found" if entry is not None and entry.is_fresh(now) else "leader", envelope)

    def end(self, key: str, envelope: bytes, seconds: float) -> None:
        self.published.append(envelope)
        if seconds > 0:
            self.values[key] = envelope
            self.lives[key] = seconds

    async def ask(self, _key: str, _seconds: float) -> bool:
        """Nothing is published."""
        return True

    def created(self, bucket: str) -> None:
        self.created_in.append(bucket)

    def called_back(self, bucket: str, job_id: str, queue_id: str) -> None:
        self.told.append((bucket, job_id, queue_id))
