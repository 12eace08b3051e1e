"""Client of a Redis server: each command has a time limit, one kind of error, and a circuit breaker if wanted.

It opens no connections (see `redis_connections`) and retries nothing but a script that the server does not have yet.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import re
import ssl
import time
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import structlog
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError

from docpreview_gateway.model.circuit_breaker import CircuitBreaker, ConsecutiveFailures, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from docpreview_gateway.model.circuit_breaker import Admission

FAILURES, OPEN_SECONDS = 3, 1.0
"""Of an optional server: failures in a row that open its breaker, and seconds between probes while it is open."""

Argument: TypeAlias = str | bytes | float
Result = TypeVar("Result")
Kind = TypeVar("Kind")

_SCRIPT = re.compile(r" script: \w+(?:, on @?\w+:\d+\.)?$")
"""What the server adds to the error of a script: its hash, and the line that failed. A user can do nothing with it."""

log = structlog.get_logger("docpreview_gateway.redis")


class RedisCallError(Exception):
    """A command brought no usable answer: none in time, an error reply, or one that its reader rejected."""


class RedisSkippedError(RedisCallError):
    """A command was not sent: the breaker is open, or its caller has no time left."""


class Script:
    """A Lua script that runs often: it is sent by its hash, and its text only to a server that does not have it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.hash = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisClient:
    """Commands to one server over `send`, each of which takes at most `seconds`.

    With `fallback` the server is optional. A breaker opens after a few failures in a row, and one command a second
    probes. `fallback` says in the log what happens meanwhile, as in "shared cache unavailable, continuing without it".
    An error reply is an answer and no failure, unless `error_replies_fail`. Without `fallback` every command is sent.
    """

    def __init__(
        self,
        send: Callable[..., Awaitable[object]],
        *,
        name: str,
        seconds: float,
        fallback: str | None = None,
        error_replies_fail: bool = False,
    ) -> None:
        self._send = send
        self._name = name
        self._seconds = seconds
        self._unavailable = f"{name} unavailable, {fallback}"
        self._available = f"{name} available again"
        self._error_replies_fail = error_replies_fail
        self._failures = ConsecutiveFailures(math.inf if fallback is None else FAILURES)
        self._breaker = CircuitBreaker(self._failures, open_seconds=OPEN_SECONDS)

    @property
    def is_failing(self) -> bool:
        """Whether the latest command failed."""
        return self._failures.is_failing

    @property
    def failed_lately(self) -> bool:
        """Whether a command failed within the last `seconds`, so that its caller may have used up its time."""
        return self._failures.failed_since(time.monotonic() - self._seconds)

    async def execute(
        self,
        *command: Argument,
        read: Callable[[Any], Result],
        spent: float = 0.0,
        script: Script | None = None,
        failure_counts: bool = True,
    ) -> Result:
        """Send a command and `read` its answer. RedisCallError, also when `read` raises an error.

        `spent` are the seconds of the limit that the caller has used up before. `script` is that of an EVALSHA. With
        `failure_counts=False` a failure tells the breaker nothing: it is known by the command before.
        """
        admission = self._breaker.admit(time.monotonic()) if spent < self._seconds else None
        if admission is None:
            raise RedisSkippedError(f"{self._name} skipped")
        try:
            async with asyncio.timeout(self._seconds - spent):
                try:
                    answer = await self._send(*command)
                except NoScriptError:
                    if script is None:
                        raise
                    # The server was started since, or another one took its place.
                    answer = await self._send("EVAL", script.text, *command[2:])
                result = read(answer)
        except Exception as error:
            is_reply = isinstance(error, ResponseError)
            if is_reply:
                log.debug("Redis error reply", server=self._name, command=command[0], error=words(error))
            if failure_counts:
                self._ended(admission, time.monotonic(), None if is_reply and not self._error_replies_fail else error)
            else:
                self._breaker.ended(admission, time.monotonic(), failed=None)
            raise RedisCallError(_message(error)) from error
        self._ended(admission, time.monotonic(), None)
        return result

    def run(
        self,
        script: Script,
        keys: Sequence[str],
        *arguments: Argument,
        read: Callable[[Any], Result],
        spent: float = 0.0,
        failure_counts: bool = True,
    ) -> Awaitable[Result]:
        """As `execute`, for a script."""
        command = ("EVALSHA", script.hash, len(keys), *keys, *arguments)
        return self.execute(*command, read=read, spent=spent, script=script, failure_counts=failure_counts)

    def _ended(self, admission: Admission, now: float, error: Exception | None) -> None:
        was_closed = self._breaker.state is State.CLOSED
        self._breaker.ended(admission, now, failed=error is not None)
        is_closed = self._breaker.state is State.CLOSED
        if was_closed and not is_closed:
            # The library's messages about connections name the server, never its password.
            shown = (
                f"{type(error).__name__}: {words(error)}" if isinstance(error, NoConnection) else type(error).__name__
            )
            log.warning(self._unavailable, error=shown)
        elif is_closed and not was_closed:
            log.info(self._available)


def script_command(script: str, keys: Sequence[str], *arguments: Argument) -> tuple[Argument, ...]:
    """The command that runs a script. It carries the whole text, because a replaced server has not cached it."""
    return ("EVAL", script, len(keys), *keys, *arguments)


def expect(kind: type[Kind], answer: object) -> Kind:
    """The answer if it is of this kind, else TypeError."""
    if not isinstance(answer, kind):
        raise TypeError(f"not {kind.__name__}")
    return answer


def words(error: BaseException) -> str:
    """An error in the words of the server or of the operating system. The library's quote its own objects.

    Those of a script are without its hash and line.
    """
    if isinstance(error, MasterNotFoundError):
        return "no Sentinel that answers knows the master of that name"
    why = next((text for each in causes(error) if (text := _reason(each))), "")
    if isinstance(error, RedisClusterException):
        return f"no node of the cluster can be used: {why}" if why else "no node of the cluster can be used"
    if isinstance(error, NoConnection) and why:
        return f"no connection: {why}"
    return _SCRIPT.sub("", str(error))


def _reason(error: BaseException) -> str:
    """Why there is no connection, by one of the errors behind its end; empty: this one does not say."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        # Its errno is a number of OpenSSL and no system error.
        return f"TLS failed: {(error.reason or 'no reason is known').replace('_', ' ').lower()}"
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)
    return ""


def causes(error: BaseException | None) -> list[BaseException]:
    """The error, and what it was raised from or in."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _message(error: Exception) -> str:
    if isinstance(error, RedisError | RedisClusterException | OSError):
        # asyncio's TimeoutError is an OSError without a text.
        return words(error) or "no answer in time"
    return "unexpected answer"
