"""A gRPC server whose accepting of calls no bytes of a stranger can end.

grpc.aio accepts all calls in one task, decodes there the path of each call whose method is not registered, and dies of
one that is no text; then its port refuses connections for good. Here each registered method has a task that accepts its
calls, and one more accepts all others, whose path nobody looks at: no method of this server is meant. This costs less
per call, too: grpc.aio makes a task for each call that it accepts.

And a call that is broken off costs no memory: see `_Call`.

What of grpc.aio is used here is not public. `pyproject.toml` admits the versions with which it was tried.
"""

from __future__ import annotations

from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any

from grpc._cython.cygrpc import (
    AioServer,
    _handle_rpc,
    _MethodResolver,
    _RequestCallError,
    _schedule_rpc_coro,
    _ServicerContext,
    get_working_loop,
)
from grpc.aio import _server

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence

    import grpc

    OnUnknown = Callable[[str], None]
    OnEnd = Callable[[BaseException], None]

AT_ONCE = 16
"""Calls of a method that gRPC may hand over in one turn of the event loop.

With one, as in grpc.aio, each call waits for a turn of its own, and under a flood calls queue in the library, which
cancels some.
"""

MOST_PUT_OFF = 3
"""Steps of a call that has ended for whose end its cancelling waits: a message read, one written, and the status."""

_NO_METHOD = ""
"""The name of a call's method that is not registered: none has this one, so gRPC answers UNIMPLEMENTED."""


class Server(_server.Server):
    """A `grpc.aio.Server` for registered methods; generic handlers are not served.

    `on_unknown` gets the caller's address, in gRPC's notation, for each call of a method that is not registered.
    `on_end` gets the error with which the accepting of a method's calls has ended: the server is of no use any more.
    """

    def __init__(
        self,
        options: Sequence[tuple[str, int]],
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        on_unknown: OnUnknown,
        on_end: OnEnd,
    ) -> None:
        # Not that of grpc.aio, which would make a server of its own.
        self._loop = get_working_loop()
        self._server = _Accepting(self._loop, tuple(options), tuple(interceptors), on_unknown, on_end)


class _Step:
    """The end of one step of a call in the library: a message has come, or has been sent. What gRPC uses of a future.

    A step fails only when its call has ended. It is no failure here: no message is then the end of the messages, and a
    handler whose caller has left is cancelled in any case.

    It keeps its `call`: the library has a pointer to that until the step has ended, and nothing else may be left that
    holds it when the task of the call was cancelled.
    """

    # Not a subclass of asyncio's future, which awaits slower.
    __slots__ = ("call", "cancelled", "future", "set_result")

    def __init__(self, future: asyncio.Future[None], call: _Call) -> None:
        self.future = future
        self.call = call
        self.cancelled = future.cancelled
        self.set_result = future.set_result

    def set_exception(self, _error: object, /) -> None:
        self.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        return self.future.__await__()


class _Call:
    """The event loop and the task of one call, as the native server sees them. To be made in the loop's thread.

    grpc.aio never frees the memory of a step that fails or whose awaiting is cancelled, 80 bytes for each operation
    (grpc issue 43360): both happen to a call that is broken off. So steps do not fail, and the task is cancelled
    between two of them.
    """

    __slots__ = ("_loop", "_put_off", "_step", "_task", "_thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = get_ident()
        self._put_off = 0
        self._step: asyncio.Future[None]
        self._task: asyncio.Task[None]

    def create_future(self) -> _Step:
        self._step = self._loop.create_future()
        return _Step(self._step, self)

    def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: object) -> None:
        """Tell of the end of a step: at once in the loop's thread, as gRPC does for a loop that it knows."""
        if get_ident() == self._thread:
            callback(*arguments)
        else:
            self._loop.call_soon_threadsafe(callback, *arguments)

    def create_task(self, answer: Coroutine[Any, Any, None], *, name: str | None = None) -> _Call:
        self._task = self._loop.create_task(answer, name=name)
        return self

    def cancel(self) -> None:
        """Cancel the task of a call that has ended: so every step of it ends at once."""
        self._step.add_done_callback(self._cancel)

    def _cancel(self, ended: object) -> None:
        # The task, which was told of that end before, may be in the next step by now; or in one after the other, for
        # ever, if its handler writes without looking up.
        self._put_off += 1
        if ended is self._step or self._put_off > MOST_PUT_OFF:
            self._task.cancel()
        else:
            self._step.add_done_callback(self._cancel)

    def done(self) -> bool:
        return self._task.done()

    def add_done_callback(self, callback: Callable[[object], object]) -> None:
        self._task.add_done_callback(callback)

    def __await__(self) -> Generator[Any, None, None]:
        return self._task.__await__()


class _Accepting(AioServer):  # type: ignore[misc] # grpc's stubs do not tell of it
    """The native server, with another way to accept calls."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: tuple[tuple[str, int], ...],
        interceptors: tuple[grpc.aio.ServerInterceptor, ...],
        on_unknown: OnUnknown,
        on_end: OnEnd,
    ) -> None:
        super().__init__(loop, None, (), interceptors, options, None)
        self._events = loop
        self._guards = interceptors
        self._on_unknown, self._on_end = on_unknown, on_end
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add_registered_method_handlers(self, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        """Serve these methods, by their path."""
        super().add_registered_method_handlers(handlers)
        self._handlers.update(handlers)

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Task[None]:
        """What gRPC awaits for the next call of a method, None: of any that is not registered.

        It gets a task that accepts all of them, beside others, and ends with the server.
        """
        for _ in range(AT_ONCE - 1):
            self._keep(self._events.create_task(self._accept_beside(method)))
        return self._events.create_task(self._accept(method))

    async def _accept_beside(self, method: bytes | None) -> None:
        with suppress(_RequestCallError):
            await self._accept(method)

    async def _accept(self, method: bytes | None) -> None:
        try:
            while self.is_running():
                # Of one request, or of each that waits when the server stops.
                with suppress(_RequestCallError):
                    await (self._accept_unknown() if method is None else self._accept_calls(method))
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody accepts this method's calls any more
            self._on_end(error)
        else:
            raise _RequestCallError  # which tells gRPC that there are no more
        # Ended together with the others: gRPC would free memory of theirs that its library still writes to.
        await self._events.create_future()

    async def _accept_calls(self, method: bytes) -> None:
        name = method.decode()
        resolver = _MethodResolver([], self._handlers)
        while True:
            self._begin(name, resolver, await self._request_registered_call(method))

    async def _accept_unknown(self) -> None:
        resolver = _MethodResolver([], {})
        while True:
            state = await self._request_call()
            self._on_unknown(_ServicerContext(state, None, None, self._events).peer())
            self._begin(_NO_METHOD, resolver, state)

    def _begin(self, name: str, resolver: object, state: object) -> None:
        call = _Call(self._events)
        answer = _handle_rpc(name, resolver, self._guards, state, call, False)  # noqa: FBT003
        self._keep(self._events.create_task(_schedule_rpc_coro(answer, state, call, name)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Keep the task until it ends: its loop holds it weakly."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
