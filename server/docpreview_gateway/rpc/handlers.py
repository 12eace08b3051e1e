"""The wrapper around every gRPC handler: bounds, authentication, limits, deadline, metadata, statuses, telemetry.

It gets requests as raw bytes, so that a malformed message gets the gateway's own status: grpc.aio would answer UNKNOWN
with the names of Python classes. CancelledError is always raised again: swallowing it leaks memory in the native
library (grpc issue 43360).
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.access.directory import Unauthenticated
from docpreview_gateway.model import trace_context
from docpreview_gateway.model.call import MAX_REPLY_BYTES, Call, Method
from docpreview_gateway.model.callers import ANONYMOUS, Caller
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.outcomes import note
from docpreview_gateway.rpc.callers import authorize, identified, metadata_of
from docpreview_gateway.rpc.certificates import from_tls
from docpreview_gateway.rpc.statuses import DETAILS_KEY, RichStatus, rich_status
from docpreview_gateway.storage.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from docpreview_gateway.access.ports import Authentication
    from docpreview_gateway.limits.fair_shares import FairShares
    from docpreview_gateway.limits.ports import CallGate
    from docpreview_gateway.model.trace_context import Trace
    from docpreview_gateway.rpc.callers import Metadata
    from docpreview_gateway.rpc.certificates import CertificateOf
    from docpreview_gateway.rpc.ports import RpcTelemetry

    Context = grpc.aio.ServicerContext[bytes, bytes]

OVERLOADED_SECONDS = 0.3
"""`retry_after` of a call beyond the bounds; another replica may accept it immediately."""

DEADLINE_TICK = 0.1
"""Most seconds by which a call may outlast its deadline here. At its caller's own deadline gRPC ends it anyway."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


log = structlog.get_logger("docpreview_gateway.rpc")


def _random_ids() -> Iterator[str]:
    """Ids that tell nothing of other calls, as a counter would tell their number. In batches, which is as cheap."""
    while True:
        batch = os.urandom(_ID_BYTES * 512).hex()
        yield from (batch[at : at + 2 * _ID_BYTES] for at in range(0, len(batch), 2 * _ID_BYTES))


_ID_BYTES = 8
_IDS = _random_ids()
"""For calls without an id of their own."""

Request = TypeVar("Request", bound=Message)


