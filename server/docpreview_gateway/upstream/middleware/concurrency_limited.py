"""Host limiters (bulkheads): a circuit breaker and an adaptive concurrency limit for each bucket's host.

The breaker fails calls immediately while most calls to the host fail. The limit has a fair queue and sheds calls that
would not be served before their deadline. A rejected call was not sent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import structlog

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.model.circuit_breaker import State
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.upstream.middleware.permits import NoPermitError, Permits, QueueExpiredError
from docpreview_gateway.upstream.policies.host_breaker import HOST_FAILURES, host_breaker
from docpreview_gateway.upstream.ports import HostLoad

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.circuit_breaker import Admission
    from docpreview_gateway.upstream.operations import Operation, Upstream
    from docpreview_gateway.upstream.policies.adaptive_limit import LimitBounds
    from docpreview_gateway.upstream.policies.host_breaker import BreakerRules
    from docpreview_gateway.upstream.ports import UpstreamTelemetry

Result = TypeVar("Result")

_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 5.0
"""Bounds of the wait, in seconds, that a rejected caller is given."""

FAILURES_IN_A_ROW = 5
"""Requests without an answer after which a host is taken for one that does not work."""

log = structlog.get_logger("docpreview_gateway.upstream")


@dataclass(frozen=True, slots=True)
class HostLimiterRules:
    """Rules of every host limiter. A call cancelled after `timeout_after` seconds counts as an upstream timeout."""

    breaker: BreakerRules
    bounds: LimitBounds
    timeout_after: float = 1.0


class Ticket(NamedTuple):
    """An admitted call: the breaker's admission, when it began, the round of its permit (None: a probe needs none)."""

    admission: Admission
    began: float
    permit: int | None


def concurrency_limited(inner: Upstream, host_limiters: HostLimiters) -> Upstream:
    """`inner`, behind the limiter of each bucket's host. UPSTREAM_BREAKER_OPEN and OVERLOADED, with a time to retry."""

    async def attempt(operation: Operation[Result], call: Call) -> Result:
        return await host_limiters.through(operation.bucket.name, call, lambda: inner(operation, call))

    return attempt


