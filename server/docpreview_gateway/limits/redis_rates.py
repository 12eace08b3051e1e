"""GCRA in Redis or Valkey, for limits that replicas keep together. The arithmetic is that of `core.rates`.

All rules of a call are charged in one script, by the server's clock, so that the clocks of replicas do not matter.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import ConnectionError as NoConnection

from docpreview_gateway.limits.gcra import Refusal
from docpreview_gateway.limits.ports import StoreUnavailableError
from docpreview_gateway.storage.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview_gateway.limits.gcra import Rule

PREFIX = "docpreview:1:{rates}:"
"""The braces put all keys into one slot of a cluster."""

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

log = structlog.get_logger("docpreview_gateway.limits")


class RedisRates:
    """The port `SharedRates` over `send`, which sends one command. A call takes at most `seconds`.

    After a few without an answer one a second tries, and the others hear at once that there is none.
    """

    def __init__(self, send: Callable[..., Awaitable[object]], *, seconds: float = 0.05) -> None:
        self._send = send
        self._seconds = seconds
        self._outage = Outage()

    async def take(self, rules: tuple[Rule, ...]) -> Refusal | None:
        """As the port says."""
        keys = [PREFIX + rule.key for rule in rules]
        numbers = [1e6 * number for rule in rules for number in (rule.interval, rule.tolerance)]
        return await self._ask(rules, "EVAL", _TAKE, len(keys), *keys, *numbers)

    async def _ask(self, rules: tuple[Rule, ...], *command: str | float) -> Refusal | None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        if not self._outage.admits(begun):
            raise StoreUnavailableError
        try:
            async with asyncio.timeout(self._seconds):
                refusal = _refusal(await self._send(*command), rules)
        except Exception as error:
            if self._outage.failed(begun, clock()):
                # The server's place is in the library's messages, its password is not.
                told = str(error) if isinstance(error, NoConnection) else type(error).__name__
                log.warning("limits are counted by this process alone", error=told)
            raise StoreUnavailableError from error
        if self._outage.answered(clock()):
            log.info("limits are shared again")
        return refusal


def _refusal(answer: Any, rules: tuple[Rule, ...]) -> Refusal | None:  # noqa: ANN401 - whatever the server says
    """ValueError, TypeError or IndexError when the script did not say this."""
    worst, microseconds = answer
    wait = int(microseconds) / 1e6
    return Refusal(rules[worst - 1], wait) if worst else None
