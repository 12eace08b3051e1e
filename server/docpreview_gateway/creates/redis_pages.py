"""The page quota store in Redis or Valkey, shared by replicas. Every change is one script, so it is atomic.

Keys: a hash for each reservation; the sorted set `open` of reservations that are not charged, by the time of their next
check; for each caller and period a hash of its pages.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

from docpreview_gateway.creates.pages import (
    CLAIM_SIZE,
    RETENTION_SECONDS,
    PageCount,
    Pages,
    Reservation,
    ReservationResult,
)
from docpreview_gateway.creates.ports import PageQuotaStoreError
from docpreview_gateway.storage.redis_client import RedisCallError, RedisClient, expect, script_command
from docpreview_gateway.storage.redis_keys import slot_prefix

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview_gateway.creates.pages import Outcome, Periods
    from docpreview_gateway.model.callers import PageBudget

PREFIX = slot_prefix("pages")
KEEP_PAGES_SECONDS = 70 * 86400
"""How long the pages of a caller and period are kept after their last change: longer than a month and its jobs."""

_OUTCOMES: dict[bytes, Outcome] = {b"new": "new", b"known": "known", b"day": "day", b"month": "month"}
_NAMES = [field.name for field in fields(Reservation)]
_LUA = f"""
local prefix = '{PREFIX}'
local open = prefix .. 'open'
local function entry(id) return prefix .. 'reservation:' .. id end
local function pages(caller, period) return prefix .. 'pages:' .. period .. ':' .. caller end
local function count(caller, period)
  local found = redis.call('HMGET', pages(caller, period), 'used', 'reserved')
  return tonumber(found[1] or 0), tonumber(found[2] or 0)
end
local function add(caller, period, used, reserved)
  redis.call('HINCRBY', pages(caller, period), 'used', used)
  redis.call('HINCRBY', pages(caller, period), 'reserved', reserved)
  redis.call('EXPIRE', pages(caller, period), {KEEP_PAGES_SECONDS})
end
local function counts(caller, day, month)
  local day_used, day_reserved = count(caller, day)
  local month_used, month_reserved = count(caller, month)
  return {{day_used, day_reserved, month_used, month_reserved}}
end
"""
# A bound of -1 is none. The month is judged first, as in `creates.pages.refusing`.
_RESERVE = f"""{_LUA}
local per_day, per_month, look_at = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local new = {{}}
for i = 4, #ARGV, 2 do new[ARGV[i]] = ARGV[i + 1] end
local now = counts(new.caller, new.day, new.month)
if redis.call('EXISTS', entry(new.id)) == 1 then return {{'known', unpack(now)}} end
if per_month >= 0 and now[3] + now[4] + new.pages > per_month then return {{'month', unpack(now)}} end
if per_day >= 0 and now[1] + now[2] + new.pages > per_day then return {{'day', unpack(now)}} end
redis.call('HSET', entry(new.id), unpack(ARGV, 4))
redis.call('ZADD', open, look_at, new.id)
add(new.caller, new.day, 0, new.pages)
add(new.caller, new.month, 0, new.pages)
return {{'new', unpack(counts(new.caller, new.day, new.month))}}
"""
_BIND = f"""{_LUA}
local id, job_id, look_at = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', entry(id)) == 0 then return 0 end
redis.call('HSET', entry(id), 'job_id', job_id)
redis.call('ZADD', open, 'XX', look_at, id)
return 1
"""
_CLOSE = f"""{_LUA}
local id, made = ARGV[1], ARGV[2]
if not redis.call('ZSCORE', open, id) then return 0 end
redis.call('ZREM', open, id)
local found = redis.call('HMGET', entry(id), 'caller', 'day', 'month', 'pages')
if not found[1] then return 0 end
if made == '' then redis.call('DEL', entry(id)) else redis.call('EXPIRE', entry(id), {RETENTION_SECONDS}) end
local used = made == '' and 0 or made
add(found[1], found[2], used, -found[4])
add(found[1], found[3], used, -found[4])
return 1
"""
_CLAIM = f"""{_LUA}
local found = {{}}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', ARGV[1], 'LIMIT', 0, {CLAIM_SIZE})) do
  if redis.call('EXISTS', entry(id)) == 0 then
    redis.call('ZREM', open, id)
  else
    redis.call('ZADD', open, ARGV[2], id)
    table.insert(found, redis.call('HMGET', entry(id), {", ".join(f"'{name}'" for name in _NAMES)}))
  end
end
return found
"""
_COUNT = f"{_LUA} return counts(ARGV[1], ARGV[2], ARGV[3])"


Result = TypeVar("Result")


class RedisPages:
    """The port `PageQuotaStore` over `send`, which sends one command. A call takes at most `seconds`."""

    def __init__(self, send: Callable[..., Awaitable[object]], *, seconds: float = 1.0) -> None:
        self._redis = RedisClient(send, name="page quota store", seconds=seconds)

    async def reserve(self, wanted: Reservation, budget: PageBudget | None, due_at: float) -> ReservationResult:
        """Reserve pages, unless the reservation is known or the budget has no room."""
        flat = [str(part) for pair in asdict(wanted).items() for part in pair]
        per_day, per_month = (None, None) if budget is None else (budget.per_day, budget.per_month)
        limits = [-1 if bound is None else bound for bound in (per_day, per_month)]
        return await self._run(_result, _RESERVE, *limits, due_at, *flat)

    async def bind(self, reservation: str, job_id: str, due_at: float) -> bool:
        """Record the job of a reservation and the time of its next check; whether the reservation exists."""
        return bool(await self._run(_integer, _BIND, reservation, job_id, due_at))

    async def charge(self, reservation: str, pages: int) -> None:
        """Charge the pages that were made, once."""
        await self._run(_integer, _CLOSE, reservation, pages)

    async def release(self, reservation: str) -> None:
        """Delete a reservation that is not charged."""
        await self._run(_integer, _CLOSE, reservation, "")

    async def claim(self, now: float, until: float) -> list[Reservation]:
        """Some open reservations that are due, for this process alone until `until`."""
        return await self._run(_reservations, _CLAIM, now, until)

    async def count(self, caller: str, periods: Periods) -> PageCount:
        """A caller's pages of these periods."""
        return await self._run(_counts, _COUNT, caller, *periods)

    async def _run(self, read: Callable[[Any], Result], script: str, *arguments: str | float) -> Result:
        try:
            return await self._redis.execute(*script_command(script, [PREFIX], *arguments), read=read)
        except RedisCallError as error:
            raise PageQuotaStoreError(f"shared_state: {error}") from error


def _result(answer: list[Any]) -> ReservationResult:
    outcome, *numbers = answer
    return ReservationResult(_OUTCOMES[outcome], _counts(numbers))


def _counts(numbers: list[Any]) -> PageCount:
    day_used, day_reserved, month_used, month_reserved = map(_integer, numbers)
    return PageCount(Pages(day_used, day_reserved), Pages(month_used, month_reserved))


def _integer(answer: object) -> int:
    return expect(int, answer)


def _reservations(answer: list[list[bytes]]) -> list[Reservation]:
    return [_reservation(values) for values in answer]


def _reservation(values: list[bytes]) -> Reservation:
    found: dict[str, Any] = {name: value.decode() for name, value in zip(_NAMES, values, strict=True)}
    return Reservation(**{**found, "pages": int(found["pages"]), "made_at": float(found["made_at"])})
