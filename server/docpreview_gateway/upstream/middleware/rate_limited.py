"""No more attempts a second than the cloud allows an account, over all of its buckets and, with shared state, replicas.

Who cannot go at once waits, callers by their weight; whose turn would come too late is refused at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.limits.gcra import rule
from docpreview_gateway.model.errors import LimitReached
from docpreview_gateway.upstream.policies.fair_queue import FairQueue

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.limits.gcra import Rule
    from docpreview_gateway.limits.ports import LimitTelemetry, RateCounter
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.callers import Rate
    from docpreview_gateway.upstream.ports import JobPage, JobQuery, PreviewUpstream, QueuePage, QueueQuery

ANSWER_MARGIN = 0.05
"""Seconds of a caller's time that are kept for asking the cloud and answering."""

MAX_QUEUE = 10_000
"""Calls that may wait for an account."""


class PacedUpstream:
    """`PreviewUpstream` that keeps the rate of each account; an account is the number at the end of a bucket's name.

    ACCOUNT_RATE_LIMITED.
    """

    def __init__(
        self,
        inner: PreviewUpstream,
        counter: RateCounter,
        *,
        rate: Rate,
        telemetry: LimitTelemetry,
    ) -> None:
        self._inner = inner
        self._counter = counter
        self._rate = rate
        self._telemetry = telemetry
        self._paces: dict[str, _Pace] = {}

    async def create(self, request: CreatePreviewJobRequest, bucket: Bucket, output: Bucket, call: Call) -> PreviewJob:
        """As the port says."""
        await self._turn(bucket, call)
        return await self._inner.create(request, bucket, output, call)

    async def get(self, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        """As the port says."""
        await self._turn(bucket, call)
        return await self._inner.get(bucket, job_id, call)

    async def list_jobs(self, query: JobQuery, call: Call) -> JobPage:
        """As the port says."""
        await self._turn(query.bucket, call)
        return await self._inner.list_jobs(query, call)

    async def list_queues(self, query: QueueQuery, call: Call) -> QueuePage:
        """As the port says."""
        await self._turn(query.bucket, call)
        return await self._inner.list_queues(query, call)

    async def _turn(self, bucket: Bucket, call: Call) -> None:
        account = bucket.name.rpartition("-")[2]
        pace = self._paces.get(account)
        if pace is None:
            paced = rule(f"account:{account}", "account", self._rate)
            pace = self._paces[account] = _Pace(paced, self._counter)
        try:
            alone = await pace.turn(call)
        except LimitReached:
            self._telemetry.limit(call.caller.name, "account", "refused")
            raise
        self._telemetry.limit(call.caller.name, "account", "degraded" if alone else "allowed")


class _Pace:
    """The calls that wait for one account, and the task that calls them up; there is none while nobody waits."""

    def __init__(self, paced: Rule, counter: RateCounter) -> None:
        self._rule = paced
        self._counter = counter
        self._queue: FairQueue[asyncio.Future[bool]] = FairQueue()
        self._task: asyncio.Task[None] | None = None

    async def turn(self, call: Call) -> bool:
        """Wait until the call may be sent; whether this process had to count alone."""
        if not self._queue:
            refusal, alone = await self._counter.take((self._rule,))
            if refusal is None:
                return alone
        wanted_by = min(call.deadline, call.wanted_by) - ANSWER_MARGIN
        ahead = self._queue.ahead(flow=call.caller.name, weight=call.caller.weight, deadline=wanted_by)
        wait = (ahead + 1) * self._rule.interval
        if time.monotonic() + wait > wanted_by or len(self._queue) >= MAX_QUEUE:
            raise self._too_late(wait)
        return await self._wait(call, wanted_by)

    async def _wait(self, call: Call, wanted_by: float) -> bool:
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        caller = call.caller
        place = self._queue.push(turn, flow=caller.name, weight=caller.weight, deadline=wanted_by)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._call_up(), name=f"pace {self._rule.key}")
        try:
            # A shared read may be wanted by others later than by who began it.
            async with asyncio.timeout_at(call.deadline - ANSWER_MARGIN):
                return await turn
        except TimeoutError:
            raise self._too_late(self._rule.interval) from None
        finally:
            self._queue.remove(place)

    async def _call_up(self) -> None:
        while self._queue:
            try:
                refusal, alone = await self._counter.take((self._rule,))
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
                if (turn := self._queue.pop()) is not None and not turn.done():
                    turn.set_exception(error)
                continue
            if refusal is not None:
                await asyncio.sleep(refusal.wait)
            elif (turn := self._queue.pop()) is not None and not turn.done():
                turn.set_result(alone)

    def _too_late(self, wait: float) -> LimitReached:
        return LimitReached(
            reasons.ERROR_REASON_ACCOUNT_RATE_LIMITED,
            "all callers together ask more of the cloud account than it allows; nothing was sent",
            subject=self._rule.key,
            retry_after=wait,
        )
