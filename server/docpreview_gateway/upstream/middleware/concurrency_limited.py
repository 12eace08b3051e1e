"""Host limiters (bulkheads): a circuit breaker and an adaptive concurrency limit for each bucket's host.

The breaker fails calls immediately while most calls to the host fail. The limit has a fair queue and sheds calls that
would not be served before their deadline. Nothing of a refused call was sent.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.model.circuit_breaker import State
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.upstream.middleware.waiting_room import NoSlotError, Slots, WrittenOffError
from docpreview_gateway.upstream.policies.host_breaker import HOST_FAILURES, host_breaker
from docpreview_gateway.upstream.ports import HostLoad

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview.v1.error_reason_pb2 import ErrorReason
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.circuit_breaker import Admission
    from docpreview_gateway.upstream.policies.adaptive_limit import LimitBounds
    from docpreview_gateway.upstream.policies.host_breaker import BreakerRules
    from docpreview_gateway.upstream.ports import (
        HostLimiterTelemetry,
        JobPage,
        JobQuery,
        PreviewUpstream,
        QueuePage,
        QueueQuery,
    )

Result = TypeVar("Result")

_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 5.0
"""Seconds that a refused caller may be told to wait."""

log = structlog.get_logger("docpreview_gateway.upstream")


@dataclass(frozen=True, slots=True)
class HostLimiterRules:
    """Rules of every host limiter. A call cancelled after waiting `hopeless` seconds counts as an upstream timeout."""

    breaker: BreakerRules
    bounds: LimitBounds
    hopeless: float = 1.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """A call that was let in: by what right, when, and the round of its slot (None: a probe, which needs none)."""

    admission: Admission
    began: float
    slot: int | None


class LimitedUpstream:
    """`PreviewUpstream` that sends no more than a bucket's host can do. `jitter` gives numbers in [0, 1).

    UPSTREAM_BREAKER_OPEN and OVERLOADED, always with the time after which to try again.
    """

    def __init__(
        self,
        inner: PreviewUpstream,
        *,
        rules: HostLimiterRules,
        telemetry: HostLimiterTelemetry,
        jitter: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._host_limiters = HostLimiters(rules=rules, telemetry=telemetry, jitter=jitter)

    async def create(self, request: CreatePreviewJobRequest, bucket: Bucket, output: Bucket, call: Call) -> PreviewJob:
        """As the port says."""
        return await self._through(bucket, call, lambda: self._inner.create(request, bucket, output, call))

    async def get(self, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        """As the port says."""
        return await self._through(bucket, call, lambda: self._inner.get(bucket, job_id, call))

    async def list_jobs(self, query: JobQuery, call: Call) -> JobPage:
        """As the port says."""
        return await self._through(query.bucket, call, lambda: self._inner.list_jobs(query, call))

    async def list_queues(self, query: QueueQuery, call: Call) -> QueuePage:
        """As the port says."""
        return await self._through(query.bucket, call, lambda: self._inner.list_queues(query, call))

    def shed_if_late(self, bucket: Bucket, call: Call) -> None:
        """OVERLOADED when a call of the bucket would be refused so at once."""
        self._host_limiters.shed_if_late(bucket.name, call)

    async def _through(self, bucket: Bucket, call: Call, attempt: Callable[[], Awaitable[Result]]) -> Result:
        return await self._host_limiters.through(bucket.name, call, attempt)


class HostLimiters:
    """The ways to the hosts, each opened when it is first needed."""

    def __init__(
        self, *, rules: HostLimiterRules, telemetry: HostLimiterTelemetry, jitter: Callable[[], float]
    ) -> None:
        self._new_host_limiter = partial(HostLimiter, rules=rules, telemetry=telemetry, jitter=jitter)
        self._host_limiters: dict[str, HostLimiter] = {}

    async def through(self, name: str, call: Call, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Make an attempt by the way of this name, as soon as it has room, or be refused by it."""
        host_limiter = self._host_limiters.get(name)
        if host_limiter is None:
            host_limiter = self._host_limiters[name] = self._new_host_limiter(name)
        ticket = await host_limiter.enter(call)
        try:
            result = await attempt()
        except GatewayError as error:
            host_limiter.failed(ticket, error)
            raise
        except BaseException:
            host_limiter.given_up(ticket)
            raise
        host_limiter.answered(ticket)
        return result

    def shed_if_late(self, name: str, call: Call) -> None:
        """OVERLOADED when the way of this name would refuse the call so at once."""
        if (host_limiter := self._host_limiters.get(name)) is not None:
            host_limiter.shed_if_late(call)


