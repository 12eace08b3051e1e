"""The ledger of creates in Redis or Valkey, for replicas that share it. Every change is one script, so it is atomic.

It is as durable as the server: what the server forgets (a restart without its append-only file, a failover to a replica
that lags behind, eviction) may be created a second time. `docs/configuration.md` says how to run it.

There is a hash for each create, `unfinished` with those that were sent and have no outcome (by the end of their lease),
and for each target the set of its creates without outcome. The braces put all keys into one slot of a cluster.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import RedisError

from docpreview_gateway.creates.ports import LedgerError
from docpreview_gateway.creates.records import Record, Stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

PREFIX = "docpreview:1:{ledger}:"
KEEP_LONGER = 3600
"""Seconds after its end when the server deletes a record: the end itself is judged by our clock, not the server's."""

BATCH = 100
"""Records that one look for unfinished ones reads at once."""

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


Answer = TypeVar("Answer")


class RedisLedger:
    """The port `RequestLedger` over `send`, which sends one command. A call takes at most `seconds`."""

    def __init__(self, send: Callable[..., Awaitable[object]], *, seconds: float = 1.0) -> None:
        self._send = send
        self._seconds = seconds

    async def secret(self) -> bytes:
        """As the port says."""
        # Never kept here: should the server lose its own, all replicas must go on with the same new one.
        return await self._run(bytes, _SECRET, secrets.token_bytes(32))

    async def begin(self, record: Record, now: float) -> Record:
        """As the port says."""
        found = await self._run(list, _BEGIN, now, record.key, record.target, *_flat(record))
        return _record(found) if found else record

    async def replace(self, old: Record, new: Record) -> bool:
        """As the port says."""
        return bool(await self._run(int, _REPLACE, old.key, old.owner, old.attempt, *_flat(new)))

    async def remove(self, record: Record) -> None:
        """As the port says."""
        await self._run(int, _REMOVE, record.key, record.owner, record.attempt, record.target)

    async def open(self, now: float) -> list[Record]:
        """As the port says."""
        records: list[Record] = []
        looked_at = BATCH
        begin = 0
        while looked_at == BATCH:
            match await self._run(list, _OPEN, now, begin, BATCH):
                case [int(looked_at), list(found)]:
                    records += [_record(each) for each in found]
                case _:
                    raise _other_kind()
            begin += BATCH
        return records

    async def find(self, key: str) -> Record | None:
        """As the port says."""
        found = await self._run(list, _FIND, key)
        return _record(found) if found else None

    async def others_open(self, record: Record) -> bool:
        """As the port says."""
        return bool(await self._run(int, _OTHERS_OPEN, record.target, record.key))

    async def _run(self, kind: type[Answer], script: str, *arguments: str | bytes | float) -> Answer:
        """Run a script. The text is sent each time: a server that was replaced does not know it yet.

        Whatever is no answer of the script is an error: taken for a yes, it would let a create leave unrecorded.
        """
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._send("EVAL", script, 1, PREFIX, *arguments)
        except (RedisError, OSError) as error:
            # TimeoutError is an OSError, and has no words of its own.
            raise LedgerError(f"shared_state: {str(error) or 'no answer in time'}") from error
        if not isinstance(answer, kind):
            raise _other_kind()
        return answer


def _other_kind() -> LedgerError:
    return LedgerError("shared_state: the server's answer is none of a ledger")


def _flat(record: Record) -> Iterator[str | bytes]:
    """Names and values in turn."""
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
