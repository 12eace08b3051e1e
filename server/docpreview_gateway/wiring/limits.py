"""The rate counter of calls: of this process, or of all replicas."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from docpreview_gateway.limits.call_limits import Counting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.settings.loading import Settings


@asynccontextmanager
async def counting(settings: Settings) -> AsyncIterator[Counting]:
    """The counter, shared if there is shared state. It connects at its first use."""
    state = settings.shared_state
    if state.url is None:
        yield Counting(share=settings.processes)
        return
    # Imported only with shared state: redis takes 20 MiB and half a second.
    from docpreview_gateway.limits.redis_rates import RedisRates  # noqa: PLC0415
    from docpreview_gateway.storage.redis_connections import redis_batches  # noqa: PLC0415

    async with redis_batches(state.url.get_secret_value()) as send:
        refuse = settings.limits.without_store == "refuse"
        shared = RedisRates(send, state.namespace or "", seconds=state.timeout_seconds)
        yield Counting(shared, refuse_without_store=refuse, share=settings.processes)
