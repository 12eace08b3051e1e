"""The cache that replicas share, in Redis or Valkey. Losing the server costs hits and a few short waits, no answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.storage.redis_client import RedisCallError, RedisSkippedError
from docpreview_gateway.storage.redis_keys import prefix

if TYPE_CHECKING:
    from docpreview_gateway.storage.redis_client import RedisClient
    from docpreview_gateway.upstream.ports import UpstreamTelemetry


class RedisCache:
    """The port `SharedCache` of a deployment. It raises nothing but CancelledError."""

    def __init__(self, redis: RedisClient, namespace: str, telemetry: UpstreamTelemetry) -> None:
        self._prefix = prefix(namespace)
        self._redis = redis
        self._telemetry = telemetry

    async def get(self, key: str) -> bytes | None:
        """The value that a replica set, until it expires. None also without an answer."""
        return await self._execute("GET", self._prefix + key)

    async def set(self, key: str, value: bytes, seconds: float, *, spent: float = 0.0) -> None:
        """Store a value with a time to live. Skipped after a command that failed: no read waits for two of them."""
        if self._redis.is_failing:
            self._telemetry.cache_lookup("shared", "skipped")
            return
        await self._execute("SET", self._prefix + key, value, "PX", max(1, round(seconds * 1000)), spent=spent)

    async def _execute(self, *command: str | bytes | int, spent: float = 0.0) -> bytes | None:
        try:
            return await self._redis.execute(*command, read=_bytes_or_none, spent=spent)
        except RedisSkippedError:
            self._telemetry.cache_lookup("shared", "skipped")
        except RedisCallError:
            self._telemetry.cache_lookup("shared", "error")
        return None


def _bytes_or_none(answer: object) -> bytes | None:
    return answer if isinstance(answer, bytes) else None
