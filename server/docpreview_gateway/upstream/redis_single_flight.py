"""Single-flight reads of several replicas, through Redis or Valkey: a lease for each read, and messages to followers.

A replica that finds the lease taken registers its reply channel in the same script, so it cannot miss the result: the
leader reads the registered channels in the script that ends its lease. Losing the server costs calls to the cloud, no
answers.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from docpreview_gateway.storage.background import BackgroundTasks
from docpreview_gateway.storage.redis_client import RedisCallError, script_command
from docpreview_gateway.storage.redis_keys import prefix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager

    from docpreview_gateway.storage.redis_client import RedisClient

LEASE_SECONDS = 0.5
"""Time after which another replica may lead a read whose leader was lost. A leader renews its lease while it reads."""

RENEW_SECONDS = LEASE_SECONDS / 3
WAIT_SECONDS = 2 * LEASE_SECONDS
RESULT_TTL_SECONDS = 0.1
"""Time for which a result answers replicas that ask just after it was published."""

RECONNECT_SECONDS = 0.5
"""Pause before subscribing again after a lost connection."""

_CAME = "+"
"""After the name of a replica: what it says is that a callback has come."""

_REGISTER = """
local function register(waiting, replica, milliseconds)
  redis.call('SADD', waiting, replica)
  if redis.call('PTTL', waiting) < tonumber(milliseconds) then redis.call('PEXPIRE', waiting, milliseconds) end
end
"""
_LEAD = f"""{_REGISTER}
local held = redis.call('GET', KEYS[1])
local has_result = held and string.sub(held, 1, 1) == '='
if has_result and ARGV[4] == '0' then return string.sub(held, 2) end
if has_result or not held then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
register(KEYS[2], ARGV[1], ARGV[3])
return 0
"""
_ASK = f"{_REGISTER} register(KEYS[2], ARGV[1], ARGV[2]) return 1"
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
# A leader whose lease has passed to another replica publishes nothing: the other one's result is newer.
_PUBLISH = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[4] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], '=' .. ARGV[4], 'PX', ARGV[5])
end
local waiting = redis.call('SMEMBERS', KEYS[2])
redis.call('DEL', KEYS[2])
for _, replica in ipairs(waiting) do redis.call('PUBLISH', ARGV[2] .. replica, ARGV[3] .. ARGV[4]) end
return #waiting
"""

log = structlog.get_logger("docpreview_gateway.single_flight")


