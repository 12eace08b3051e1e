"""The shared cache and single-flight over one Redis server. Imported only with shared state."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from docpreview_gateway.storage.background import BackgroundTasks
from docpreview_gateway.storage.outage import Outage
from docpreview_gateway.storage.redis_connections import redis_batches, redis_messages
from docpreview_gateway.upstream.redis_cache import RedisCache
from docpreview_gateway.upstream.redis_single_flight import RedisSingleFlight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from docpreview_gateway.upstream.ports import UpstreamTelemetry


@dataclass(frozen=True, slots=True)
class SharedParts:
    """The cache and single-flight of one server, with one circuit breaker for both."""

    cache: RedisCache
    single_flight: RedisSingleFlight
    url: str

    @asynccontextmanager
    async def listening(self, on_created: Callable[[str], None]) -> AsyncIterator[None]:
        """Receive the messages of the other replicas while the context is open."""
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
    """The parts, with a timeout of `seconds` for each call. They connect at their first use."""
    outage = Outage()
    async with redis_batches(url) as send:
        cache = RedisCache(send, telemetry, outage=outage, seconds=seconds)
        yield SharedParts(cache, RedisSingleFlight(send, outage, seconds=seconds), url)
