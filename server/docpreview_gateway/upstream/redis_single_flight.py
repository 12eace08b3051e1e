"""Reads that replicas share through Redis or Valkey: a cache, a lease for each read, and messages to followers.

One script looks into the cache and takes the lease. A replica that finds it taken registers its reply channel in the
same script, so it cannot miss the result: the script that ends the lease stores the result and sends it to the channels
that are registered. Losing the server costs hits, calls to the cloud and a few short waits, no answers.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar, get_args

import structlog
from redis.exceptions import RedisError

from docpreview_gateway.storage.background import BackgroundTasks
from docpreview_gateway.storage.redis_client import RedisCallError, RedisSkippedError, Script, expect
from docpreview_gateway.storage.redis_keys import prefix
from docpreview_gateway.upstream.policies.cache_entries import FRESH_IN_LUA, NEWER_IN_LUA
from docpreview_gateway.upstream.ports import Role, Turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager

    from docpreview_gateway.storage.redis_client import RedisClient
    from docpreview_gateway.upstream.ports import UpstreamTelemetry

LEASE_SECONDS = 0.5
"""Time after which another replica may lead a read whose leader was lost. A leader renews its lease while it reads."""

RENEW_SECONDS = LEASE_SECONDS / 3
WAIT_SECONDS = 2 * LEASE_SECONDS
RECONNECT_SECONDS = 0.5
"""Pause before subscribing again after a lost connection."""

_CAME = "+"
"""After the name of a replica: what it says is that a callback has come."""


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


_REGISTER = """
local function register(waiting, replica, milliseconds)
  redis.call('SADD', waiting, replica)
  if redis.call('PTTL', waiting) < tonumber(milliseconds) then redis.call('PEXPIRE', waiting, milliseconds) end
end
"""
# KEYS: lease, reply channels of followers, cached envelope. ARGV: the time, or nothing with `no_cache`; the replica, or
# nothing while it does not hear others. A replica that holds the lease already leads again: the answer to its earlier
# look came too late, and no read of that look will end the lease.
_TURN = Script(f"""{_REGISTER}{FRESH_IN_LUA}
local cached = ARGV[1] ~= '' and redis.call('GET', KEYS[3]) or ''
if is_fresh(cached, tonumber(ARGV[1])) then return {{'found', cached}} end
if ARGV[2] == '' then return {{'alone', cached}} end
local owner = redis.call('GET', KEYS[1])
if not owner or owner == ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', {_milliseconds(LEASE_SECONDS)})
  return {{'leader', cached}}
end
register(KEYS[2], ARGV[2], {_milliseconds(WAIT_SECONDS)})
return {{'follower', cached}}
""")
_ASK = Script(f"{_REGISTER} register(KEYS[2], ARGV[1], ARGV[2]) return 1")
_RENEW = Script(f"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], {_milliseconds(LEASE_SECONDS)})
""")
# A leader whose lease has passed to another replica leaves nothing: the other one's result is newer. One whose lease
# has merely ended, because its process stood still, leaves what it has read unless there is something newer.
_END = Script(f"""{NEWER_IN_LUA}
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
if not owner and is_newer(redis.call('GET', KEYS[3]), ARGV[4]) then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[5] ~= '0' then redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[5]) end
local waiting = redis.call('SMEMBERS', KEYS[2])
redis.call('DEL', KEYS[2])
for _, replica in ipairs(waiting) do redis.call('PUBLISH', ARGV[2] .. replica, ARGV[3] .. ARGV[4]) end
return #waiting
""")

_ALONE = Turn("alone")
_ROLES = {role.encode(): role for role in get_args(Role)}

Result = TypeVar("Result")

log = structlog.get_logger("docpreview_gateway.single_flight")


