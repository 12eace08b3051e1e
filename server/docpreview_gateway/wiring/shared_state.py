"""The shared cache and single-flight over one Redis server. Imported only with shared state."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from docpreview_gateway.storage.background import BackgroundTasks
from docpreview_gateway.storage.redis_client import RedisClient
from docpreview_gateway.storage.redis_connections import redis_batches, redis_messages
from docpreview_gateway.upstream.redis_cache import RedisCache
from docpreview_gateway.upstream.redis_single_flight import RedisSingleFlight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from docpreview_gateway.upstream.ports import UpstreamTelemetry


@dataclass(frozen=True, slots=True)
class SharedParts:
    """The shared cache and single-flight reads, over one client of one server."""

    cache: RedisCache
    single_flight: RedisSingleFlight
    url: str

    @asynccontextmanager
    async def listening(
        self, on_created: Callable[[str], None], on_called_back: Callable[[str, str], None]
    ) -> AsyncIterator[None]:
        """Receive the messages of the other replicas while the context is open."""
        messages = partial(redis_messages, self.url, *self.single_flight.channels)
        listener = BackgroundTasks()
        _ = listener.start(
            self.single_flight.listen(messages, on_created, on_called_back), "messages of other replicas"
        )
        try:
            yield
        finally:
            await listener.cancel()
            await self.single_flight.close()


@asynccontextmanager
async def shared_parts(
    url: str, namespace: str, telemetry: UpstreamTelemetry, *, seconds: float
) -> AsyncIterator[SharedParts]:
    """The parts of a deployment, with a timeout of `seconds` for each call. They connect at their first use."""
    async with redis_batches(url) as send:
        redis = RedisClient(send, name="shared cache", seconds=seconds, fallback="continuing without it")
        yield SharedParts(RedisCache(redis, namespace, telemetry), RedisSingleFlight(redis, namespace), url)
