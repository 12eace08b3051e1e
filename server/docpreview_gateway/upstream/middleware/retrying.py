"""Middleware: retries of failed attempts, when they are safe, in time and within the process's retry budget."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.operations import CreateJob
from docpreview_gateway.upstream.policies.retry_policy import latest_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.operations import Operation, Result, Upstream
    from docpreview_gateway.upstream.policies.retry_policy import RetryBudget, RetryPolicy
    from docpreview_gateway.upstream.ports import UpstreamTelemetry


class Retrying:
    """An `Upstream` that makes several attempts and raises the error of the last one. `jitter` is in [0, 1).

    A create is retried only after an error that proves that it was not admitted, and one with a flight only before its
    `send_by`. It has not begun then: what was refused is as good as not sent.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        inner: Upstream,
        *,
        policy: RetryPolicy,
        budget: RetryBudget,
        times: CloudTimes,
        telemetry: UpstreamTelemetry,
        jitter: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._policy = policy
        self._budget = budget
        self._times = times
        self._telemetry = telemetry
        self._jitter = jitter

    async def __call__(self, operation: Operation[Result], call: Call) -> Result:
        """The result of the first attempt that succeeds."""
        begin = time.monotonic()
        self._budget.called(begin)
        retries = 0
        while True:
            try:
                return await self._inner(operation, call)
            except UpstreamError as error:
                delay = self._policy.delay(error, retries, repeatable=operation.repeatable, jitter=self._jitter())
                if delay is None or not self._in_time(operation, begin, delay, call) or not self._granted(operation):
                    raise
                if isinstance(operation, CreateJob) and operation.flight is not None:
                    operation.flight.began = False
            retries += 1
            await asyncio.sleep(delay)

    def _in_time(self, operation: Operation[object], begin: float, delay: float, call: Call) -> bool:
        if time.monotonic() + delay > latest_start(begin, call.wanted_by):
            return False
        flight = operation.flight if isinstance(operation, CreateJob) else None
        return flight is None or self._times.elapsed() + delay <= flight.send_by

    def _granted(self, operation: Operation[object]) -> bool:
        granted = self._budget.take(time.monotonic())
        self._telemetry.retry(operation.name, "made" if granted else "over_budget")
        return granted