@dataclass(frozen=True, slots=True)
class Route(Generic[Request]):
    """How a method is served: the type of its requests, its use-case, and the most seconds that a call may take.

    `waits`: calls wait for a job, and cost little meanwhile. `fast_path` returns the serialised reply when it needs no
    waiting, else None; it saves the cost of a timer.
    """

    method: Method
    request_type: type[Request]
    use_case: Callable[[Request, Call], Any]
    longest: float
    waits: bool = False
    fast_path: Callable[[Request, Call], bytes | None] | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Most concurrent calls of a process: `waits` of routes that wait for a job, `calls` of all others."""

    calls: int = 2000
    waits: int = 10_000


class Handlers:
    """Builds gRPC handlers from routes. `jitter` returns numbers in [0, 1).

    With an `authentication` every call is authenticated, and authorized for its method, before its request is decoded;
    without one its caller is `anonymous`. Without a `gate` callers have no limits. `shares` divides the bounds among
    authenticated callers: that of calls that wait for a job (True), and that of others.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        telemetry: RpcTelemetry,
        bounds: Bounds | None = None,
        *,
        anonymous: Caller = ANONYMOUS,
        authentication: Authentication | None = None,
        gate: CallGate | None = None,
        certificate_of: CertificateOf = from_tls,
        shares: Mapping[bool, FairShares] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._telemetry = telemetry
        self.anonymous = anonymous
        self.gate = gate
        self.shares = shares or {}
        self._jitter = jitter
        self.authentication = authentication
        self.certificate_of = certificate_of
        self._checks_callers = authentication is not None or gate is not None
        """Whether calls are authenticated or limited."""
        bounds = bounds or Bounds()
        self.free = {False: bounds.calls, True: bounds.waits}
        """Calls that may still begin, by whether they wait for a job."""
        self._deadlines = Deadlines(DEADLINE_TICK)
        self._running = 0
        self._idle: asyncio.Future[None] | None = None

    def handler(self, route: Route[Any]) -> grpc.RpcMethodHandler[bytes, bytes]:
        """The gRPC handler of a route, on raw bytes."""
        if route.method.kind == "unary":
            return grpc.unary_unary_rpc_method_handler(self._unary(route))
        return grpc.unary_stream_rpc_method_handler(self._stream(route))

    def _unary(self, route: Route[Any]) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def unary(raw: bytes, context: Context) -> bytes:
            running = _Running(self, route, context)
            try:
                if self._checks_callers:
                    await running.enter()
                else:
                    running.take_place()
                request = _decode(route, raw)
                encoded = None if route.fast_path is None else route.fast_path(request, running.call)
                if encoded is None:
                    with self._deadlines.until(running.call.deadline):
                        encoded = (await route.use_case(request, running.call)).SerializeToString()
                _check_size(encoded)
                context.set_trailing_metadata(_metadata(running.call))
            except BaseException as error:
                await running.failed(error)
                raise
            else:
                return encoded
            finally:
                running.ended()

        return unary

    def _stream(self, route: Route[Any]) -> Callable[[bytes, Context], Awaitable[None]]:
        async def stream(raw: bytes, context: Context) -> None:
            running = _Running(self, route, context)
            try:
                if self._checks_callers:
                    await running.enter()
                else:
                    running.take_place()
                await context.send_initial_metadata((("x-request-id", running.call.request_id),))
                replies = route.use_case(_decode(route, raw), running.call)
                with self._deadlines.until(running.call.deadline):
                    async with aclosing(replies):
                        async for reply in replies:
                            await running.write(reply)
                            del reply  # it would be kept until the next one is there
                            self._telemetry.message_sent(route.method)
                context.set_trailing_metadata(_metadata(running.call))
            except BaseException as error:
                await running.failed(error)
                raise
            finally:
                running.ended()

        return stream

    async def drained(self, seconds: float) -> None:
        """Wait until no handler runs, at most `seconds`: aborted ones may outlive the server (grpc issue 37239)."""
        if self._running:
            self._idle = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._idle,), timeout=seconds)

    def started(self, route: Route[Any], call: Call) -> Trace | None:
        """Count a call whose handler begins. Returns its own position in its trace, None when it is not traced."""
        self._running += 1
        return self._telemetry.call_started(route.method, call)

    def ended(self, route: Route[Any], call: Call, code: str, seconds: float) -> None:
        """Record the end of a call after `seconds`, with the status code of this name."""
        self._running -= 1
        self._telemetry.call_ended(route.method, call, code, seconds)
        if not self._running and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def trailers(self, call: Call, status: RichStatus) -> tuple[tuple[str, str | bytes], ...]:
        """Trailing metadata of an error."""
        trailers: tuple[tuple[str, str | bytes], ...] = (*_metadata(call), (DETAILS_KEY, status.details))
        # gRPC's own retries obey the pushback and ignore RetryInfo; -1 stops them where waiting cannot help.
        if status.final:
            return (*trailers, ("grpc-retry-pushback-ms", "-1"))
        if status.retry_after is None:
            return trailers
        if status.retry_after > call.deadline - time.monotonic():
            return (*trailers, ("grpc-retry-pushback-ms", "-1"))
        # Jitter, so that callers do not retry together.
        milliseconds = round(1000 * status.retry_after * (0.8 + 0.4 * self._jitter()))
        return (*trailers, ("grpc-retry-pushback-ms", str(milliseconds)))

    def check_bounds(self, route: Route[Any]) -> None:
        """Raise OVERLOADED when the process has as many calls as it accepts."""
        if self.free[route.waits] <= 0:
            raise GatewayError(
                reasons.ERROR_REASON_OVERLOADED,
                "the gateway has as many concurrent calls as it accepts; nothing was sent",
                retry_after=OVERLOADED_SECONDS,
            )