class HostLimiters:
    """The limiters of all hosts, each made at its first use."""

    def __init__(self, *, rules: HostLimiterRules, telemetry: UpstreamTelemetry, jitter: Callable[[], float]) -> None:
        self._new = partial(HostLimiter, rules=rules, telemetry=telemetry, jitter=jitter)
        self._by_name: dict[str, HostLimiter] = {}

    async def through(self, name: str, call: Call, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Make an attempt once the limiter of this name admits the call, or raise its rejection."""
        limiter = self._by_name.get(name)
        if limiter is None:
            limiter = self._by_name[name] = self._new(name)
        ticket = await limiter.enter(call)
        try:
            result = await attempt()
        except GatewayError as error:
            limiter.failed(ticket, error)
            raise
        except BaseException:
            limiter.cancelled(ticket)
            raise
        limiter.answered(ticket)
        return result

    def shed_if_late(self, name: str, call: Call) -> None:
        """OVERLOADED when the limiter of this name would reject the call immediately."""
        if (limiter := self._by_name.get(name)) is not None:
            limiter.shed_if_late(call)

    def problem(self, name: str) -> str:
        """Why calls to the host of this name fail now; empty: they do not, as far as calls have shown."""
        limiter = self._by_name.get(name)
        return "" if limiter is None else limiter.problem


class HostLimiter:
    """The limiter of one host. Every ticket of `enter` goes to one of `answered`, `failed` and `cancelled`."""

    def __init__(
        self, name: str, *, rules: HostLimiterRules, telemetry: UpstreamTelemetry, jitter: Callable[[], float]
    ) -> None:
        self._name = name
        self._timeout_after = rules.timeout_after
        self._telemetry = telemetry
        self._breaker = host_breaker(rules.breaker, jitter)
        self._state = self._breaker.state
        self._is_refused = False
        self._failures = 0
        """Since the last answer."""
        self._why = ""
        """What the last of them was."""
        self._permits = permits = Permits(rules.bounds)
        telemetry.measure_host(name, lambda: HostLoad(permits.in_flight, permits.limit.value, permits.queued))

    @property
    def problem(self) -> str:
        """Why calls to the host fail now; empty: they do not, as far as calls have shown."""
        if self._is_refused:
            return "it refuses the gateway's key or signature (UPSTREAM_CREDENTIALS)"
        state = self._breaker.state
        if state is not State.CLOSED:
            return f"its circuit breaker is {state.word}; last failure: {self._why}"
        # Few callers do not open the breaker, and fail all the same.
        if self._failures < FAILURES_IN_A_ROW:
            return ""
        return f"its last {self._failures} requests failed; last failure: {self._why}"

    async def enter(self, call: Call) -> Ticket:
        """Admit a call or raise."""
        admission = self._breaker.admit(time.monotonic())
        self._record_state()
        if admission is None:
            raise self._rejected_by_breaker()
        if admission.probe:
            return Ticket(admission, time.monotonic(), None)
        try:
            permit = await self._permits.acquire(call)
        except NoPermitError as error:
            raise self._rejected_by_queue(error) from None
        except QueueExpiredError:
            raise self._rejected_by_breaker() from None
        return Ticket(admission, time.monotonic(), permit)

    def shed_if_late(self, call: Call) -> None:
        """OVERLOADED when `enter` would raise it immediately. The breaker's decision is left to `enter`."""
        if self._breaker.state is not State.CLOSED:
            return
        try:
            self._permits.shed_if_late(call)
        except NoPermitError as error:
            raise self._rejected_by_queue(error) from None

    def answered(self, ticket: Ticket) -> None:
        """The host answered, with a result or with a refusal of its own."""
        self._is_refused = False
        self._failures = 0
        self._permits.limit.succeeded(time.monotonic() - ticket.began, in_flight=self._permits.in_flight)
        self._leave(ticket, failed=False)

    def failed(self, ticket: Ticket, error: GatewayError) -> None:
        """The call ended with an error."""
        reason = _first(error).reason
        if reason in {r.ERROR_REASON_DEADLINE_EXCEEDED, r.ERROR_REASON_UPSTREAM_TIMEOUT, r.ERROR_REASON_OVERLOADED}:
            # OVERLOADED: a create whose `send_by` has passed was not sent, which says nothing about the host.
            self.cancelled(ticket)
        elif reason == r.ERROR_REASON_UPSTREAM_THROTTLED:
            self._permits.limit.overloaded(ticket.began, time.monotonic())
            self._leave(ticket, failed=False)
        elif reason in HOST_FAILURES:
            self._leave(ticket, failed=True, why=_first(error).message)
        else:
            self.answered(ticket)
            self._is_refused = reason == r.ERROR_REASON_UPSTREAM_CREDENTIALS

    def cancelled(self, ticket: Ticket) -> None:
        """No answer came before the call's deadline or cancellation; a failure after `timeout_after`."""
        now = time.monotonic()
        if now - ticket.began >= self._timeout_after:
            self._permits.limit.overloaded(ticket.began, now)
            self._leave(ticket, failed=True, why="no reply in time")
        else:
            self._permits.limit.given_up(now - ticket.began)
            self._leave(ticket, failed=None)

    def _leave(self, ticket: Ticket, *, failed: bool | None, why: str = "") -> None:
        self._why = why or self._why
        self._breaker.ended(ticket.admission, time.monotonic(), failed=failed)
        self._failures += bool(failed)
        if self._record_state() and self._breaker.wait(time.monotonic()):
            self._permits.expire()
        if ticket.permit is not None:
            self._permits.release(ticket.permit)

    def _record_state(self) -> bool:
        """Record a change of the breaker's state. Returns whether there was one."""
        state = self._breaker.state
        if state is self._state:
            return False
        self._state = state
        self._telemetry.breaker(self._name, state)
        why = {"why": self._why} if state is State.OPEN else {}
        log.warning("circuit breaker changed state", bucket=self._name, state=state.word, **why)
        return True

    def _rejected_by_queue(self, error: NoPermitError) -> UpstreamError:
        self._telemetry.shed(self._name, error.why)
        return UpstreamError(
            r.ERROR_REASON_OVERLOADED,
            "more calls wait for the cloud than it can answer in time; nothing was sent",
            retry_after=min(_LONGEST_WAIT, max(_SHORTEST_WAIT, error.wait)),
        )

    def _rejected_by_breaker(self) -> UpstreamError:
        self._telemetry.shed(self._name, "breaker")
        return UpstreamError(
            r.ERROR_REASON_UPSTREAM_BREAKER_OPEN,
            "most calls to the bucket's host failed lately; nothing was sent",
            retry_after=max(_SHORTEST_WAIT, self._breaker.wait(time.monotonic())),
        )


def _first(error: GatewayError) -> GatewayError:
    """The error of the exchange itself: a create of unknown outcome wraps it as its cause."""
    cause = error.__cause__
    return cause if isinstance(cause, GatewayError) else error
