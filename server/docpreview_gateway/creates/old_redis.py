"""What versions before 2.0 have left in Redis or Valkey: read, and closed to those versions.

A list in place of their secret makes them fail with every create that they would record. It holds a notice, a name for
what they have left, the secret, encrypted with the deployment's own, until when their ids are looked up, and at last
that all was taken over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from docpreview_gateway.creates.imported import OldPages, OldStore, OldStoreError, old_create, old_reservation
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.storage.redis_client import RedisCallError, RedisClient, expect, script_command
from docpreview_gateway.storage.redis_keys import OLD_PREFIX

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

LEDGER, PAGES = f"{OLD_PREFIX}{{ledger}}:", f"{OLD_PREFIX}{{pages}}:"
SECRET = LEDGER + "secret"
NOTICE = b"replaced by version 2 of docpreview-gateway"
DONE = b"taken over"
STEP_SECONDS = 10.0
"""Time limit of one step of the reading."""

STEP = 1000
"""Keys that one step looks at; a shared server has others too."""

_LOOK = """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'list' then return {kind, redis.call('LRANGE', KEYS[1], 0, -1)} end
if kind == 'string' then return {kind, {redis.call('GET', KEYS[1])}} end
return {kind, {}}
"""
# A list that is there stays: another replica was first.
_CLOSE = f"""
if redis.call('TYPE', KEYS[1]).ok ~= 'list' then
  redis.call('DEL', KEYS[1])
  redis.call('RPUSH', KEYS[1], unpack(ARGV))
end
{_LOOK}
"""
_DONE = "if redis.call('LINDEX', KEYS[1], -1) ~= ARGV[1] then redis.call('RPUSH', KEYS[1], ARGV[1]) end return 1"
# A script, because a cluster has the keys of a slot, which the prefix names, at one of its servers.
_SCAN = """
local answer = redis.call('SCAN', ARGV[1], 'MATCH', KEYS[1] .. ARGV[2] .. '*', 'COUNT', ARGV[3])
local found = {}
for _, key in ipairs(answer[2]) do
  table.insert(found, {key, redis.call('HGETALL', key), redis.call('ZSCORE', KEYS[1] .. 'open',
    string.sub(key, #KEYS[1] + #ARGV[2] + 1)) and 1 or 0})
end
return {answer[1], found}
"""


class OldSecret(NamedTuple):
    """What stands in place of the secret: the `kind` of the key, and its value, or the items of the list."""

    kind: str
    items: list[bytes]

    @property
    def is_closed(self) -> bool:
        """Whether earlier versions are closed out."""
        return self.kind == "list" and self.items[:1] == [NOTICE]

    @property
    def is_done(self) -> bool:
        """Whether all was taken over."""
        return self.is_closed and self.items[-1] == DONE


class OldRedis:
    """The keys of earlier versions, over `send`, which sends one command. StoreError when the server cannot be used.

    A call takes at most `seconds`; `read`, which looks at all keys of the server, `STEP_SECONDS` for each step.
    """

    def __init__(self, send: Callable[..., Awaitable[object]], *, seconds: float = 1.0) -> None:
        self._redis = RedisClient(send, name="store of earlier versions", seconds=seconds)
        self._patient = RedisClient(send, name="store of earlier versions", seconds=max(seconds, STEP_SECONDS))

    async def look(self) -> OldSecret:
        """What stands in place of the secret."""
        return _secret(await self._run(_LOOK, SECRET))

    async def close(self, source: str, wrapped: bytes, until: float) -> OldSecret:
        """Close earlier versions out, unless that is done; what stands then."""
        return _secret(await self._run(_CLOSE, SECRET, NOTICE, source, wrapped, repr(until)))

    async def done(self) -> None:
        """Note that all was taken over."""
        await self._run(_DONE, SECRET, DONE)

    async def read(self) -> OldStore:
        """All that they have left. OldStoreError names what cannot be read."""
        found = OldStore([], [], [])
        for key, values, _ in await self._all(LEDGER, "create:"):
            found.creates.append(old_create(values, *_named(key)))
        for key, values, is_open in await self._all(PAGES, "reservation:"):
            found.reservations.append(old_reservation({**values, "open": is_open}, *_named(key)))
        for key, values, _ in await self._all(PAGES, "pages:"):
            period, _, caller = key.removeprefix(PAGES + "pages:").partition(":")
            try:
                found.pages.append(OldPages(caller, period, int(values.get("used", 0))))
            except ValueError:
                where, remedy = _named(key)
                raise OldStoreError(f"{where} cannot be taken over: not a number. {remedy}") from None
        return found

    async def _all(self, prefix: str, kind: str) -> list[tuple[str, dict[str, Any], bool]]:
        found, cursor = {}, "0"
        while True:
            answer = await self._run(_SCAN, prefix, cursor, kind, STEP, patient=True)
            cursor = expect(bytes, answer[0]).decode()
            for key, flat, is_open in answer[1]:
                # A key may come twice.
                found[key.decode()] = dict(_pairs(flat)), bool(is_open)
            if cursor == "0":
                return [(key, *found[key]) for key in sorted(found)]

    async def _run(self, script: str, key: str, *arguments: str | bytes | float, patient: bool = False) -> list[Any]:
        client = self._patient if patient else self._redis
        try:
            return await client.execute(*script_command(script, [key], *arguments), read=_listed)
        except RedisCallError as error:
            raise StoreError(f"shared_state: {error}") from error


def _listed(answer: object) -> list[Any]:
    """An answer of these scripts as a list."""
    return [answer] if isinstance(answer, int) else expect(list, answer)


def _secret(answer: list[Any]) -> OldSecret:
    kind, items = answer
    return OldSecret(kind.decode(), items)


def _pairs(flat: list[bytes]) -> Iterator[tuple[str, bytes]]:
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        yield name.decode(errors="replace"), value


def _named(key: str) -> tuple[str, str]:
    return f"shared_state: {key}", f"Delete it, and it is forgotten: redis-cli DEL '{key}'"
