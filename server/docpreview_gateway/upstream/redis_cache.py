"""The cache that replicas share, in Redis or Valkey. Losing it costs hits, never an answer, and hardly any time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError

from docpreview_gateway.storage.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview_gateway.upstream.ports import UpstreamTelemetry

PREFIX = "docpreview:1:"
"""Before every key: the server may serve others too. The number changes with what values mean."""

log = structlog.get_logger("docpreview_gateway.shared_cache")


class RedisCache:
    """The port `SharedCache` over `send`, which sends one command. It raises nothing but CancelledError.

    A call takes at most `seconds`, less what its caller has `spent` on shared state before; after a few without an
    answer, one a second tries and the others do without. `outage` is that of the server, for whoever else uses it.
    """

    def __init__(
        self,
        send: Callable[..., Awaitable[object]],
        telemetry: UpstreamTelemetry,
        *,
        outage: Outage | None = None,
        seconds: float = 0.05,
    ) -> None:
        self._send = send
        self._telemetry = telemetry
        self._seconds = seconds
        self._outage = outage or Outage()

    async def get(self, key: str) -> bytes | None:
        """As the port says."""
        value = await self._try("GET", PREFIX + key)
        return value if isinstance(value, bytes) else None

    async def set(self, key: str, value: bytes, seconds: float, *, spent: float = 0.0) -> None:
        """As the port says. Not tried after a call without answer: no read should pay for that twice."""
        if self._outage.is_likely:
            self._telemetry.cache_lookup("shared", "skipped")
            return
        await self._try("SET", PREFIX + key, value, "PX", max(1, round(seconds * 1000)), spent=spent)

    async def _try(self, *command: str | bytes | int, spent: float = 0.0) -> object:
        clock = asyncio.get_running_loop().time
        begun = clock()
        if spent >= self._seconds or not self._outage.admits(begun):
            self._telemetry.cache_lookup("shared", "skipped")
            return None
        answer: object = None
        try:
            async with asyncio.timeout(self._seconds - spent):
                answer = await self._send(*command)
        except ResponseError as error:
            # It answers that it will not, and at once: it is full, or read-only, or the key holds something else.
            self._telemetry.cache_lookup("shared", "error")
            log.debug("shared cache refused", command=command[0], error=str(error))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a cache, the cloud has the answer
            self._telemetry.cache_lookup("shared", "error")
            if self._outage.failed(begun, clock()):
                log.warning("shared cache does not answer, going on without", error=_described(error))
            return None
        if self._outage.answered(clock()):
            log.info("shared cache answers again")
        return answer


def _described(error: Exception) -> str:
    """The server's place is in the library's messages, its password is not."""
    return f"{type(error).__name__}: {error}" if isinstance(error, NoConnection) else type(error).__name__
