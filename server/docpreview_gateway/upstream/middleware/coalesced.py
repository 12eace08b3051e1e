"""Middleware: one request to the cloud for any number of equal reads in flight at the same time.

The request runs in a task of its own. It is cancelled only when its last caller gives up.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog

from docpreview_gateway.model.call import ResponseInfo, SharedRead
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.upstream.operations import GetJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.operations import Operation, Result, Upstream
    from docpreview_gateway.upstream.ports import UpstreamTelemetry


log = structlog.get_logger("docpreview_gateway.upstream")


class _Flight:
    """A read in flight, its state, and the callers that wait for it."""

    __slots__ = ("call", "error", "read", "result", "task", "waiting")

    def __init__(self, call: Call, read: SharedRead) -> None:
        self.call = call
        self.read = read
        self.waiting: set[asyncio.Future[None]] = set()
        self.task: asyncio.Task[None]
        self.result: Any = None
        self.error: BaseException | None = None


class Coalesced:
    """An `Upstream` that coalesces equal reads. `longest` bounds a shared read in seconds, not its callers' deadlines.

    `shed_if_late` takes a bucket's name and a call, and raises the error with which `inner` would reject the call
    immediately; None: only `inner` can tell.
    """

    def __init__(
        self,
        inner: Upstream,
        telemetry: UpstreamTelemetry,
        *,
        longest: float,
        shed_if_late: Callable[[str, Call], None] | None = None,
    ) -> None:
        self._inner = inner
        self._shed_if_late = shed_if_late
        self._telemetry = telemetry
        self._longest = longest
        self._flights: dict[tuple[object, ...], _Flight] = {}

    def check_admission(self, bucket: Bucket, job_id: str, call: Call) -> None:
        """Raise the error with which reading the job would be rejected immediately. Joining a flight never is."""
        if self._shed_if_late is not None and GetJob(bucket, job_id).key not in self._flights:
            self._shed_if_late(bucket.name, call)

    async def __call__(self, operation: Operation[Result], call: Call) -> Result:
        """The result of the operation, or of an equal read that was in flight already."""
        if not operation.repeatable:
            return await self._inner(operation, call)
        key = operation.key
        flight = self._flights.get(key)
        # Callers of a read that has ended have not heard of it yet.
        joined = flight is not None and not flight.task.done()
        if flight is None or not joined:
            flight = self._start(key, operation, call)
        else:
            self._telemetry.coalesced(operation.name)
        flight.read.wanted_by = max(flight.read.wanted_by, call.deadline)
        flight.read.no_cache |= call.no_cache
        # A future for each caller: cancelling one of them leaves the task to the others.
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flight.waiting.add(done)
        try:
            await done
        finally:
            flight.waiting.discard(done)
            if not flight.waiting and not flight.task.done():
                self._cancel(key, flight)
        _copy_outcome(flight, call, joined=joined)
        if flight.error is not None:
            # One error reaches many callers; each raises it with a traceback of its own.
            raise flight.error.with_traceback(None)
        result: Result = flight.result
        return result

    def _start(self, key: tuple[object, ...], operation: Operation[Any], call: Call) -> _Flight:
        is_new = call.shared_read is not None and call.shared_read.is_new
        read = SharedRead(call.deadline, call.no_cache, is_new)
        own = call._replace(deadline=time.monotonic() + self._longest, shared_read=read, response=ResponseInfo())
        flight = self._flights[key] = _Flight(own, read)
        flight.task = asyncio.get_running_loop().create_task(self._read(key, operation, flight))
        return flight

    async def _read(self, key: tuple[object, ...], operation: Operation[Any], flight: _Flight) -> None:
        """The task of a flight: it tells the callers itself, as a callback at its end would take another turn."""
        try:
            flight.result = await self._inner(operation, flight.call)
        except BaseException as error:
            is_wanted = any(not done.done() for done in flight.waiting)
            if isinstance(error, Exception) and not is_wanted and not isinstance(error, GatewayError):
                # The last caller was cancelled at the moment in which the read failed: no call reports the error.
                log.exception("unexpected error in a shared read", operation=operation.name)
            flight.error = error.with_traceback(None)
            if not isinstance(error, Exception):
                raise
        finally:
            self._forget(key, flight)
            for done in flight.waiting:
                if not done.done():
                    done.set_result(None)

    def _cancel(self, key: tuple[object, ...], flight: _Flight) -> None:
        """No caller waits any more. A later caller must not join a read that is being cancelled."""
        self._forget(key, flight)
        flight.task.cancel()

    def _forget(self, key: tuple[object, ...], flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _copy_outcome(flight: _Flight, call: Call, *, joined: bool) -> None:
    info = flight.call.response
    call.response.upstream_request_id = info.upstream_request_id
    call.response.cache = "coalesced" if joined else info.cache
    call.response.marker = info.marker
    if call.shared_read is not None:
        call.shared_read.envelope = flight.read.envelope
