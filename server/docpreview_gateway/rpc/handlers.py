"""The one wrapper around every handler.

It gets the request as raw bytes, so that even a message which cannot be decoded is answered by us: grpc.aio itself
would answer UNKNOWN with the names of Python classes. CancelledError is always raised again: swallowing it leaks memory
of the native library (grpc issue 43360).
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.core.errors import GatewayError
from docpreview_gateway.ports import Call, Method
from docpreview_gateway.rpc.statuses import DETAILS_KEY, RichStatus, rich_status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from docpreview_gateway.ports import RpcTelemetry

    Context = grpc.aio.ServicerContext[bytes, bytes]

MAX_SEND_BYTES = 4 * 1024 * 1024 - 64 * 1024
"""Replies stay below the 4 MiB that clients accept by default."""

OVERLOADED_SECONDS = 0.3
"""What a refused caller is told to wait; another replica may have room at once."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

log = structlog.get_logger("docpreview_gateway.rpc")

Request = TypeVar("Request", bound=Message)


@dataclass(frozen=True, slots=True)
class Route(Generic[Request]):
    """A method, the type of its requests, the use-case that answers it, and how long a call may take, in seconds.

    `waits`: its calls wait for a job, and cost little while they do.
    """

    method: Method
    request_type: type[Request]
    use_case: Callable[[Request, Call], Any]
    longest: float
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many calls a process takes on at once, and how many of those that wait for a job."""

    calls: int = 2000
    waits: int = 10_000


class Handlers:
    """Builds gRPC handlers from routes. `jitter` gives numbers in [0, 1)."""

    def __init__(
        self, telemetry: RpcTelemetry, bounds: Bounds | None = None, *, jitter: Callable[[], float] = random.random
    ) -> None:
        self._telemetry = telemetry
        self._jitter = jitter
        bounds = bounds or Bounds()
        self._free = {False: bounds.calls, True: bounds.waits}
        self._running: set[asyncio.Task[object]] = set()

    def handler(self, route: Route[Any]) -> grpc.RpcMethodHandler[bytes, bytes]:
        """A handler of raw bytes for a route."""
        if route.method.kind == "unary":

            async def unary(raw: bytes, context: Context) -> bytes:
                async with self._call(route, context) as call:
                    reply = await _unary(route, raw, call)
                    context.set_trailing_metadata(_metadata(call))
                    self._telemetry.message_sent(route.method)
                    return reply

            return grpc.unary_unary_rpc_method_handler(unary)

        async def stream(raw: bytes, context: Context) -> AsyncGenerator[bytes, None]:
            async with self._call(route, context) as call:
                await context.send_initial_metadata((("x-request-id", call.request_id),))
                async with aclosing(_stream(route, raw, call)) as replies:
                    async for reply in replies:
                        yield reply
                        self._telemetry.message_sent(route.method)
                context.set_trailing_metadata(_metadata(call))

        return grpc.unary_stream_rpc_method_handler(stream)

    async def drained(self, seconds: float) -> None:
        """Wait until no handler runs, at most `seconds`: a stopped server may leave aborted ones (grpc issue 37239)."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    def _check_room(self, route: Route[Any]) -> None:
        if self._free[route.waits] < 0:
            raise GatewayError(
                reasons.ERROR_REASON_OVERLOADED,
                "the gateway has as many calls as it takes; nothing was sent",
                retry_after=OVERLOADED_SECONDS,
            )

    def _trailers(self, call: Call, status: RichStatus) -> tuple[tuple[str, str | bytes], ...]:
        trailers: tuple[tuple[str, str | bytes], ...] = (*_metadata(call), (DETAILS_KEY, status.details))
        if status.retry_after is None:
            return trailers
        # gRPC's own retries obey this and know nothing of RetryInfo. Spread, so that callers do not come back together.
        milliseconds = round(1000 * status.retry_after * (0.8 + 0.4 * self._jitter()))
        return (*trailers, ("grpc-retry-pushback-ms", str(milliseconds)))

    @asynccontextmanager
    async def _call(self, route: Route[Any], context: Context) -> AsyncIterator[Call]:
        begin = time.perf_counter()
        call = _open(context, route.longest)
        code = grpc.StatusCode.OK
        self._telemetry.call_started(route.method)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("handlers run in tasks")
        self._running.add(task)
        self._free[route.waits] -= 1
        try:
            self._check_room(route)
            async with asyncio.timeout_at(call.deadline):
                yield call
        except (asyncio.CancelledError, GeneratorExit):
            # GeneratorExit: the caller went away while gRPC was waiting for it to read.
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 - every error becomes a status, and unknown ones tell nothing
            status = _status(error, route, call)
            code = status.code
            await context.abort(code, status.message, self._trailers(call, status))
        finally:
            self._free[route.waits] += 1
            self._running.discard(task)
            self._telemetry.call_ended(route.method, code.name, time.perf_counter() - begin)


async def _unary(route: Route[Any], raw: bytes, call: Call) -> bytes:
    reply = await route.use_case(_decode(route, raw), call)
    return _encode(reply)


async def _stream(route: Route[Any], raw: bytes, call: Call) -> AsyncGenerator[bytes, None]:
    async with aclosing(route.use_case(_decode(route, raw), call)) as replies:
        async for reply in replies:
            yield _encode(reply)


def _decode(route: Route[Any], raw: bytes) -> Message:
    try:
        message: Message = route.request_type.FromString(raw)
    except DecodeError:
        name = route.request_type.DESCRIPTOR.full_name
        raise GatewayError(
            reasons.ERROR_REASON_MALFORMED_MESSAGE, f"the request is not a valid {name} message"
        ) from None
    return message


def _encode(reply: Message) -> bytes:
    encoded = reply.SerializeToString()
    if len(encoded) > MAX_SEND_BYTES:
        raise GatewayError(
            reasons.ERROR_REASON_REPLY_TOO_LARGE,
            f"the reply has {len(encoded)} bytes, more than {MAX_SEND_BYTES}: "
            "ask for fewer jobs, or leave page_url_ttl unset",
        )
    return encoded


def _open(context: Context, longest: float) -> Call:
    remaining = context.time_remaining()
    allowed = longest if remaining is None else min(remaining, longest)
    deadline = asyncio.get_running_loop().time() + allowed
    call = Call("", deadline)
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            call.request_id = value
        elif key == "cache-control" and value == "no-cache":
            call.no_cache = True
    call.request_id = call.request_id or secrets.token_hex(8)
    return call


def _metadata(call: Call) -> tuple[tuple[str, str], ...]:
    """What is sent back beside the reply or the error."""
    candidates = (
        ("x-request-id", call.request_id),
        ("x-upstream-request-id", call.upstream_request_id),
        ("x-cache", call.cache),
    )
    return tuple((name, value) for name, value in candidates if value)


def _status(error: Exception, route: Route[Any], call: Call) -> RichStatus:
    if isinstance(error, TimeoutError):
        error = GatewayError(
            reasons.ERROR_REASON_DEADLINE_EXCEEDED, "the call's deadline, or the gateway's, has passed"
        )
    if not isinstance(error, GatewayError):
        log.error("unexpected error", request_id=call.request_id, method=route.method.name, exc_info=error)
        error = GatewayError(reasons.ERROR_REASON_INTERNAL, f"internal error; its request id is {call.request_id}")
    return rich_status(error, call.request_id)