class _Running:
    """A call while its handler runs: counted and timed, its error turned into a status.

    Not a context manager: the cost of one is measurable on the path of cached jobs.
    """

    __slots__ = (
        "_admitted",
        "_begin",
        "_code",
        "_context",
        "_handlers",
        "_has_place",
        "_is_writing",
        "_metadata",
        "_route",
        "_shares",
        "call",
    )

    def __init__(self, handlers: Handlers, route: Route[Any], context: Context) -> None:
        self._handlers = handlers
        self._route = route
        self._context = context
        self._begin = time.perf_counter()
        self._code = "OK"
        self._admitted = self._has_place = self._is_writing = False
        self._shares: FairShares | None = None
        self._metadata = metadata_of(context)
        self.call = _open(context.time_remaining(), self._metadata, route.longest, handlers.anonymous)
        trace = handlers.started(route, self.call)
        if trace is not None:
            self.call = self.call._replace(trace=trace)

    async def enter(self) -> None:
        """Authenticate, authorize and admit the call, or raise.

        It takes a place among the calls of the process once it is authenticated: calls that wait for the keys of an
        issuer must not keep others out.
        """
        handlers = self._handlers
        authentication, gate = handlers.authentication, handlers.gate
        handlers.check_bounds(self._route)
        if authentication is not None:
            caller = await identified(authentication, handlers.certificate_of, self._context, self._metadata)
            # Before its rights are checked: a refusal is logged and counted as this caller's.
            self.call = self.call._replace(caller=caller)
            authorize(caller, self._route.method.name)
        self.take_place()
        shares = self._handlers.shares.get(self._route.waits)
        if shares is not None:
            shares.enter(self.call.caller.name)
            self._shares = shares
        if gate is not None:
            charge = await gate.enter(self.call.caller, self._route.method.name)
            self._admitted = True
            if charge is not None:
                self.call = self.call._replace(charge=charge)

    def take_place(self) -> None:
        """Count the call among those of the process, or raise OVERLOADED."""
        self._handlers.check_bounds(self._route)
        self._handlers.free[self._route.waits] -= 1
        self._has_place = True
        self._metadata = ()  # a stream would keep it

    async def write(self, reply: Message) -> None:
        """Send a message of a stream."""
        encoded = reply.SerializeToString()
        _check_size(encoded)
        self._is_writing = True
        await self._context.write(encoded)
        self._is_writing = False

    async def failed(self, error: BaseException) -> None:
        """Abort the call with the status of the error; a cancellation is only recorded.

        One at the deadline is gRPC's, which has answered for the gateway: the caller was not served in time. A message
        that cannot be sent is the end of the call, too: its status would have to wait until the message is read.
        """
        if isinstance(error, Exception) and not self._is_writing:
            status = _status(error, self._route, self.call)
            self._code, self.call.response.reason = status.code.name, status.reason
            note(error, self.call.response)
            await self._context.abort(status.code, status.message, self._handlers.trailers(self.call, status))
        self._code = "CANCELLED"
        if self._route.method.kind == "unary" and time.monotonic() >= self.call.answer_by:
            self._code = self.call.response.reason = "DEADLINE_EXCEEDED"
        if self._is_writing:
            raise asyncio.CancelledError from error

    def ended(self) -> None:
        """Record the end of the call, and release its caller's limits."""
        if self._admitted and self._handlers.gate is not None:
            self._handlers.gate.leave(self.call.caller)
        if self._shares is not None:
            self._shares.leave(self.call.caller.name)
        if self._has_place:
            self._handlers.free[self._route.waits] += 1
        self._handlers.ended(self._route, self.call, self._code, time.perf_counter() - self._begin)


def _decode(route: Route[Any], raw: bytes) -> Message:
    try:
        message: Message = route.request_type.FromString(raw)
    except DecodeError:
        name = route.request_type.DESCRIPTOR.full_name
        raise GatewayError(
            reasons.ERROR_REASON_MALFORMED_MESSAGE, f"the request is not a valid {name} message"
        ) from None
    return message


def _check_size(encoded: bytes) -> None:
    if len(encoded) > MAX_REPLY_BYTES:
        raise GatewayError(
            reasons.ERROR_REASON_REPLY_TOO_LARGE,
            f"the reply has {len(encoded)} bytes, more than {MAX_REPLY_BYTES}: "
            "ask for fewer jobs, or leave page_url_ttl unset",
        )


def _open(remaining: float | None, metadata: Metadata, longest: float, caller: Caller) -> Call:
    allowed = longest if remaining is None else min(remaining, longest)
    deadline = time.monotonic() + allowed
    request_id, no_cache, trace = "", False, None
    for key, value in metadata:
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            request_id = value
        elif key == "cache-control" and value == "no-cache":
            no_cache = True
        elif key == "traceparent" and isinstance(value, str):
            trace = trace_context.parse(value)
    return Call(request_id or next(_IDS), deadline, caller, no_cache, trace)


def _metadata(call: Call) -> tuple[tuple[str, str], ...]:
    """Metadata of the reply or the error."""
    metadata: tuple[tuple[str, str], ...] = (("x-request-id", call.request_id),)
    info = call.response
    if not info.disclosed:
        return metadata
    if info.cache:
        metadata = (*metadata, ("x-cache", info.cache))
    if info.upstream_request_id:
        metadata = (*metadata, ("x-upstream-request-id", info.upstream_request_id))
    return metadata


def _status(error: Exception, route: Route[Any], call: Call) -> RichStatus:
    if isinstance(error, TimeoutError):
        error = GatewayError(
            reasons.ERROR_REASON_DEADLINE_EXCEEDED,
            "the call's deadline, or the gateway's limit for it, has passed",
        )
    if isinstance(error, Unauthenticated):
        log.info("unauthenticated", request_id=call.request_id, method=route.method.name, why=error.why)
    elif not isinstance(error, GatewayError):
        log.error("unexpected error", request_id=call.request_id, method=route.method.name, exc_info=error)
        error = GatewayError(reasons.ERROR_REASON_INTERNAL, f"internal error; its request id is {call.request_id}")
    return rich_status(error, call.request_id, disclosed=call.response.disclosed)
