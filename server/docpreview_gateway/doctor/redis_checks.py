"""Checks of the Redis or Valkey servers of shared state: reach, password, TLS, rights, clock, other namespaces.

Keys of the deployment's namespace are written and deleted; nothing else is changed. Imported only with shared state.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis import exceptions
from redis.asyncio.sentinel import MasterNotFoundError

from docpreview_gateway.doctor.diagnosis import Finding, clock_words
from docpreview_gateway.doctor.redis_faults import ACL, FULL, REPLICA, fault
from docpreview_gateway.storage import redis_urls
from docpreview_gateway.storage.redis_client import RedisCallError, RedisClient, Script, expect, script_command, words
from docpreview_gateway.storage.redis_connections import redis_commands, redis_messages
from docpreview_gateway.storage.redis_keys import PREFIX, prefix, slot_prefix
from docpreview_gateway.storage.redis_urls import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview_gateway.model.call import Clock

SECONDS = 5.0
"""Time limit of each question, longer than any of `shared_state`: a slow answer is still an answer."""

SLOW_CLOCK_SECONDS = 5.0
KEYS_LOOKED_AT = 20_000

_NEEDED = Script("""
local wrong = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then wrong[#wrong + 1] = ({...})[1] .. ': ' .. answer.err end
end
local key, hash, sorted, list, set = unpack(KEYS)
try('SET', key, '1', 'PX', 1000) try('GET', key) try('PTTL', key) try('PEXPIRE', key, 1000) try('TYPE', key)
try('HSET', hash, 'a', '1') try('HGET', hash, 'a') try('HMGET', hash, 'a') try('HGETALL', hash) try('HLEN', hash)
try('HEXISTS', hash, 'a') try('HSCAN', hash, '0') try('HDEL', hash, 'a') try('HSETNX', hash, 'b', '1')
try('HINCRBY', hash, 'b', 1) try('ZADD', sorted, 1, 'a') try('ZCARD', sorted)
try('ZSCORE', sorted, 'a') try('ZRANGE', sorted, 0, 1)
try('ZRANGEBYSCORE', sorted, 0, 1) try('ZREM', sorted, 'a')
try('RPUSH', list, 'a') try('LRANGE', list, 0, 1) try('LINDEX', list, 0)
try('SADD', set, 'a') try('SMEMBERS', set) try('TIME')
if ARGV[1] ~= '' then try('PUBLISH', ARGV[1], '') end
for _, each in ipairs(KEYS) do try('DEL', each) end
return wrong
""")
"""Every command that the gateway's scripts use; `tests/integration/test_doctor_redis.py` compares."""


async def redis_findings(name: str, url: str, namespace: str, *, has_channels: bool, clock: Clock) -> list[Finding]:
    """Findings on the server that `shared_state.<name>` names. With `has_channels` replicas send messages by it."""
    where = f"shared_state.{name} {shown(url)}"
    async with redis_commands(url) as send:
        client = RedisClient(send, name=where, seconds=SECONDS)
        try:
            await client.execute("PING", read=lambda answer: answer)
        except RedisCallError as error:
            return [Finding("redis", where, *(await _of_sentinels(error, url) or fault(error, url)))]
        found = [
            Finding(
                "redis", where, f"answers{' over TLS' * url.startswith('rediss')}, and accepts the password or none"
            )
        ]
        try:
            found.append(await _rights(where, client, url, namespace, has_channels=has_channels))
            found.append(await _clock(where, client, namespace, clock))
        except RedisCallError as error:
            return [*found, Finding("redis", where, *fault(error, url))]
        return [*found, *await _namespaces(where, send, namespace)]


async def _of_sentinels(error: RedisCallError, url: str) -> tuple[str, str] | None:
    """What is wrong with the first Sentinel when none can be asked, and what to do. The library does not say it."""
    if not isinstance(error.__cause__, MasterNotFoundError):
        return None
    found = []
    for place, sentinel in redis_urls.sentinels(redis_urls.parse(url)):
        async with redis_commands(sentinel) as send:
            try:
                await RedisClient(send, name=place, seconds=SECONDS).execute("PING", read=lambda answer: answer)
            except RedisCallError as of_one:
                if isinstance(of_one.__cause__, exceptions.AuthenticationError):
                    return None
                what, todo = fault(of_one, sentinel)
                found.append((f"{error}: {place}: {what}", todo))
            else:
                return None
    return found[0]


def _texts(answer: object) -> list[str]:
    return [expect(bytes, each).decode(errors="replace") for each in expect(list, answer)]


async def _rights(where: str, client: RedisClient, url: str, namespace: str, *, has_channels: bool) -> Finding:
    keys = [f"{slot_prefix(namespace)}doctor:{number}" for number in range(5)]
    channel = f"{prefix(namespace)}doctor" if has_channels else ""
    found = await client.run(_NEEDED, keys, channel, read=_texts)
    if channel:
        found += await _subscription(url, channel)
    if not found:
        return Finding("redis", where, f"the user may do all that is needed in the namespace {namespace}")
    # The first is enough: a user without a right mostly lacks several.
    what = f"{len(found)} of the commands that are needed fail, such as {found[0][:200]}"
    if any("OOM" in each for each in found):
        return Finding("redis", where, what, FULL)
    if any("READONLY" in each for each in found):
        return Finding("redis", where, what, REPLICA)
    return Finding("redis", where, what, ACL)


async def _subscription(url: str, channel: str) -> list[str]:
    try:
        async with asyncio.timeout(SECONDS), redis_messages(url, channel):
            return []
    except TimeoutError:
        return ["SUBSCRIBE: no answer in time"]
    except (exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
        return [f"SUBSCRIBE: {words(error)}"]


async def _clock(where: str, client: RedisClient, namespace: str, clock: Clock) -> Finding:
    """The server's clock. In a script, which goes to the server that holds the keys, whichever of a cluster it is."""
    script = "local now = redis.call('TIME') return now[1] .. '.' .. string.format('%06d', now[2])"
    seconds = await client.execute(*script_command(script, [f"{slot_prefix(namespace)}doctor"]), read=float)
    ahead = seconds - clock.now()
    todo = "set both clocks by NTP" if abs(ahead) > SLOW_CLOCK_SECONDS else ""
    return Finding("redis", where, "its clock " + clock_words(ahead, "this machine's"), todo)


async def _namespaces(where: str, send: Callable[..., Awaitable[object]], namespace: str) -> list[Finding]:
    """Other namespaces with records, when this one has none: it may be misspelt."""
    try:
        async with asyncio.timeout(SECONDS):
            names = await _named(send)
    except (exceptions.RedisError, exceptions.RedisClusterException, OSError, TypeError, ValueError):
        return []  # the user may not SCAN, which the gateway needs not do
    if namespace in names or not names:
        return []
    what = f"the namespace {namespace} has no records, and the server has those of {', '.join(sorted(names)[:5])}"
    todo = "correct shared_state.namespace, unless this is a new deployment that shares the server"
    return [Finding("redis", where, what, todo, is_warning=True)]


async def _named(send: Callable[..., Awaitable[object]]) -> set[str]:
    names, cursor, looked = set(), "0", 0
    while looked < KEYS_LOOKED_AT:
        answer: Any = await send("SCAN", cursor, "MATCH", f"{PREFIX}{{*}}:c", "COUNT", 1000)
        cursor, keys = answer[0], answer[1]
        names |= {bytes(key).decode().removeprefix(PREFIX + "{").removesuffix("}:c") for key in keys}
        looked += 1000
        if str(cursor if isinstance(cursor, int) else bytes(cursor).decode()) == "0":
            break
    return names
