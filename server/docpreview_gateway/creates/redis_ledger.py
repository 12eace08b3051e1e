"""The ledger of creates in Redis or Valkey, shared by replicas. Every change is one script, so it is atomic.

It is as durable as the server. A create whose record is lost (by a restart without an append-only file, a failover to a
replica that lags behind, or eviction) may be sent a second time. `docs/configuration.md` says how to run the server.

Keys: a hash for each create; the sorted set `unfinished` of creates that were sent and have no outcome, by the end of
their lease; for each target the set of its creates without outcome.
"""

from __future__ import annotations

import secrets
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from docpreview_gateway.creates.ports import LedgerError
from docpreview_gateway.creates.records import Record, Stage
from docpreview_gateway.storage.redis_client import RedisCallError, RedisClient, expect, script_command
from docpreview_gateway.storage.redis_keys import slot_prefix

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

PREFIX = slot_prefix("ledger")
KEEP_LONGER = 3600
"""Seconds between a record's end, which the gateway's clock decides, and its deletion by the server."""

BATCH = 100
"""Most unfinished records that one command reads."""

_NAMES = [field.name for field in fields(Record)]
_TYPES = {field.name: field.type for field in fields(Record)}
_READERS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "str": bytes.decode,
    "int": int,
    "float": float,
    "Stage": lambda value: Stage(value.decode()),
}
_LUA = f"""
local prefix = '{PREFIX}'
local unfinished = prefix .. 'unfinished'
local function create(key) return prefix .. 'create:' .. key end
local function target(name) return prefix .. 'target:' .. name end
local function is_owned(key, owner, attempt)
  local found = redis.call('HMGET', create(key), 'owner', 'attempt')
  return found[1] == owner and found[2] == attempt
end
local function forget(key, name)
  redis.call('DEL', create(key))
  redis.call('ZREM', unfinished, key)
  redis.call('SREM', target(name), key)
end
-- HSET is the first write: a server that is full refuses it, and would not refuse it after any other.
local function keep(record)
  local new = {{}}
  for i = 1, #record, 2 do new[record[i]] = record[i + 1] end
  local gone_at = string.format('%.0f', (tonumber(new.expires_at) + {KEEP_LONGER}) * 1000)
  redis.call('HSET', create(new.key), unpack(record))
  redis.call('PEXPIREAT', create(new.key), gone_at)
  if new.stage == '{Stage.SENT}' or new.stage == '{Stage.UNKNOWN}' then
    redis.call('ZADD', unfinished, new.lease_until, new.key)
  else
    redis.call('ZREM', unfinished, new.key)
  end
  if new.stage == '{Stage.ACCEPTED}' then
    redis.call('SREM', target(new.target), new.key)
  else
    redis.call('SADD', target(new.target), new.key)
    redis.call('PEXPIREAT', target(new.target), gone_at)
  end
end
"""
_SECRET = f"redis.call('SET', '{PREFIX}secret', ARGV[1], 'NX') return redis.call('GET', '{PREFIX}secret')"
_BEGIN = f"""{_LUA}
local now, key, name = ARGV[1], ARGV[2], ARGV[3]
local ends = redis.call('HGET', create(key), 'expires_at')
if ends and tonumber(ends) > tonumber(now) then return redis.call('HGETALL', create(key)) end
if ends then forget(key, name) end
keep({{unpack(ARGV, 4)}})
return {{}}
"""
_REPLACE = f"""{_LUA}
if not is_owned(ARGV[1], ARGV[2], ARGV[3]) then return 0 end
keep({{unpack(ARGV, 4)}})
return 1
"""
_REMOVE = f"""{_LUA}
if is_owned(ARGV[1], ARGV[2], ARGV[3]) then forget(ARGV[1], ARGV[4]) end
return 0
"""
_OPEN = f"""{_LUA}
local keys = redis.call('ZRANGEBYSCORE', unfinished, '-inf', ARGV[1], 'LIMIT', ARGV[2], ARGV[3])
local found = {{}}
for _, key in ipairs(keys) do
  local record = redis.call('HGETALL', create(key))
  if #record == 0 then redis.call('ZREM', unfinished, key) else table.insert(found, record) end
end
return {{#keys, found}}
"""
_FIND = f"{_LUA} return redis.call('HGETALL', create(ARGV[1]))"
_OTHERS_OPEN = f"""{_LUA}
for _, key in ipairs(redis.call('SMEMBERS', target(ARGV[1]))) do
  if key ~= ARGV[2] then
    if redis.call('EXISTS', create(key)) == 1 then return 1 end
    redis.call('SREM', target(ARGV[1]), key)
  end
end
return 0
"""


Result = TypeVar("Result")


class RedisLedger:
    """The port `RequestLedger` over `send`, which sends one command. A call takes at most `seconds`."""

    def __init__(self, send: Callable[..., Awaitable[object]], *, seconds: float = 1.0) -> None:
        self._redis = RedisClient(send, name="ledger", seconds=seconds)

    async def secret(self) -> bytes:
        """The ledger's random key, made when it is first asked for."""
        # Not cached here: if the server loses it, all replicas must go on with the same new one.
        return await self._run(partial(expect, bytes), _SECRET, secrets.token_bytes(32))

    async def begin(self, record: Record, now: float) -> Record:
        """Commit a record unless its key has an unexpired one; the record that stands."""
        found = await self._run(partial(expect, list), _BEGIN, now, record.key, record.target, *_flat(record))
        return _record(found) if found else record

    async def replace(self, old: Record, new: Record) -> bool:
        """Commit `new` if owner and attempt of `old` still stand; whether they did."""
        return bool(await self._run(_integer, _REPLACE, old.key, old.owner, old.attempt, *_flat(new)))

    async def remove(self, record: Record) -> None:
        """Delete a record if its owner and attempt still stand."""
        await self._run(_integer, _REMOVE, record.key, record.owner, record.attempt, record.target)

    async def open(self, now: float) -> list[Record]:
        """Records that were sent, have no outcome, and whose lease has ended."""
        records: list[Record] = []
        begin, count = 0, BATCH
        while count == BATCH:
            count, found = await self._run(_batch, _OPEN, now, begin, BATCH)
            records += [_record(each) for each in found]
            begin += BATCH
        return records

    async def find(self, key: str) -> Record | None:
        """The record of a key, if there is one."""
        found = await self._run(partial(expect, list), _FIND, key)
        return _record(found) if found else None

    async def others_open(self, record: Record) -> bool:
        """Whether another create of the same target has no outcome."""
        return bool(await self._run(_integer, _OTHERS_OPEN, record.target, record.key))

    async def _run(self, read: Callable[[Any], Result], script: str, *arguments: str | bytes | float) -> Result:
        """Run a script and `read` its answer. An unexpected answer is an error, never the record of a create."""
        try:
            return await self._redis.execute(*script_command(script, [PREFIX], *arguments), read=read)
        except RedisCallError as error:
            raise LedgerError(f"shared_state: {error}") from error


_integer = partial(expect, int)


def _batch(answer: Any) -> tuple[int, list[Any]]:  # noqa: ANN401 - the server's answer
    count, found = answer
    return expect(int, count), expect(list, found)


def _flat(record: Record) -> Iterator[str | bytes]:
    """Names and values of a record, alternating."""
    for name in _NAMES:
        value = getattr(record, name)
        yield name
        yield value if isinstance(value, bytes) else str(value)


def _record(flat: list[bytes]) -> Record:
    try:
        found = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
        return Record(**{name: _READERS[str(_TYPES[name])](found[name]) for name in _NAMES})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LedgerError("shared_state: a record that this version cannot read") from error