class RedisSingleFlight:
    """The port `SingleFlight` of a deployment. It raises nothing but CancelledError.

    `redis` is the client that the shared cache uses too, so that no read waits for a lost server twice.
    """

    def __init__(self, redis: RedisClient, namespace: str) -> None:
        self._redis = redis
        self._prefix = prefix(namespace)
        self._created = self._prefix + "created"
        self._called_back = self._prefix + "called-back"
        self._reply_channel = self._prefix + "inbox:"
        self._replica = secrets.token_hex(8)
        self._is_listening = False
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

    async def lead(self, key: str, *, now: bool, spent: float = 0.0) -> bool | None:
        """Take the lease of a read, or register as a follower. None while this replica is not subscribed."""
        if not self._is_listening:
            return None
        milliseconds = _milliseconds(LEASE_SECONDS), _milliseconds(WAIT_SECONDS)
        answer = await self._run(_LEAD, key, self._replica, *milliseconds, int(now), spent=spent)
        if answer == 1:
            self._renew_later(key)
        elif isinstance(answer, bytes):
            self._deliver(key, answer)
        return None if answer is None else answer == 1

    def publish(self, key: str, value: bytes) -> None:
        """End a lease and publish the result to the followers, in the background."""
        if (renewal := self._renewals.pop(key, None)) is not None:
            renewal.cancel()
        arguments = self._replica, self._reply_channel, f"{key}\n", value, _milliseconds(RESULT_TTL_SECONDS)
        self._in_background(self._run(_PUBLISH, key, *arguments))

    async def ask(self, key: str, seconds: float) -> None:
        """Register as a follower of any read of the key that ends within these seconds."""
        if self._is_listening:
            await self._run(_ASK, key, self._replica, _milliseconds(seconds))

    def created(self, bucket: str) -> None:
        """Publish to the other replicas, in the background, that a job was created in the bucket."""
        self._in_background(self._execute("PUBLISH", self._created, f"{self._replica}\n{bucket}"))

    def called_back(self, bucket: str, job_id: str) -> None:
        """Publish to the other replicas, in the background, that a callback has told of the end of a job."""
        self._in_background(self._execute("PUBLISH", self._called_back, f"{self._replica}{_CAME}\n{bucket}\n{job_id}"))

    async def listen(
        self,
        messages: Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]],
        on_created: Callable[[str], None],
        on_called_back: Callable[[str, str], None] = lambda _bucket, _job_id: None,
    ) -> None:
        """Deliver the messages of `channels` to subscriptions until cancelled. A lost connection is made again.

        `on_created` is called with each bucket in which another replica created a job, `on_called_back` with the
        bucket and the job of which a callback has told another replica.
        """
        while True:
            try:
                async with messages() as received:
                    self._is_listening = True
                    async for message in received:
                        self._receive(message, on_created, on_called_back)
            except (RedisError, OSError) as error:
                log.debug("subscription to other replicas lost", error=type(error).__name__)
            finally:
                self._is_listening = False
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
        self, message: bytes, on_created: Callable[[str], None], on_called_back: Callable[[str, str], None]
    ) -> None:
        head, _, value = message.partition(b"\n")
        name = head.decode(errors="replace")
        if name in self._subscriptions:
            self._deliver(name, value)
        elif self._is_other_replica(name):
            on_created(value.decode(errors="replace"))
        elif name.endswith(_CAME) and self._is_other_replica(name.removesuffix(_CAME)):
            bucket, _, job_id = value.decode(errors="replace").partition("\n")
            on_called_back(bucket, job_id)

    def _deliver(self, key: str, value: bytes) -> None:
        for subscription in self._subscriptions.get(key, ()):
            subscription.receive(value)

    def _is_other_replica(self, name: str) -> bool:
        """Whether a message's head is the name of another replica. Else it may be a read without subscriptions."""
        return len(name) == len(self._replica) and name != self._replica

    def _renew_later(self, key: str) -> None:
        def renew() -> None:
            self._renew_later(key)
            self._in_background(self._run(_RENEW, key, self._replica, _milliseconds(LEASE_SECONDS)))

        self._renewals[key] = asyncio.get_running_loop().call_later(RENEW_SECONDS, renew)

    async def _run(self, script: str, key: str, *arguments: str | bytes | int, spent: float = 0.0) -> object:
        """The script's answer, None without one. The braces put both keys of a read into one slot of a cluster."""
        keys = f"{self._prefix}lease:{{{key}}}", f"{self._prefix}inboxes:{{{key}}}"
        return await self._execute(*script_command(script, keys, *arguments), spent=spent)

    async def _execute(self, *command: str | bytes | float, spent: float = 0.0) -> object:
        if self._redis.failed_lately:
            return None
        try:
            return await self._redis.execute(*command, read=_unchanged, spent=spent)
        except RedisCallError:
            return None

    def _in_background(self, work: Coroutine[None, None, object]) -> None:
        _ = self._background.start(work, "single-flight")


class _Subscription:
    """The port `Subscription`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received: asyncio.Future[bytes] = self._loop.create_future()

    async def next(self, seconds: float) -> bytes | None:
        """The latest result, as soon as there is one, or None after these seconds."""
        await asyncio.wait((self._received,), timeout=seconds)
        if not self._received.done():
            return None
        value = self._received.result()
        self._received = self._loop.create_future()
        return value

    def receive(self, value: bytes) -> None:
        """Deliver a result. It replaces an earlier one that was not taken."""
        if self._received.done():
            self._received = self._loop.create_future()
        self._received.set_result(value)


def _unchanged(answer: object) -> object:
    return answer


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
