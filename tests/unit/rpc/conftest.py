"""Real gRPC servers on free loopback ports, with use-cases made by tests."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest, WatchPreviewJobRequest
from docpreview_gateway.model.call import Method
from docpreview_gateway.rpc.handlers import Bounds, Handlers, Route
from docpreview_gateway.rpc.server import grpc_server
from docpreview_gateway.rpc.streams import Streams
from tests.fakes.telemetry import FakeTelemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SERVICE = "docpreview.v1.PreviewJobService"
GET = f"/{SERVICE}/GetPreviewJob"
WATCH = f"/{SERVICE}/WatchPreviewJob"
REQUEST = GetPreviewJobRequest(bucket="examplebucket-1250000000", job_id="d1").SerializeToString()


@dataclass
class Switchboard:
    """A running server, and a channel of raw bytes to it."""

    server: grpc.aio.Server
    handlers: Handlers
    telemetry: FakeTelemetry
    channel: grpc.aio.Channel

    def get(self, raw: bytes = REQUEST, **arguments: Any) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(GET)
        return method(raw, **arguments)

    def watch(self, raw: bytes = REQUEST, **arguments: Any) -> grpc.aio.UnaryStreamCall[bytes, bytes]:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self.channel.unary_stream(WATCH)
        return method(raw, **arguments)


@asynccontextmanager
async def switchboard(
    use_case: Callable[..., Any],
    *,
    longest: float = 30.0,
    bounds: Bounds | None = None,
    jitter: float = 0.5,
    fast_path: Callable[..., Any] | None = None,
    **more: Any,
) -> AsyncIterator[Switchboard]:
    """GetPreviewJob and WatchPreviewJob are both served by `use_case`; it has the form of one of them."""
    telemetry = FakeTelemetry()
    handlers = Handlers(telemetry, bounds, jitter=lambda: jitter, **more)
    server = grpc_server()
    routes: list[Route[Any]] = [
        Route(Method(SERVICE, "GetPreviewJob", "unary"), GetPreviewJobRequest, use_case, longest, fast_path=fast_path),
        Route(
            Method(SERVICE, "WatchPreviewJob", "server_stream"), WatchPreviewJobRequest, use_case, longest, waits=True
        ),
    ]
    streams = Streams()
    methods = {route.method.name: streams.guarded(handlers.handler(route)) for route in routes}
    server.add_registered_method_handlers(SERVICE, methods)
    try:
        async with serving(server) as channel:
            yield Switchboard(server, handlers, telemetry, channel)
    finally:
        await handlers.drained(5)


@asynccontextmanager
async def serving(server: grpc.aio.Server) -> AsyncIterator[grpc.aio.Channel]:
    """Start a server on a free port and stop it at the end; yields a channel to it."""
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


def rich(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The one `google.rpc.Status` in the error's trailers, after comparing it with code and message."""
    (found,) = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    status = status_pb2.Status.FromString(found)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    return status


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The one ErrorInfo of an error."""
    (packed,) = [detail for detail in rich(error).details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    info = error_details_pb2.ErrorInfo()
    packed.Unpack(info)
    return info