class HostLimiter:
    """The way to one bucket's host. Every ticket of `enter` goes to exactly one of the other methods."""

    def __init__(
        self, name: str, *, rules: HostLimiterRules, telemetry: HostLimiterTelemetry, jitter: Callable[[], float]
    ) -> None:
        self._name = name
        self._hopeless = rules.hopeless
        self._telemetry = telemetry
        self._time = asyncio.get_running_loop().time
        self._breaker = host_breaker(rules.breaker, jitter)
        self._state = self._breaker.state
        self._slots = slots = Slots(rules.bounds)
        telemetry.measure_host(name, lambda: HostLoad(slots.in_flight, slots.limit.value, slots.queued))

    async def enter(self, call: Call) -> Ticket:
        """Leave for a call."""
        admission = self._breaker.admit(self._time())
        self._tell_state()
        if admission is None:
            raise self._refused_by_breaker()
        if admission.probe:
            return Ticket(admission, self._time(), None)
        try:
            slot = await self._slots.take(call)
        except NoSlotError as error:
            raise self._refused_by_queue(error) from None
        except WrittenOffError:
            raise self._refused_by_breaker() from None
        return Ticket(admission, self._time(), slot)

    def shed_if_late(self, call: Call) -> None:
        """OVERLOADED when `enter` would raise it at once; whatever the breaker says is left to `enter`."""
        if self._breaker.state is not State.CLOSED:
            return
        try:
            self._slots.shed_if_late(call)
        except NoSlotError as error:
            raise self._refused_by_queue(error) from None

    def answered(self, ticket: Ticket) -> None:
        """The host did what it was asked, or had a good reason not to."""
        self._slots.limit.succeeded(self._time() - ticket.began, in_flight=self._slots.in_flight)
        self._leave(ticket, failed=False)

    def failed(self, ticket: Ticket, error: GatewayError) -> None:
        """The call ended with an error."""
        reason = _first_reason(error)
        if reason in {r.ERROR_REASON_DEADLINE_EXCEEDED, r.ERROR_REASON_UPSTREAM_TIMEOUT}:
            self.given_up(ticket)
        elif reason == r.ERROR_REASON_UPSTREAM_THROTTLED:
            self._slots.limit.overloaded(ticket.began, self._time())
            self._leave(ticket, failed=False)
        elif reason in HOST_FAILURES:
            self._leave(ticket, failed=True)
        else:
            self.answered(ticket)

    def given_up(self, ticket: Ticket) -> None:
        """There was no answer in the time that the caller had: its affair when that was short, else the host's."""
        now = self._time()
        if now - ticket.began >= self._hopeless:
            self._slots.limit.overloaded(ticket.began, now)
            self._leave(ticket, failed=True)
        else:
            self._slots.limit.given_up(now - ticket.began)
            self._leave(ticket, failed=None)

    def _leave(self, ticket: Ticket, *, failed: bool | None) -> None:
        self._breaker.ended(ticket.admission, self._time(), failed=failed)
        if self._tell_state() and self._breaker.wait(self._time()):
            self._slots.write_off()
        if ticket.slot is not None:
            self._slots.give_back(ticket.slot)

    def _tell_state(self) -> bool:
        """Tell of a change of the breaker; whether there was one."""
        state = self._breaker.state
        if state is self._state:
            return False
        self._state = state
        self._telemetry.breaker(self._name, state)
        log.warning("breaker", bucket=self._name, state=state.name)
        return True

    def _refused_by_queue(self, error: NoSlotError) -> UpstreamError:
        self._telemetry.shed(self._name, error.why)
        return UpstreamError(
            r.ERROR_REASON_OVERLOADED,
            "more calls wait for the cloud than it can answer in time; nothing was sent",
            retry_after=min(_LONGEST_WAIT, max(_SHORTEST_WAIT, error.wait)),
        )

    def _refused_by_breaker(self) -> UpstreamError:
        self._telemetry.shed(self._name, "breaker")
        return UpstreamError(
            r.ERROR_REASON_UPSTREAM_BREAKER_OPEN,
            "most calls to the bucket's host failed lately; nothing was sent",
            retry_after=max(_SHORTEST_WAIT, self._breaker.wait(self._time())),
        )


def _first_reason(error: GatewayError) -> ErrorReason.ValueType:
    """What happened to the exchange: a create's unknown outcome has a cause that tells it."""
    cause = error.__cause__
    return cause.reason if isinstance(cause, GatewayError) else error.reason
