"""Reads that replicas do for each other, through Redis or Valkey: a lease for each read, messages to who waits for it.

Who finds a read leased leaves the name of its inbox beside the lease, in the same step, so no message is missed: either
the leader still has to end its lead and sees the name, or the lease is free. An inbox is a channel, one a replica.
Losing the server costs calls to the cloud, never an answer.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError, ResponseError

from docpreview_gateway.storage.background import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager

    from docpreview_gateway.storage.outage import Outage

PREFIX = "docpreview:1:"
LEASE_SECONDS = 0.5
"""How soon the read of a replica that was lost is another's. A longer read renews its lease."""

RENEW_SECONDS = LEASE_SECONDS / 3
WAIT_SECONDS = 2 * LEASE_SECONDS
ECHO_SECONDS = 0.1
"""For which what was read answers who asks just too late to have been shared: it looked into the caches before."""

RECONNECT_SECONDS = 0.5
"""Between attempts to listen again."""

_CREATED = PREFIX + "created"
# The braces put both keys of a read into one slot of a cluster.
_LEASE, _INBOXES = PREFIX + "lease:{%s}", PREFIX + "inboxes:{%s}"
_ASK = """
local function ask(inboxes, me, milliseconds)
  redis.call('SADD', inboxes, me)
  if redis.call('PTTL', inboxes) < tonumber(milliseconds) then redis.call('PEXPIRE', inboxes, milliseconds) end
end
"""
_LEAD = f"""{_ASK}
local held = redis.call('GET', KEYS[1])
local is_echo = held and string.sub(held, 1, 1) == '='
if is_echo and ARGV[4] == '0' then return string.sub(held, 2) end
if is_echo or not held then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
ask(KEYS[2], ARGV[1], ARGV[3])
return 0
"""
_ASK_ONLY = f"{_ASK} ask(KEYS[2], ARGV[1], ARGV[2]) return 1"
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
# Who was silent for so long that the lease is another's keeps what it read to itself: the other one's is newer.
_PUBLISH = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[4] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], '=' .. ARGV[4], 'PX', ARGV[5])
end
local inboxes = redis.call('SMEMBERS', KEYS[2])
redis.call('DEL', KEYS[2])
for _, inbox in ipairs(inboxes) do redis.call('PUBLISH', ARGV[2] .. inbox, ARGV[3] .. ARGV[4]) end
return #inboxes
"""

log = structlog.get_logger("docpreview_gateway.single_flight")


class RedisSingleFlight:
    """The port `SingleFlight` over `send`, which sends one command. It raises nothing but CancelledError.

    A call takes at most `seconds`, less what its caller has `spent` on shared state before. `outage` is that of the
    shared cache on the same server, so that no read waits for both.
    """

    def __init__(
        self,
        send: Callable[..., Awaitable[object]],
        outage: Outage,
        *,
        seconds: float = 0.05,
    ) -> None:
        self._send = send
        self._outage = outage
        self._seconds = seconds
        self._me = secrets.token_hex(8)
        self._is_listening = False
        self._subscriptions: dict[str, set[_Subscription]] = {}
        self._renewals: dict[str, asyncio.TimerHandle] = {}
        self._background = BackgroundTasks()

    @property
    def channels(self) -> tuple[str, ...]:
        """What `listen` needs the messages of."""
        return PREFIX + "inbox:" + self._me, _CREATED

    @contextmanager
    def subscribe(self, key: str) -> Iterator[_Subscription]:
        """As the port says."""
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
        """As the port says. Nobody knows when this replica could not hear the others."""
        if not self._is_listening:
            return None
        milliseconds = _milliseconds(LEASE_SECONDS), _milliseconds(WAIT_SECONDS)
        answer = await self._run(_LEAD, key, self._me, *milliseconds, int(now), spent=spent)
        if answer == 1:
            self._renew_later(key)
        elif isinstance(answer, bytes):
            self._deliver(key, answer)
        return None if answer is None else answer == 1

    def publish(self, key: str, value: bytes) -> None:
        """As the port says."""
        if (renewal := self._renewals.pop(key, None)) is not None:
            renewal.cancel()
        arguments = self._me, PREFIX + "inbox:", f"{key}\n", value, _milliseconds(ECHO_SECONDS)
        self._in_background(self._run(_PUBLISH, key, *arguments))

    async def ask(self, key: str, seconds: float) -> None:
        """As the port says."""
        if self._is_listening:
            await self._run(_ASK_ONLY, key, self._me, _milliseconds(seconds))

    def created(self, bucket: str) -> None:
        """As the port says."""
        self._in_background(self._try("PUBLISH", _CREATED, f"{self._me}\n{bucket}"))

    async def listen(
        self,
        messages: Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]],
        on_created: Callable[[str], None],
    ) -> None:
        """Hand what comes in on `channels` to who waits for it, for good; a lost connection is made again.

        `on_created` hears of buckets in which other replicas created jobs.
        """
        while True:
            try:
                async with messages() as received:
                    self._is_listening = True
                    async for message in received:
                        self._receive(message, on_created)
            except (RedisError, OSError) as error:
                log.debug("not listening to the other replicas", error=type(error).__name__)
            finally:
                self._is_listening = False
                # What they wait for may have been shared meanwhile.
                for subscription in [each for every in self._subscriptions.values() for each in every]:
                    subscription.receive(b"")
            await asyncio.sleep(RECONNECT_SECONDS)

    async def close(self) -> None:
        """Tell what there still is to tell."""
        for renewal in self._renewals.values():
            renewal.cancel()
        await self._background.drain()

    def _receive(self, message: bytes, on_created: Callable[[str], None]) -> None:
        head, _, value = message.partition(b"\n")
        name = head.decode(errors="replace")
        if name in self._subscriptions:
            self._deliver(name, value)
        elif self._is_of_another(name):
            on_created(value.decode(errors="replace"))

    def _deliver(self, key: str, value: bytes) -> None:
        for subscription in self._subscriptions.get(key, ()):
            subscription.receive(value)

    def _is_of_another(self, name: str) -> bool:
        """Whether a message's head is a replica's name, not a read that nobody waits for any more, and not ours."""
        return len(name) == len(self._me) and name != self._me

    def _renew_later(self, key: str) -> None:
        def renew() -> None:
            self._renew_later(key)
            self._in_background(self._run(_RENEW, key, self._me, _milliseconds(LEASE_SECONDS)))

        self._renewals[key] = asyncio.get_running_loop().call_later(RENEW_SECONDS, renew)

    async def _run(self, script: str, key: str, *arguments: str | bytes | int, spent: float = 0.0) -> object:
        """The script's answer, None when there is none."""
        return await self._try("EVAL", script, 2, _LEASE % key, _INBOXES % key, *arguments, spent=spent)

    async def _try(self, *command: str | bytes | int, spent: float = 0.0) -> object:
        clock = asyncio.get_running_loop().time
        begun = clock()
        left = self._seconds - spent
        if left <= 0 or self._outage.failed_since(begun - self._seconds) or not self._outage.admits(begun):
            return None
        try:
            async with asyncio.timeout(left):
                answer = await self._send(*command)
        except ResponseError as error:
            log.debug("single-flight script refused", error=str(error))
            answer = None
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, each replica can go on by itself
            if self._outage.failed(begun, clock()):
                log.warning("shared state does not answer, going on without", error=type(error).__name__)
            return None
        if self._outage.answered(clock()):
            log.info("shared state answers again")
        return answer

    def _in_background(self, work: Coroutine[None, None, object]) -> None:
        _ = self._background.start(work, "single-flight")


class _Subscription:
    """The port `Subscription`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Future[bytes] = self._loop.create_future()

    async def next(self, seconds: float) -> bytes | None:
        """As the port says."""
        await asyncio.wait((self._heard,), timeout=seconds)
        if not self._heard.done():
            return None
        value = self._heard.result()
        self._heard = self._loop.create_future()
        return value

    def receive(self, value: bytes) -> None:
        """Something was shared. Only the newest counts."""
        if self._heard.done():
            self._heard = self._loop.create_future()
        self._heard.set_result(value)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
