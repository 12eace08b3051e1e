"""Middleware: metrics of each attempt at the cloud, and of jobs that end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.upstream.operations import JobPage
from docpreview_gateway.upstream.ports import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.job_ends import JobEnds
    from docpreview_gateway.upstream.operations import Operation, Result, Upstream
    from docpreview_gateway.upstream.ports import UpstreamTelemetry


UNANSWERED_SECONDS = 1.0
"""An attempt that is cancelled after so many seconds counts as a timeout of the cloud, which kept its callers waiting.

They leave before the attempt's own timeout, so a cloud that hangs would have no failures at all.
"""


def observed(
    inner: Upstream,
    telemetry: UpstreamTelemetry,
    ends: JobEnds,
    job_read: Callable[[PreviewJob], None] | None = None,
) -> Upstream:
    """`inner`, with the outcome and duration of each operation recorded, and every job of a reply given to `ends`.

    `job_read` gets those of reads of a single job: a list may be behind.
    """

    async def attempt(operation: Operation[Result], call: Call) -> Result:
        with measured(Attempt.of(operation, call), telemetry):
            result = await inner(operation, call)
        if isinstance(result, PreviewJob):
            ends.saw(result, call.caller.name)
            if job_read is not None:
                job_read(result)
        elif isinstance(result, JobPage):
            for job in result.jobs:
                ends.saw(job, call.caller.name)
        return result

    return attempt


class measured:  # noqa: N801 - used as a function
    """A context that records how the work within it ends; UPSTREAM_TIMEOUT if cancelled after `unanswered` seconds.

    Work that is cancelled before has no outcome.
    """

    # Not a generator, which takes thrice as long.
    __slots__ = ("_attempt", "_begin", "_telemetry", "_unanswered")

    def __init__(
        self, attempt: Attempt, telemetry: UpstreamTelemetry, *, unanswered: float = UNANSWERED_SECONDS
    ) -> None:
        self._attempt = attempt
        self._telemetry = telemetry
        self._unanswered = unanswered
        self._begin = time.perf_counter()

    def __enter__(self) -> None:
        """Nothing: the time runs already."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        seconds = time.perf_counter() - self._begin
        if error is None:
            self._telemetry.upstream_attempt(self._attempt, reasons.ERROR_REASON_UNSPECIFIED, seconds)
        elif isinstance(error, asyncio.CancelledError):
            if seconds >= self._unanswered:
                self._telemetry.upstream_attempt(self._attempt, reasons.ERROR_REASON_UPSTREAM_TIMEOUT, seconds)
        elif isinstance(error, Exception):
            self._telemetry.upstream_attempt(self._attempt, _reason(error), seconds)


def _reason(error: Exception) -> reasons.ErrorReason.ValueType:
    if isinstance(error, GatewayError):
        return error.reason
    return reasons.ERROR_REASON_INTERNAL
