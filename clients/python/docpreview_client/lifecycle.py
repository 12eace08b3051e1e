"""Lifecycle of a client: what it is made of, when it connects, and where it may be used."""

import asyncio
import os
from types import TracebackType
from typing import Self

from docpreview_client import forks
from docpreview_client.channel import is_loopback, open_channel, refuse_url
from docpreview_client.connection import Connection
from docpreview_client.options import ClientOptions, Tls
from docpreview_client.stream_connections import StreamConnections
from docpreview_client.tokens import Token, TokenSource, checked


class Lifecycle:
    """The parts of a client that all of its calls need."""

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        tls: Tls | None = None,
        token: Token = None,
        options: ClientOptions | None = None,
    ) -> None:
        """Validates the arguments; the connection is made by the first call.

        Args:
            target: `host:port`, or a target as gRPC resolves it: `dns:///host:port` (all addresses of the host are
                used in turn), `unix:/path`.
            tls: Encryption. Default: none, plaintext.
            token: Sent as `authorization: Bearer <token>`. A function, or an async one, is called before every call,
                for tokens that change.
            options: Deadlines, metadata, reconnects and interceptors.

        Raises:
            ValueError: The target is a URL; or a token was given, the connection is not encrypted and the target is
                not this machine.
        """
        refuse_url(target)
        if token is not None and tls is None and not is_loopback(target):
            raise ValueError(
                f"A token may not be sent to {target} in the clear: give tls, or a target on this machine."
            )
        self._target = target
        self._tls = tls
        self._token = _source(token)
        self._options = options or ClientOptions()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._calls: Connection | None = None
        self._streams: StreamConnections | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._loop is not None or self._closed:
            raise RuntimeError("This client is in use already, or closed: make one for each `async with`, or share it.")
        self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the client."""
        await self.close()

    async def close(self) -> None:
        """Closes all connections for good; calls in flight are cancelled. Closing again does nothing."""
        calls, streams, self._calls, self._streams, self._closed = self._calls, self._streams, None, None, True
        if calls is None or streams is None or self._pid != os.getpid():
            return
        try:
            await streams.close()
            await calls.close()
        finally:
            forks.closed()

    @property
    def _open(self) -> Connection:
        """The connection of short calls. The first call makes it."""
        self._check()
        if self._calls is None:
            self._connect()
        assert self._calls is not None  # noqa: S101 - for the type checker
        return self._calls

    @property
    def _open_streams(self) -> StreamConnections:
        """The connections of watches and waits."""
        _ = self._open
        assert self._streams is not None  # noqa: S101 - for the type checker
        return self._streams

    def _check(self) -> None:
        if self._closed:
            raise RuntimeError("This client is closed: make a new one.")
        forks.refuse_in_child()
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "This client belongs to another event loop, that of its first call: make one for each event loop "
                "(each `asyncio.run` has one), or use BlockingClient, which any thread may use."
            )

    def _connect(self) -> None:
        forks.opened()
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._calls = self._connection(for_streams=False)
        self._streams = StreamConnections(lambda: self._connection(for_streams=True))

    def _connection(self, *, for_streams: bool) -> Connection:
        channel = open_channel(self._target, tls=self._tls, options=self._options, for_streams=for_streams)
        return Connection(channel, token=self._token, metadata=self._options.metadata)


def _source(token: Token) -> TokenSource | None:
    if token is None or callable(token):
        return token
    value = checked(token)
    return lambda: value
