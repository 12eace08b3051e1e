"""What one life of a replica reaches the store, its journal and the cloud through: here it may be killed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, cast

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.operations import CreateJob, GetJob, ListJobs
from docpreview_gateway.upstream.wire.http import unix_time
from docpreview_gateway.upstream.wire.signing import Window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.creates.ports import CreateStore
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.operations import Operation, Result
    from tests.simulation.cloud import Cloud
    from tests.simulation.faults import Faults

TIMEOUT = 10.0
"""Seconds for a request to the cloud."""

FENCE_SLACK = 60.0

UNKNOWN = frozenset(
    {
        reasons.ERROR_REASON_UPSTREAM_INTERNAL,
        reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE,
        reasons.ERROR_REASON_UPSTREAM_TIMEOUT,
        reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE,
    }
)

Value = TypeVar("Value")


class KilledError(BaseException):
    """The process is no more."""


class Life:
    """One life of a process. What was killed never hears an answer, and what it asks for is not done."""

    def __init__(self, on_death: Callable[[], None]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_death = on_death

    @property
    def is_over(self) -> bool:
        return self.ended.done()

    def kill(self) -> None:
        if not self.is_over:
            self.ended.set_result(None)
            self._on_death()

    async def go_on(self) -> None:
        """Return at once, or if the process was killed never."""
        if self.is_over:
            await asyncio.shield(self._never)


class StoreLink:
    """A connection to the store, by the name of the method. `is_down` says whether it is cut."""

    def __init__(
        self, inner: object, life: Life, faults: Faults, *, is_down: Callable[[], bool], after: Callable[[], None]
    ) -> None:
        self._inner = inner
        self._life = life
        self._faults = faults
        self._is_down = is_down
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._enter(name)
            result = await method(*args, **kwargs)
            self._after()
            await self._leave(name)
            return result

        return call

    async def _enter(self, name: str) -> None:
        life, strike = self._life, self._faults.strike
        await life.go_on()
        if stall := strike(f"stall {name}"):
            await asyncio.sleep(stall.value)
            await life.go_on()
        if strike(f"kill before {name}"):
            life.kill()
            await life.go_on()
        if self._is_down() or strike(f"fail before {name}"):
            await asyncio.sleep(0.3)
            raise StoreError("cannot be reached")

    async def _leave(self, name: str) -> None:
        life, strike = self._life, self._faults.strike
        await life.go_on()
        if stall := strike(f"slow answer {name}"):
            await asyncio.sleep(stall.value)
        if strike(f"kill after {name}"):
            life.kill()
        await life.go_on()
        if strike(f"fail after {name}"):
            raise StoreError("the answer was lost")


def store_link(
    inner: object, life: Life, faults: Faults, *, is_down: Callable[[], bool], after: Callable[[], None]
) -> CreateStore:
    """A connection of one life to the store."""
    return cast("CreateStore", StoreLink(inner, life, faults, is_down=is_down, after=after))


class MemoryJournal:
    """The port `Journal` over a dictionary that outlives the process."""

    def __init__(self, records: dict[str, Record], life: Life, faults: Faults) -> None:
        self._records = records
        self._life = life
        self._faults = faults

    async def add(self, record: Record) -> None:
        await self._write("add")
        self._records[record.key] = record
        await self._written("add")

    async def remove(self, keys: Sequence[str]) -> None:
        await self._write("remove")
        for key in keys:
            self._records.pop(key, None)
        await self._written("remove")

    async def all(self) -> list[Record]:
        await self._life.go_on()
        await asyncio.sleep(0)
        return list(self._records.values())

    async def _write(self, name: str) -> None:
        await self._life.go_on()
        await asyncio.sleep(0)
        if self._faults.strike(f"kill before journal {name}"):
            self._life.kill()
            await self._life.go_on()
        if self._faults.strike("journal fails"):
            raise StoreError("disk full")

    async def _written(self, name: str) -> None:
        if self._faults.strike(f"kill after journal {name}"):
            self._life.kill()
            await self._life.go_on()


class CloudLink:
    """The way of one life to the cloud: an `Upstream` that does for creates what `upstream/client.py` does."""

    def __init__(self, cloud: Cloud, life: Life, times: CloudTimes, *, latency: Callable[[], float]) -> None:
        self._cloud = cloud
        self._life = life
        self._times = times
        self._latency = latency

    async def __call__(self, operation: Operation[Result], call: Call) -> Result:
        await self._life.go_on()
        strike = self._cloud.faults.strike
        if isinstance(operation, CreateJob) and (queue := strike("queue")):
            self._cloud.note("a create waits in the queue for", queue.value)
            await asyncio.sleep(queue.value)
            await self._life.go_on()
        until = min(loop_time() + TIMEOUT, call.answer_by)
        if until <= loop_time():
            raise GatewayError(reasons.ERROR_REASON_DEADLINE_EXCEEDED, "not sent")
        try:
            async with asyncio.timeout_at(until):
                return cast("Result", await self._exchange(operation))
        except TimeoutError:
            await self._life.go_on()
            if isinstance(operation, CreateJob):
                raise _outcome_unknown("no reply in time") from None
            raise UpstreamError(reasons.ERROR_REASON_UPSTREAM_TIMEOUT, "no reply in time") from None
        except UpstreamError as error:
            if isinstance(operation, CreateJob) and error.reason in UNKNOWN:
                raise _outcome_unknown(error.message) from error
            raise

    async def _exchange(self, operation: Operation[Any]) -> object:
        """As `CloudClient._exchange`: refused for the clock, what is not on record is signed once more."""
        host = operation.bucket.ci_host
        flight = operation.flight if isinstance(operation, CreateJob) else None
        before, shown = self._times.heard(host), self._times.now(host)
        try:
            return await self._send(operation)
        except UpstreamError as error:
            if error.reason != reasons.ERROR_REASON_CLOCK_SKEW or flight is not None:
                raise
        learned, moved = self._times.heard(host), abs(self._times.now(host) - shown)
        try:
            return await self._send(operation)
        except UpstreamError as error:
            is_refused = error.reason == reasons.ERROR_REASON_CLOCK_SKEW
            if is_refused and moved > FENCE_SLACK and self._times.heard(host) == learned:
                self._times.restore(host, before)
            raise

    async def _send(self, operation: Operation[Any]) -> object:
        sent_at, strike = self._times.elapsed(), self._cloud.faults.strike
        host = operation.bucket.ci_host
        flight = operation.flight if isinstance(operation, CreateJob) else None
        window = Window.around(self._times.now(host)) if flight is None else flight.window
        began = flight is not None and flight.began
        if flight is not None:
            if sent_at > flight.send_by:
                raise GatewayError(reasons.ERROR_REASON_OVERLOADED, "too late", retry_after=1.0)
            flight.began = True
        if strike(f"unreachable {operation.name}"):
            if flight is not None:
                flight.began = began
            raise UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNREACHABLE, "no connection", retry_after=1.0)
        await self._kill(f"kill before {operation.name}")
        await asyncio.sleep(self._latency())
        if isinstance(operation, CreateJob):
            return await self._create(operation, window)
        await self._life.go_on()
        if strike(f"broken {operation.name}"):
            raise UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "broken", retry_after=1.0)
        return await self._read(operation, window, sent_at)

    async def _read(self, operation: Operation[Any], window: Window, sent_at: float) -> object:
        cloud, date = self._cloud, self._cloud.date()
        try:
            cloud.judge(window)
            if isinstance(operation, GetJob):
                answer: object = cloud.get(operation.job_id)
            elif isinstance(operation, ListJobs):
                answered_at = unix_time(date)
                seconds = self._times.elapsed() - sent_at
                as_of = None if answered_at is None else answered_at - seconds - 1.0
                answer = cloud.page(operation, as_of)
            else:
                raise TypeError(operation)
        finally:
            self._times.hear(operation.bucket.ci_host, date)
        await asyncio.sleep(self._latency())
        await self._life.go_on()
        return answer

    async def _create(self, operation: CreateJob, window: Window) -> PreviewJob:
        """A create on its way. A sender that is killed now has sent it all the same."""
        cloud, strike, note = self._cloud, self._cloud.faults.strike, self._cloud.note
        if strike("lost"):
            note("a create is lost")
            await asyncio.sleep(TIMEOUT)
        if late := strike("late"):
            note("a create is late by", late.value)
            cloud.arrive_later(operation.request, window, late.value)
            await asyncio.sleep(TIMEOUT)
        if strike("refused"):
            raise UpstreamError(reasons.ERROR_REASON_UPSTREAM_INVALID_ARGUMENT, "refused")
        if strike("failed"):
            raise UpstreamError(reasons.ERROR_REASON_UPSTREAM_INTERNAL, "failed")
        date = cloud.date()
        try:
            job = cloud.create(operation.request, window)
        except UpstreamError:
            await self._life.go_on()
            self._times.hear(operation.bucket.ci_host, date)
            note("a create is refused by its signature")
            raise
        await self._kill("kill after create")
        if strike("reply lost"):
            note("a reply is lost")
            await asyncio.sleep(TIMEOUT)
        if strike("failed and made"):
            raise UpstreamError(reasons.ERROR_REASON_UPSTREAM_INTERNAL, "failed")
        await asyncio.sleep(self._latency())
        await self._life.go_on()
        self._times.hear(operation.bucket.ci_host, date)
        return job

    async def _kill(self, kind: str) -> None:
        if self._cloud.faults.strike(kind):
            self._life.kill()
        await self._life.go_on()


def _outcome_unknown(message: str) -> UpstreamError:
    return UpstreamError(reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, message)
