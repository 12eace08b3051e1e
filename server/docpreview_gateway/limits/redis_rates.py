"""Rate limits that replicas share, by GCRA in Redis or Valkey. The arithmetic is that of `limits.gcra`.

All rules of a call are charged in one script, by the server's clock, so that the clocks of replicas do not matter.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from docpreview_gateway.limits.gcra import Refusal
from docpreview_gateway.limits.ports import StoreUnavailableError
from docpreview_gateway.storage.redis_client import RedisCallError, RedisClient, script_command
from docpreview_gateway.storage.redis_keys import slot_prefix

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview_gateway.limits.gcra import Rule

_TAKE = """
local time = redis.call('TIME')
-- Microseconds from 2020 on: small enough for fractions of them to be kept.
local now = (time[1] - 1577836800) * 1000000 + time[2]
local arrivals, worst, longest = {}, 0, 0.001
for i, key in ipairs(KEYS) do
  arrivals[i] = math.max(now, tonumber(redis.call('GET', key) or 0))
  local wait = arrivals[i] - now - ARGV[2 * i]
  if wait > longest then worst, longest = i, wait end
end
if worst > 0 then return {worst, string.format('%.0f', math.ceil(longest))} end
for i, key in ipairs(KEYS) do
  local arrival = arrivals[i] + ARGV[2 * i - 1]
  redis.call('SET', key, string.format('%.3f', arrival), 'PX', math.ceil((arrival - now) / 1000) + 1)
end
return {0, '0'}
"""


class RedisRates:
    """The port `SharedRates` of a deployment over `send`, which sends one command. A call takes at most `seconds`."""

    def __init__(self, send: Callable[..., Awaitable[object]], namespace: str, *, seconds: float = 0.05) -> None:
        self._prefix = slot_prefix(namespace, "rates")
        self._redis = RedisClient(
            send,
            name="shared rate limits",
            seconds=seconds,
            fallback="falling back to limits.without_store",
            error_replies_fail=True,
        )

    async def take(self, rules: tuple[Rule, ...]) -> Refusal | None:
        """Charge a call to all rules, or to none and return the refusal. StoreUnavailableError."""
        keys = [self._prefix + rule.key for rule in rules]
        numbers = [1e6 * number for rule in rules for number in (rule.interval, rule.tolerance)]
        try:
            return await self._redis.execute(*script_command(_TAKE, keys, *numbers), read=partial(_refusal, rules))
        except RedisCallError as error:
            raise StoreUnavailableError from error


def _refusal(rules: tuple[Rule, ...], answer: Any) -> Refusal | None:  # noqa: ANN401 - the server's answer
    worst, microseconds = answer
    wait = int(microseconds) / 1e6
    return Refusal(rules[worst - 1], wait) if worst else None
