"""Wiring of shared state: the cache and single-flight reads over one Redis. Imported only when one is configured."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from docpreview_gateway.background import BackgroundTasks
from docpreview_gateway.storage.outage import Outage
from docpreview_gateway.storage.redis_connections import redis_batches, redis_messages
from docpreview_gateway.upstream.redis_cache import RedisCache
from docpreview_gateway.upstream.redis_single_flight import RedisSingleFlight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from docpreview_gateway.upstream.ports import UpstreamTelemetry


@dataclass(frozen=True, slots=True)
class SharedParts:
    """The cache and the single_flight of one server, whose outages are the same."""

    cache: RedisCache
    single_flight: RedisSingleFlight
    url: str

    @asynccontextmanager
    async def listening(self, on_created: Callable[[str], None]) -> AsyncIterator[None]:
        """Hear the other replicas for as long as the context is open."""
        messages = partial(redis_messages, self.url, *self.single_flight.channels)
        listener = BackgroundTasks()
        _ = listener.start(self.single_flight.listen(messages, on_created), "messages of other replicas")
        try:
            yield
        finally:
            await listener.cancel()
            await self.single_flight.close()


@asynccontextmanager
async def shared_parts(url: str, telemetry: UpstreamTelemetry, *, seconds: float) -> AsyncIterator[SharedParts]:
    """The parts, each of whose calls takes at most `seconds`. Nothing is connected before it is used."""
    outage = Outage()
    async with redis_batches(url) as send:
        cache = RedisCache(send, telemetry, outage=outage, seconds=seconds)
        yield SharedParts(cache, RedisSingleFlight(send, outage, seconds=seconds), url)
