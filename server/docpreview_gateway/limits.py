"""Puts together what limits callers: the count of calls."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from docpreview_gateway.service.limiting import Counting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.settings import Settings


@asynccontextmanager
async def counting(settings: Settings) -> AsyncIterator[Counting]:
    """Where calls are counted: by all replicas together, when they share anything. Nothing is connected yet."""
    state = settings.shared_state
    if state.url is None:
        yield Counting(share=settings.processes)
        return
    # Whoever shares nothing does without the 20 MiB and the half second that the library takes to import.
    from docpreview_gateway.adapters.redis_connections import redis_batches  # noqa: PLC0415
    from docpreview_gateway.adapters.redis_rates import RedisRates  # noqa: PLC0415

    async with redis_batches(state.url.get_secret_value()) as send:
        refuse = settings.limits.without_store == "refuse"
        shared = RedisRates(send, seconds=state.timeout_seconds)
        yield Counting(shared, refuse_without_store=refuse, share=settings.processes)
