"""The queue of deliveries in Redis or Valkey, shared by replicas. Every method is one script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.storage.redis_client import RedisCallError, RedisClient, script_command
from docpreview_gateway.storage.redis_keys import slot_prefix
from docpreview_gateway.webhooks.deliveries import Depth, packed, read

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.storage.redis_client import Argument
    from docpreview_gateway.webhooks.deliveries import Delivery, Unreadable

Result = TypeVar("Result")

# KEYS: deliveries by id; their leases; when they are due; when the jobs ended of those that are to be sent; when they
# were promised.
_NOW = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
"""

_PUT = f"""{_NOW}
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then
  redis.call('ZADD', KEYS[3], now + tonumber(ARGV[3]), ARGV[1])
  redis.call('HSET', KEYS[5], ARGV[1], ARGV[4])
end
return 1
"""

_TAKE = f"""{_NOW}
local taken = {{}}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local stored = redis.call('HGET', KEYS[1], id)
  if stored then
    redis.call('ZADD', KEYS[3], now + tonumber(ARGV[2]), id)
    local promised = redis.call('HGET', KEYS[5], id) or '0'
    taken[#taken + 1] = {{id, redis.call('HINCRBY', KEYS[2], id, 1), promised, stored}}
  else
    redis.call('ZREM', KEYS[3], id)
  end
end
return taken
"""

_IS_MINE = """
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
"""

_REPLACE = f"""{_IS_MINE}{_NOW}
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[4]), ARGV[1])
if ARGV[5] ~= '0.0' then redis.call('ZADD', KEYS[4], ARGV[5], ARGV[1]) end
return 1
"""

_PUT_OFF = f"""{_IS_MINE}{_NOW}
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[3]), ARGV[1])
return 1
"""

_REMOVE = f"""{_IS_MINE}
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
return 1
"""

_HASTEN = f"""{_NOW}
for _, id in ipairs(ARGV) do
  if not redis.call('ZSCORE', KEYS[4], id) then redis.call('ZADD', KEYS[3], 'XX', now, id) end
end
return 1
"""

_DEPTH = """
local oldest = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
return {redis.call('HLEN', KEYS[1]), redis.call('ZCARD', KEYS[4]), oldest[2] or ''}
"""


class RedisDeliveries:
    """The port `DeliveryQueue` over `send`, which sends one command. A call takes at most `seconds`."""

    def __init__(self, send: Callable[..., Awaitable[object]], keys: CreateKeys, *, seconds: float) -> None:
        self._redis = RedisClient(send, name="webhook queue", seconds=seconds)
        self._keys = keys
        prefix = slot_prefix(keys.namespace, "webhooks")
        self._names = [prefix + name for name in ("deliveries", "leases", "due", "ended", "promised")]

    async def put(self, delivery: Delivery, delay: float) -> None:
        """Keep a delivery, unless there is one of its id."""
        stored = packed(delivery, self._keys)
        await self._run(_PUT, delivery.id, stored, delay, repr(delivery.promised_at), read=bool)

    async def take(self, count: int, lease_seconds: float) -> list[Delivery | Unreadable]:
        """Take deliveries that are due."""

        def found(answer: Any) -> list[Delivery | Unreadable]:  # noqa: ANN401 - of the library
            rows = [(name.decode(), lease, float(promised), stored) for name, lease, promised, stored in answer]
            return [read(*row, self._keys) for row in rows]

        return await self._run(_TAKE, count, lease_seconds, read=found)

    async def replace(self, delivery: Delivery, delay: float) -> bool:
        """Keep this in place of the delivery that was taken."""
        stored, ended_at = packed(delivery, self._keys), repr(delivery.ended_at)
        return await self._run(_REPLACE, delivery.id, delivery.lease, stored, delay, ended_at, read=bool)

    async def put_off(self, delivery: Delivery | Unreadable, delay: float) -> bool:
        """Have a delivery that was taken due later."""
        return await self._run(_PUT_OFF, delivery.id, delivery.lease, delay, read=bool)

    async def remove(self, delivery: Delivery | Unreadable) -> bool:
        """Forget a delivery that was taken."""
        return await self._run(_REMOVE, delivery.id, delivery.lease, read=bool)

    async def hasten(self, ids: Sequence[str]) -> None:
        """Make deliveries due at once that wait for the ends of their jobs."""
        await self._run(_HASTEN, *ids, read=bool)

    async def depth(self) -> Depth:
        """What the queue holds."""

        def depth(answer: Any) -> Depth:  # noqa: ANN401 - of the library
            everything, ended, oldest = answer
            return Depth(everything - ended, ended, float(oldest) if oldest else None)

        return await self._run(_DEPTH, read=depth)

    async def _run(self, script: str, *arguments: Argument, read: Callable[[Any], Result]) -> Result:
        try:
            return await self._redis.execute(*script_command(script, self._names, *arguments), read=read)
        except RedisCallError as error:
            raise StoreError(f"webhook queue: {error}") from error
