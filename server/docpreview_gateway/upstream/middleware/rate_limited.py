"""Middleware: the rate limit of a cloud account, over all of its buckets and, with shared state, all replicas.

Calls over the rate wait in a fair queue; a call that could not be sent before its deadline is rejected immediately.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.limits.gcra import rule
from docpreview_gateway.model.call import ANSWER_MARGIN
from docpreview_gateway.model.errors import LimitReached
from docpreview_gateway.upstream.policies.fair_queue import FairQueue

if TYPE_CHECKING:
    from docpreview_gateway.limits.gcra import Rule
    from docpreview_gateway.limits.ports import LimitsTelemetry, RateCounter
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.callers import Rate
    from docpreview_gateway.upstream.operations import Operation, Result, Upstream

MAX_QUEUE = 10_000
"""Calls that may wait for an account."""


class RateLimited:
    """An `Upstream` within the rate of each account. ACCOUNT_RATE_LIMITED.

    An account is the number at the end of a bucket's name.
    """

    def __init__(self, inner: Upstream, counter: RateCounter, *, rate: Rate, telemetry: LimitsTelemetry) -> None:
        self._inner = inner
        self._counter = counter
        self._rate = rate
        self._telemetry = telemetry
        self._accounts: dict[str, _Account] = {}

    async def __call__(self, operation: Operation[Result], call: Call) -> Result:
        """The result, once the account's rate allows the attempt."""
        await self._admit(operation.bucket.name.rpartition("-")[2], call)
        return await self._inner(operation, call)

    async def _admit(self, name: str, call: Call) -> None:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account(rule(f"account:{name}", "account", self._rate), self._counter)
        try:
            counted_locally = await account.admit(call)
        except LimitReached:
            self._telemetry.limit(call.caller.name, "account", "refused")
            raise
        self._telemetry.limit(call.caller.name, "account", "degraded" if counted_locally else "allowed")


class _Account:
    """The calls that wait for one account, and the task that admits them; it runs only while calls wait."""

    def __init__(self, rate_rule: Rule, counter: RateCounter) -> None:
        self._rule = rate_rule
        self._counter = counter
        self._queue: FairQueue[asyncio.Future[bool]] = FairQueue()
        self._task: asyncio.Task[None] | None = None

    async def admit(self, call: Call) -> bool:
        """Wait until the call may be sent. Returns whether this process counted locally, without shared state."""
        if not self._queue:
            refusal, counted_locally = await self._counter.take((self._rule,))
            if refusal is None:
                return counted_locally
        wanted_by = call.wanted_by - ANSWER_MARGIN
        ahead = self._queue.ahead(flow=call.caller.name, weight=call.caller.weight, deadline=wanted_by)
        wait = (ahead + 1) * self._rule.interval
        if time.monotonic() + wait > wanted_by or len(self._queue) >= MAX_QUEUE:
            raise self._too_late(wait)
        return await self._wait(call, wanted_by)

    async def _wait(self, call: Call, wanted_by: float) -> bool:
        admitted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        caller = call.caller
        entry = self._queue.push(admitted, flow=caller.name, weight=caller.weight, deadline=wanted_by)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._admit_waiting(), name=f"admit {self._rule.key}")
        try:
            # Other callers of a shared read may want it later than the one that started it.
            async with asyncio.timeout_at(call.answer_by):
                return await admitted
        except TimeoutError:
            raise self._too_late(self._rule.interval) from None
        finally:
            self._queue.remove(entry)

    async def _admit_waiting(self) -> None:
        while self._queue:
            try:
                refusal, counted_locally = await self._counter.take((self._rule,))
            except Exception as error:  # noqa: BLE001 - the waiting call gets it
                if (admitted := self._queue.pop()) is not None and not admitted.done():
                    admitted.set_exception(error)
                continue
            if refusal is not None:
                await asyncio.sleep(refusal.wait)
            elif (admitted := self._queue.pop()) is not None and not admitted.done():
                admitted.set_result(counted_locally)

    def _too_late(self, wait: float) -> LimitReached:
        return LimitReached(
            reasons.ERROR_REASON_ACCOUNT_RATE_LIMITED,
            "all callers together ask more of the cloud account than it allows; nothing was sent",
            subject=self._rule.key,
            retry_after=wait,
        )