class RedisSingleFlight:
    """The ports `SingleFlight` and `SharedCache` of a deployment. It raises nothing but CancelledError."""

    def __init__(self, redis: RedisClient, namespace: str, telemetry: UpstreamTelemetry) -> None:
        self._redis = redis
        self._telemetry = telemetry
        self._prefix = prefix(namespace)
        self._created = self._prefix + "created"
        self._called_back = self._prefix + "called-back"
        self._reply_channel = self._prefix + "inbox:"
        self._replica = secrets.token_hex(8)
        self.is_listening = False
        """Whether what other replicas publish is heard."""
        self._subscriptions: dict[str, set[_Subscription]] = {}
        self._renewals: dict[str, asyncio.TimerHandle] = {}
        self._background = BackgroundTasks()

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels whose messages `listen` needs: this replica's own, that of creates, and that of callbacks."""
        return self._reply_channel + self._replica, self._created, self._called_back

    @contextmanager
    def subscribe(self, key: str) -> Iterator[_Subscription]:
        """Receive the results that are published for a key while the context is open."""
        subscription = _Subscription()
        subscriptions = self._subscriptions.setdefault(key, set())
        subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            subscriptions.discard(subscription)
            if not subscriptions and self._subscriptions.get(key) is subscriptions:
                del self._subscriptions[key]

    async def get(self, key: str) -> bytes | None:
        """The envelope that a replica stored, until it expires. None also without an answer."""
        return await self._looked_up(self._redis.execute("GET", self._keys(key)[2], read=_bytes_or_none))

    async def store(self, key: str, envelope: bytes, seconds: float) -> None:
        """Store an envelope. Skipped after a command that failed: no read waits for two of them."""
        if seconds <= 0:
            return
        if self._redis.is_failing:
            self._telemetry.cache_lookup("shared", "skipped")
            return
        command = "SET", self._keys(key)[2], envelope, "PX", _milliseconds(seconds)
        await self._looked_up(self._redis.execute(*command, read=_unchanged))

    async def turn(self, key: str, now: float, *, no_cache: bool, spent: float = 0.0) -> Turn:
        """Look into the cache, and take the lease or register as a follower; the latter only while subscribed."""
        if no_cache and not self.is_listening:
            return _ALONE
        if self._redis.failed_lately:
            # As `store`: a server that answers late would else keep each read waiting.
            self._telemetry.cache_lookup("shared", "skipped")
            return _ALONE
        arguments = "" if no_cache else repr(now), self._replica if self.is_listening else ""
        try:
            turn = await self._looked_up(self._redis.run(_TURN, self._keys(key), *arguments, read=_turn, spent=spent))
        except asyncio.CancelledError:
            self._in_background(self._give_back(key))
            raise
        if turn is None:
            if self._redis.failed_lately:  # else nothing was sent
                self._in_background(self._give_back(key))
            return _ALONE
        if turn.role == "leader":
            self._renew_later(key)
        return turn

    def end(self, key: str, envelope: bytes, seconds: float) -> None:
        """End a lease, store the result and publish it to the followers, in the background."""
        self._stop_renewing(key)
        milliseconds = _milliseconds(seconds) if seconds > 0 else 0
        arguments = self._replica, self._reply_channel, f"{key}\n", envelope, milliseconds
        self._in_background(self._run(_END, key, *arguments))

    async def _give_back(self, key: str) -> None:
        """End the lease that the server may have given with an answer that nobody has read, also after a failure."""
        with suppress(RedisCallError):
            arguments = self._replica, self._reply_channel, f"{key}\n", b"", 0
            await self._redis.run(_END, self._keys(key), *arguments, read=_unchanged, failure_counts=False)

    async def ask(self, key: str, seconds: float) -> bool:
        """Register as a follower of any read of the key that ends within these seconds; whether that succeeded."""
        if not self.is_listening:
            return False
        return await self._run(_ASK, key, self._replica, _milliseconds(seconds))

    def created(self, bucket: str) -> None:
        """Publish to the other replicas, in the background, that a job was created in the bucket."""
        self._in_background(self._published(self._created, f"{self._replica}\n{bucket}"))

    def called_back(self, bucket: str, job_id: str, queue_id: str) -> None:
        """Publish to the other replicas, in the background, that a callback has told of the end of a job."""
        told = f"{self._replica}{_CAME}\n{bucket}\n{job_id}\n{queue_id}"
        self._in_background(self._published(self._called_back, told))

    async def listen(
        self,
        messages: Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]],
        on_created: Callable[[str], None],
        on_called_back: Callable[[str, str, str], None] = lambda _bucket, _job_id, _queue_id: None,
    ) -> None:
        """Deliver the messages of `channels` to subscriptions until cancelled. A lost connection is made again.

        `on_created` is called with each bucket in which another replica created a job, `on_called_back` with the
        bucket, the job and its queue of which a callback has told another replica.
        """
        while True:
            try:
                async with messages() as received:
                    self.is_listening = True
                    async for message in received:
                        self._receive(message, on_created, on_called_back)
            except (RedisError, OSError) as error:
                log.debug("subscription to other replicas lost", error=type(error).__name__)
            finally:
                self.is_listening = False
                # The results that they wait for may have been missed.
                for subscription in [each for every in self._subscriptions.values() for each in every]:
                    subscription.receive(b"")
            await asyncio.sleep(RECONNECT_SECONDS)

    async def close(self) -> None:
        """Stop renewing leases, and finish what is still being published."""
        for renewal in self._renewals.values():
            renewal.cancel()
        await self._background.drain()

    def _receive(
        self, message: bytes, on_created: Callable[[str], None], on_called_back: Callable[[str, str, str], None]
    ) -> None:
        head, _, value = message.partition(b"\n")
        name = head.decode(errors="replace")
        if name in self._subscriptions:
            self._deliver(name, value)
        elif self._is_other_replica(name):
            on_created(value.decode(errors="replace"))
        elif name.endswith(_CAME) and self._is_other_replica(name.removesuffix(_CAME)):
            bucket, job_id, queue_id, *_ = [*value.decode(errors="replace").split("\n"), "", ""]
            on_called_back(bucket, job_id, queue_id)

    def _deliver(self, key: str, value: bytes) -> None:
        for subscription in self._subscriptions.get(key, ()):
            subscription.receive(value)

    def _is_other_replica(self, name: str) -> bool:
        """Whether a message's head is the name of another replica. Else it may be a read without subscriptions."""
        return len(name) == len(self._replica) and name != self._replica

    def _renew_later(self, key: str) -> None:
        def renew() -> None:
            self._renew_later(key)
            self._in_background(self._run(_RENEW, key, self._replica))

        self._stop_renewing(key)
        self._renewals[key] = asyncio.get_running_loop().call_later(RENEW_SECONDS, renew)

    def _stop_renewing(self, key: str) -> None:
        if (renewal := self._renewals.pop(key, None)) is not None:
            renewal.cancel()

    def _keys(self, key: str) -> tuple[str, str, str]:
        """Names of a key's lease, of its followers, and of the cached envelope.

        The braces put them into one slot of a cluster. docs/replicas.md has the names, and those of earlier versions.
        """
        return f"{self._prefix}{{{key}}}:lease", f"{self._prefix}{{{key}}}:followers", f"{self._prefix}{{{key}}}:cached"

    async def _looked_up(self, answer: Awaitable[Result]) -> Result | None:
        """The answer to a command of the cache, None without one; that is counted."""
        try:
            return await answer
        except RedisSkippedError:
            self._telemetry.cache_lookup("shared", "skipped")
        except RedisCallError:
            self._telemetry.cache_lookup("shared", "error")
        return None

    async def _run(self, script: Script, key: str, *arguments: str | bytes | int) -> bool:
        return await self._tried(lambda: self._redis.run(script, self._keys(key), *arguments, read=_unchanged))

    async def _published(self, channel: str, message: str) -> None:
        await self._tried(lambda: self._redis.execute("PUBLISH", channel, message, read=_unchanged))

    async def _tried(self, command: Callable[[], Awaitable[object]]) -> bool:
        """Have a command executed if possible, unless one has failed just now; whether it was."""
        if self._redis.failed_lately:
            return False
        try:
            await command()
        except RedisCallError:
            return False
        return True

    def _in_background(self, work: Coroutine[None, None, object]) -> None:
        _ = self._background.start(work, "single-flight")


class _Subscription:
    """The port `Subscription`."""

    def __init__(self) -> None:
        self._latest: bytes | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def next(self, seconds: float) -> bytes | None:
        """The latest result, as soon as there is one, or None after these seconds."""
        if self._latest is None:
            # Most reads wait for no other, and need no future.
            self._waiting = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._waiting,), timeout=seconds)
        value, self._latest = self._latest, None
        return value

    def receive(self, value: bytes) -> None:
        """Deliver a result. It replaces an earlier one that was not taken."""
        self._latest = value
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


def _unchanged(answer: object) -> object:
    return answer


def _bytes_or_none(answer: object) -> bytes | None:
    return answer if isinstance(answer, bytes) else None


def _turn(answer: list[bytes]) -> Turn:
    role, envelope = answer
    return Turn(_ROLES[role], expect(bytes, envelope) or None)
