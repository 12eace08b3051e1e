"""One connection of the built-in HTTP client: HTTP/1.1 over a transport of the event loop, parsed by llhttp."""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import TYPE_CHECKING, NamedTuple, cast

import httptools

from docpreview_gateway.model.errors import ReplyTooLarge
from docpreview_gateway.upstream import causes
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire.http import MAX_REPLY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD_BYTES = 64 * 1024
"""Cap on a reply's status line and headers."""

MAX_RECEIVED_BYTES = 4 * MAX_REPLY_BYTES
"""Cap on a reply with its framing: chunks may be small, have extensions, and end with trailers."""

_LARGE_HEAD = f"a head of more than {MAX_HEAD_BYTES // 1024} KiB"
_SWITCHING_PROTOCOLS = 101
_LAST_INFORMATIONAL = 199


class RawReply(NamedTuple):
    """A reply as it came: header names are lower case, and of headers of one name the last counts."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """A connection with at most one exchange at a time. It repeats nothing, and reports each end without a reply.

    From the first byte that is written every failure counts as sent. What the server says beyond a reply, unasked,
    between two exchanges, or against the framing rules of RFC 9112 closes the connection, so that no exchange reads
    what another one's server wrote.
    """

    __slots__ = (
        "_body",
        "_deadline",
        "_headers",
        "_is_head",
        "_is_raw",
        "_loop",
        "_on_closed",
        "_parser",
        "_poll",
        "_read_seconds",
        "_received",
        "_size",
        "_status",
        "_timer",
        "_transport",
        "_waiter",
        "idle_since",
        "usable",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        read_seconds: float,
        on_closed: Callable[[Connection], None] = lambda _connection: None,
    ) -> None:
        """`on_closed` is told once when the connection is gone, at our end or at the server's."""
        self._loop = loop
        self._read_seconds = read_seconds
        self._on_closed = on_closed
        self._waiter: asyncio.Future[RawReply] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self.idle_since = 0.0
        self.usable = False
        """Whether another exchange can begin: open, and nothing left over of the last one."""
        self._is_head = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._renew()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the open (for TLS: the verified) transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self.usable = True

    def is_quiet(self) -> bool:
        """Whether an idle connection is open with nothing to read, asked of the kernel: the loop may not know yet."""
        return self.usable and not self._transport.is_closing() and not self._poll.poll(0)

    async def exchange(self, head: bytes, body: bytes, *, is_head: bool) -> RawReply:
        """Write a request and read its reply. TransportError, ReplyTooLarge, UPSTREAM_BAD_RESPONSE: it is not HTTP.

        A cancellation closes the connection.
        """
        if self._transport.is_closing():
            raise TransportError("closed before use", sent=False)
        self._is_head = is_head
        waiter: asyncio.Future[RawReply] = self._loop.create_future()
        self._waiter = waiter
        self.usable = False
        self._deadline = self._loop.time() + self._read_seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._tick)
        self._transport.write(head)
        if body:
            self._transport.write(body)
        try:
            return await waiter
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            self._waiter = None

    def close(self) -> None:
        """Close in order, as between exchanges."""
        self.usable = False
        self._stop_timer()
        self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is in flight."""
        self.usable = False
        self._stop_timer()
        self._transport.abort()

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        """Parse what the server wrote."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.abort()
            return
        self._deadline = self._loop.time() + self._read_seconds
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # Behind a whole reply it is only the connection that is of no more use.
            self._fail(causes.not_http(str(error)))
        else:
            if self._received > MAX_HEAD_BYTES and not waiter.done():
                if self._status == 0:
                    self._fail(causes.not_http(_LARGE_HEAD))
                elif self._received > MAX_RECEIVED_BYTES:
                    self._fail(ReplyTooLarge())

    def eof_received(self) -> None:
        """The server closed its side: the end of a body that has no length, else of the connection."""
        if self._status and self._is_raw and self._is_whole():
            self._complete()
        self.usable = False

    def _is_whole(self) -> bool:
        """Whether the server itself ended what it wrote: over TLS anybody on the way can close the connection."""
        secure = self._transport.get_extra_info("ssl_object")
        if secure is None:
            return True
        try:
            return bool(secure.read(1) == b"")
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLError:
            return False

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever still waits gets no reply."""
        what = "closed by the server" if error is None else causes.of_connecting(error)
        when = "in the middle of the reply" if self._received else "before a reply"
        self._fail(TransportError(f"{what}, {when}", sent=True))
        self._on_closed(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A second reply to one request is none of ours."""
        if self._waiter is None or self._waiter.done():
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer, which is dropped."""
        if self._status == 0:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Look at the framing that the parser does not know: of HEAD, of informational replies, of endless bodies."""
        status = self._parser.get_status_code()
        if status <= _LAST_INFORMATIONAL:
            if status == _SWITCHING_PROTOCOLS:
                self._fail(causes.not_http("another protocol, which nobody asked for"))
            return
        self._status = status
        self._frame()
        if self._is_head:
            self._complete()
            self._renew()

    def _frame(self) -> None:
        """Check the size of the head and of the body that it announces; note a body that only the end ends."""
        self._is_raw = True
        size = 0
        for name, value in self._headers:
            size += len(name) + len(value) + 4
            lowered = name.lower()
            if lowered == b"content-length":
                self._is_raw = False
                if not self._is_head and int(value) > MAX_REPLY_BYTES:
                    self._fail(ReplyTooLarge())
            elif lowered == b"transfer-encoding":
                self._is_raw = False
                if value.strip().lower() != b"chunked":  # no other one was accepted, and nothing here would undo it
                    self._fail(causes.not_http("a coding of the body that nobody asked for"))
        if size > MAX_HEAD_BYTES:
            self._fail(causes.not_http(_LARGE_HEAD))

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.abort()
            return
        self._size += len(data)
        if self._size > MAX_REPLY_BYTES:
            self._fail(ReplyTooLarge())
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """The end of a reply, or of an informational one before it."""
        if self._status:
            self._complete()
        else:
            self._headers = []

    def _complete(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        headers = {
            name.lower().decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape")
            for name, value in self._headers
        }
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        waiter.set_result(RawReply(self._status, headers, body))
        self.usable = self._parser.should_keep_alive() and not self._transport.is_closing()
        self._clear()

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self.abort()

    def _renew(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._clear()

    def _clear(self) -> None:
        self._status = 0
        self._headers = []
        self._body = []
        self._size = self._received = 0
        self._is_raw = False

    # One timer lasts for many exchanges: it looks at the deadline of the present one, if there is any.

    def _tick(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._loop.time() >= self._deadline:
            self._fail(TransportError("no reply in time", sent=True, timed_out=True))
        else:
            self._timer = self._loop.call_at(self._deadline, self._tick)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
