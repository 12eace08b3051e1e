"""One request to the cloud for any number of equal reads that are under way at the same time.

The request runs in a task of its own: a caller that gives up does not end it for the others, the last one to give up
does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from docpreview_gateway.model.call import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import TypeAlias

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.upstream.ports import (
        CoalescingTelemetry,
        JobPage,
        JobQuery,
        PreviewUpstream,
        QueuePage,
        QueueQuery,
    )

    Operation: TypeAlias = Literal["get", "list_jobs", "list_queues"]
    Key: TypeAlias = tuple[Operation, str, tuple[str, ...]]

Result = TypeVar("Result")


class _Flight:
    """A read under way and who waits for it."""

    def __init__(self, call: Call, task: asyncio.Task[Any]) -> None:
        self.call = call
        self.task = task
        self.waiting: set[asyncio.Future[None]] = set()


class CoalescedUpstream:
    """`PreviewUpstream` that joins equal reads. `longest` bounds a shared read in seconds; no deadline does.

    `shed_if_late` raises what `inner` would raise at once for want of room; None: only `inner` itself knows.
    """

    def __init__(
        self,
        inner: PreviewUpstream,
        telemetry: CoalescingTelemetry,
        *,
        longest: float,
        shed_if_late: Callable[[Bucket, Call], None] | None = None,
    ) -> None:
        self._inner = inner
        self._shed_if_late = shed_if_late
        self._telemetry = telemetry
        self._longest = longest
        self._flights: dict[Key, _Flight] = {}

    async def create(self, request: CreatePreviewJobRequest, bucket: Bucket, output: Bucket, call: Call) -> PreviewJob:
        """As the port says; two equal creates are two jobs and never joined."""
        return await self._inner.create(request, bucket, output, call)

    async def get(self, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        """As the port says."""
        return await self._joined(_get(bucket, job_id), call, lambda own: self._inner.get(bucket, job_id, own))

    def check_admission(self, bucket: Bucket, job_id: str, call: Call) -> None:
        """Raise what `get` would raise at once for want of room. Who can join a read under way needs none."""
        if self._shed_if_late is not None and _get(bucket, job_id) not in self._flights:
            self._shed_if_late(bucket, call)

    async def list_jobs(self, query: JobQuery, call: Call) -> JobPage:
        """As the port says."""
        content = query.request.SerializeToString(deterministic=True).hex()
        key: Key = ("list_jobs", query.bucket.name, (content, query.cursor, str(query.size)))
        return await self._joined(key, call, lambda own: self._inner.list_jobs(query, own))

    async def list_queues(self, query: QueueQuery, call: Call) -> QueuePage:
        """As the port says."""
        content = query.request.SerializeToString(deterministic=True).hex()
        key: Key = ("list_queues", query.bucket.name, (content, str(query.number), str(query.size)))
        return await self._joined(key, call, lambda own: self._inner.list_queues(query, own))

    async def _joined(self, key: Key, call: Call, read: Callable[[Call], Coroutine[Any, Any, Result]]) -> Result:
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._start(key, call, read)
        else:
            self._telemetry.coalesced(key[0])
        flight.call.wanted_by = max(flight.call.wanted_by, call.deadline)
        # A future of its own for each caller: cancelling one of them leaves the task to the others.
        landed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flight.waiting.add(landed)
        try:
            await landed
        finally:
            flight.waiting.discard(landed)
            if not flight.waiting and not flight.task.done():
                self._end(key, flight)
        call.upstream_request_id = flight.call.upstream_request_id
        call.shared_wait = flight.call.shared_wait
        call.cache = "coalesced" if joined else flight.call.cache
        error = flight.task.exception()
        if error is not None:
            # One error reaches many callers; each raises it with a trace of its own.
            raise error.with_traceback(None)
        result: Result = flight.task.result()
        return result

    def _start(self, key: Key, call: Call, read: Callable[[Call], Coroutine[Any, Any, Result]]) -> _Flight:
        loop = asyncio.get_running_loop()
        own = Call(
            call.request_id,
            loop.time() + self._longest,
            call.caller,
            no_cache=call.no_cache,
            wanted_by=call.deadline,
            trace=call.trace,
            shared_wait=call.shared_wait,
        )
        flight = _Flight(own, loop.create_task(read(own), name=f"shared {key[0]}"))
        self._flights[key] = flight
        flight.task.add_done_callback(lambda _task: self._land(key, flight))
        return flight

    def _land(self, key: Key, flight: _Flight) -> None:
        self._forget(key, flight)
        for landed in flight.waiting:
            if not landed.done():
                landed.set_result(None)

    def _end(self, key: Key, flight: _Flight) -> None:
        """Nobody waits any more. A later caller must not join what is being cancelled."""
        self._forget(key, flight)
        flight.task.cancel()

    def _forget(self, key: Key, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _get(bucket: Bucket, job_id: str) -> Key:
    return "get", bucket.name, (job_id,)
