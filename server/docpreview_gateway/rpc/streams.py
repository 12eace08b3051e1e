"""The open streams of a process, and the end of those whose message does not come.

gRPC hands a unary call to Python when its headers are there, and waits for its message for ever: a stranger without a
token could hold memory with headers alone, outside of all limits of calls. So the wrapper of `Streams.guarded` reads
the message itself: a unary method is registered as one that streams requests, which is the same on the wire. Nothing is
cancelled, because gRPC ends a stream only when it has a status to send: the stream is aborted from outside, and the
read that waits for its message then raises AbortError.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import grpc
from google.protobuf.message import DecodeError

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.rpc.statuses import DETAILS_KEY, rich_status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
    Decode = Callable[[bytes], Any]

PATIENCE = 10.0
"""Seconds in which the message of a stream must come. Clients send it together with the headers."""

WATCHDOG_SECONDS = 1.0
"""Interval between checks of streams and connections."""

MOST_WAITING = 100
"""Most streams that wait for their message, but for those of the last second. Half a message may hold up to a MiB."""

YOUNG_SECONDS, MOST_YOUNG = 1.0, 10
"""A stream waits for so long undisturbed, unless there are so many times `MOST_WAITING` of them.

The message of an honest call is there with its headers, but the event loop may read it only after those of others.
"""

MOST_SIDE = 1000
"""Most streams of health and reflection, which no limit of calls counts: one for each connection."""

OVERLOADED_SECONDS = 0.3
"""`retry_after` of a stream that was ended for others; another replica may have room."""

Why = Literal["no_message", "crowded"]
"""Why a stream was ended: its message did not come in time, or others came and it had waited longest."""

_TEXTS = {
    "no_message": (
        reasons.ERROR_REASON_DEADLINE_EXCEEDED,
        "the request message did not come in time: send it together with the headers",
    ),
    "crowded": (
        reasons.ERROR_REASON_OVERLOADED,
        "the gateway awaits as many request messages as it can, and this one has taken longest; nothing was sent",
    ),
}


class Streams:
    """The open streams of a process. `clock` returns seconds.

    A stream whose message has not come after `patience` seconds is ended; beyond `most_waiting` of them those that
    have waited longest are ended, once they have waited for `YOUNG_SECONDS`, so that the streams of strangers make room
    for those of honest callers. At most `most_side` streams of health and reflection are served.
    """

    def __init__(
        self,
        patience: float = PATIENCE,
        most_waiting: int = MOST_WAITING,
        most_side: int = MOST_SIDE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = patience
        self._most_waiting = most_waiting
        self._most_side = most_side
        self._clock = clock
        self._since: dict[Context, float] = {}
        """Streams that wait for a message and since when, the oldest first."""
        self._calls: set[Context] = set()
        self._side: set[Context] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self.ended: dict[str, int] = {"no_message": 0, "crowded": 0}
        """Number of streams that were ended, by reason."""

    @property
    def waiting(self) -> int:
        """Number of streams that wait for a message."""
        return len(self._since)

    @property
    def served(self) -> int:
        """Number of streams whose message has come and whose handler runs."""
        return len(self._calls) + len(self._side)

    def peers(self) -> set[str]:
        """Addresses, in gRPC's notation, of callers whose calls are served now; without those of health, reflection."""
        return {context.peer() for context in self._calls}

    async def check(self) -> None:
        """End the streams whose message has not come in time; to be repeated every second or so."""
        late = self._clock() - self._patience
        for context in [context for context, since in self._since.items() if since <= late]:
            self._end(context, "no_message")
        while len(self._since) > self._most_waiting and not self._is_young(next(iter(self._since))):
            self._end(next(iter(self._since)), "crowded")

    def guarded(self, handler: Handler) -> Handler:
        """The handler of a method of the contract, which gets its message when that has come."""
        return self._guarded(handler, self._calls)

    def side(self, server: grpc.aio.Server) -> SideServer:
        """What health and reflection see as the server, so that their streams are guarded too."""
        return SideServer(server, lambda handler: self._guarded(handler, self._side))

    def _guarded(self, handler: Handler, group: set[Context]) -> Handler:
        # Requests are decoded here: for one that cannot be, grpc.aio answers UNKNOWN with the names of Python classes.
        decode, coders = handler.request_deserializer or bytes, (None, handler.response_serializer)
        if handler.unary_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._unary(handler.unary_unary, group, decode), *coders)
        if handler.unary_stream is not None:
            # It writes to its context: each generator of a stream would take half a KiB for as long as it is open.
            return grpc.stream_stream_rpc_method_handler(self._unary(handler.unary_stream, group, decode), *coders)
        return grpc.stream_stream_rpc_method_handler(self._stream(handler.stream_stream, group, decode), *coders)

    def _unary(self, answer: Any, group: set[Context], decode: Decode) -> Any:  # noqa: ANN401 - gRPC's stubs do not type handlers
        async def unary(_requests: object, context: Context) -> Any:  # noqa: ANN401
            request = await self._message(context, decode)
            if request is grpc.aio.EOF:
                await _refuse_empty(context)
            if group is self._side:
                await self._check_side(context)
            group.add(context)
            try:
                return await answer(request, context)
            finally:
                group.discard(context)

        return unary

    def _stream(self, answer: Any, group: set[Context], decode: Decode) -> Any:  # noqa: ANN401
        async def stream(_requests: object, context: Context) -> AsyncGenerator[Any, None]:
            if group is self._side:
                await self._check_side(context)
            group.add(context)
            try:
                async with aclosing(answer(self._messages(context, decode), context)) as replies:
                    async for reply in replies:
                        yield reply
            finally:
                group.discard(context)

        return stream

    async def _check_side(self, context: Context) -> None:
        if len(self._side) >= self._most_side:
            text = "the gateway has as many streams of health and reflection as it serves"
            await _abort(context, reasons.ERROR_REASON_OVERLOADED, text)

    async def _messages(self, context: Context, decode: Decode) -> AsyncGenerator[Any, None]:
        """The messages of a stream, each of which has to come in time."""
        while (message := await self._message(context, decode)) is not grpc.aio.EOF:
            yield message

    async def _message(self, context: Context, decode: Decode) -> Any:  # noqa: ANN401
        """The next message of a stream, decoded, or EOF. AbortError when it cannot be decoded."""
        if (raw := await self._read(context)) is grpc.aio.EOF:
            return raw
        try:
            return decode(raw)
        except DecodeError:
            reason = reasons.ERROR_REASON_MALFORMED_MESSAGE
            await _abort(context, reason, "the request is not a valid message of this method")

    async def _read(self, context: Context) -> Any:  # noqa: ANN401
        """The next message of a stream, or EOF. AbortError when the stream was ended before it came."""
        waiting = self._since
        if len(waiting) >= self._most_waiting:
            oldest = next(iter(waiting))
            if len(waiting) >= MOST_YOUNG * self._most_waiting or not self._is_young(oldest):
                self._end(oldest, "crowded")
        waiting[context] = self._clock()
        try:
            return await context.read()
        finally:
            waiting.pop(context, None)

    def _is_young(self, context: Context) -> bool:
        return self._since[context] > self._clock() - YOUNG_SECONDS

    def _end(self, context: Context, why: Why) -> None:
        """End a waiting stream with a status; its read then raises AbortError."""
        del self._since[context]
        self.ended[why] += 1
        ending = asyncio.get_running_loop().create_task(_ended(context, *_TEXTS[why]))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


class SideServer:
    """The part of a server that generated code registers handlers with: each passes through `guarded`."""

    def __init__(self, server: grpc.aio.Server, guarded: Callable[[Handler], Handler]) -> None:
        self._server = server
        self._guarded = guarded

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: generated code registers the same handlers again, below."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Serve the methods of `service`, guarded."""
        guarded = {name: self._guarded(handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, guarded)


async def _ended(context: Context, reason: reasons.ErrorReason.ValueType, text: str) -> None:
    # Any other error: the caller or the server is gone meanwhile, and the stream with it.
    with suppress(Exception):
        await _abort(context, reason, text)


async def _refuse_empty(context: Context) -> NoReturn:
    await _abort(context, reasons.ERROR_REASON_MALFORMED_MESSAGE, "the call has no request message")


async def _abort(context: Context, reason: reasons.ErrorReason.ValueType, text: str) -> NoReturn:
    wait = OVERLOADED_SECONDS if reason == reasons.ERROR_REASON_OVERLOADED else None
    status = rich_status(GatewayError(reason, text, retry_after=wait), "")
    await context.abort(status.code, status.message, ((DETAILS_KEY, status.details),))
