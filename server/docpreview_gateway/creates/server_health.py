"""Rounds over the health of the server that holds the store of creates. Imported only with shared state.

A server that evicts keys, or that was replaced by one that lags behind, loses records without an error.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.storage.redis_client import RedisCallError
from docpreview_gateway.storage.redis_health import CHECKS, POLICY, may_lack, warnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview_gateway.creates.guarded import GuardedStore
    from docpreview_gateway.creates.ports import CreatesTelemetry
    from docpreview_gateway.storage.redis_health import RedisHealth

log = structlog.get_logger("docpreview_gateway.creates")

AGAIN_SECONDS = 1.0
"""Interval of questions that were not answered yet, without whose answer creates are refused."""

UNKNOWN = "it is not known yet whether the server may evict keys (ledger.strict)"


class ServerHealth:
    """Repeats `read`, warns of what it finds, and has the store refuse creates or count as lost because of it.

    `strict`: creates with `request_id` are refused while the server may evict keys, or has not said whether it may.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[RedisHealth]],
        store: GuardedStore,
        *,
        strict: bool,
        place: str,
        telemetry: CreatesTelemetry,
    ) -> None:
        self._read = read
        self._store = store
        self._strict = strict
        self._place = place
        self._telemetry = telemetry
        self._failing: frozenset[str] = frozenset()
        self._server = ""
        self._losses = store.losses
        if strict:
            # The first round, which follows at once, tells it to the log if it stays so: a healthy start is no error.
            store.unsafe = UNKNOWN

    async def round(self) -> None:
        """Look once; with `strict`, every second until the server has said for the first time how it is set.

        That the server does not answer is told by the store itself.
        """
        while True:
            try:
                health = await self._read()
                break
            except RedisCallError:
                # Tells what was not told at the start.
                self._store.refuse(self._store.unsafe)
                if self._store.unsafe != UNKNOWN:
                    return
            await asyncio.sleep(AGAIN_SECONDS)
        found = warnings(health)
        self._tell(found)
        self._telemetry.store_health({check: check in found for check in CHECKS}, health.evicted_keys or 0)
        if self._strict:
            self._store.refuse(f"{found[POLICY]} (ledger.strict)" if POLICY in found else "")
        await self._compare(health)

    def _tell(self, found: dict[str, str]) -> None:
        """Say what has changed."""
        failing = frozenset(found)
        for check in sorted(failing - self._failing):
            log.warning("the server of the store of creates may lose records", place=self._place, why=found[check])
        for check in sorted(self._failing - failing):
            log.info("a check of the server of the store of creates passes again", place=self._place, check=check)
        self._failing = failing

    async def _compare(self, health: RedisHealth) -> None:
        """Note a loss if this is another server than before, which may lack its last changes.

        The store notices that before it uses another one (`RedisCreates`), but only if it is used. A loss that was
        joined is not noted again.
        """
        if not health.server:
            return
        is_another = self._server not in {"", health.server}
        if is_another and may_lack(health, self._server) and self._losses == self._store.losses:
            try:
                await self._store.note_loss("the server was restarted, or another one has taken its place")
            except StoreError as error:
                log.warning("a loss cannot be noted yet", place=self._place, error=str(error))
                return
        self._server, self._losses = health.server, self._store.losses
