"""The gRPC server: channel arguments, health, reflection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from docpreview_gateway.model.call import MAX_REPLY_BYTES
from docpreview_gateway.model.contract import SERVICE_NAMES
from docpreview_gateway.rpc.accepting import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import FileDescriptor

    from docpreview_gateway.rpc.accepting import OnEnd, OnUnknown
    from docpreview_gateway.rpc.streams import Streams

MAX_RECEIVE_BYTES = 1024 * 1024
MAX_METADATA_BYTES = 16 * 1024
MOST_CONNECTIONS = 1000
MOST_STREAMS, MOST_STREAMS_OF_EDGE = 100, 1000
"""Open streams of a connection, and of one of the edge, which carries the calls of many.

gRPC counts a stream until Python has seen its end, and refuses a further one meanwhile. So that of the edge is far
above the number of streams that Envoy opens (wiring/edge_config.py): strangers who leave at once would else have the
calls of others refused.
"""

REUSE_PORT = "grpc.so_reuseport"
_AGE_MARGIN = 30.0
CHANNEL_ARGUMENTS: Sequence[tuple[str, int]] = (
    # Limits of a connection and of the process, as an Envoy at the edge would set them.
    ("grpc.max_allowed_incoming_connections", MOST_CONNECTIONS),
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", MAX_REPLY_BYTES + 1024),
    # What a stream may send ahead of a reader. gRPC's 4 MiB for each stream, and more after a probe of the bandwidth,
    # would be far more than the memory of a process.
    ("grpc.http2.lookahead_bytes", 65_536),
    ("grpc.http2.bdp_probe", 0),
    # Soft and hard limit are equal: between two different ones gRPC rejects at random.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    # Clients are told to ping every 30 s, also without calls.
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.keepalive_permit_without_calls", 1),
    # Detects dead peers behind NAT.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_connection_idle_ms", 300_000),
    # For TLS and the settings; and for the acknowledgement of ours, without which gRPC would wait for two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.http2.settings_timeout", 10_000),
    ("grpc.server_max_unrequested_time_in_server", 5),
    # Calls of all connections that wait for the event loop. Above the first number gRPC cancels some at random, above
    # the second all; one stranger can bring that about (docs/security.md). With its defaults, 1000 and 3000, calls wait
    # beyond many deadlines: under ten times its capacity the gateway would answer most of them too late
    # (tests/faults/test_overload.py). With 10,000 honest calls waited for seconds under that stranger.
    ("grpc.server.max_pending_requests", 500),
    ("grpc.server.max_pending_requests_hard_limit", 1000),
    ("grpc.enable_channelz", 0),
    ("grpc.max_channel_trace_event_memory_per_node", 0),
)
"""gRPC silently ignores unknown names: `tests/unit/rpc/test_server.py` looks each up in the library."""


def grpc_server(  # noqa: PLR0913 - what is served, how long, and who is told
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    *,
    shares_port: bool = False,
    connection_age: float = 120.0,
    longest_stream: float = 300.0,
    most_streams: int = MOST_STREAMS,
    on_unknown: OnUnknown = lambda _peer: None,
    on_end: OnEnd = lambda _error: None,
) -> grpc.aio.Server:
    """A server with CHANNEL_ARGUMENTS, which bound message sizes and pings before any Python code runs.

    With `shares_port` several workers listen on one port; without it a second server on the port fails instead of
    silently taking half of the connections. Connections are closed after `connection_age` seconds (+-10 % by gRPC
    itself), so that starting replicas get their share and stopping ones lose theirs; open streams of up to
    `longest_stream` seconds still run to their end. `on_unknown` and `on_end`: see `Server`.
    """
    options = (
        *CHANNEL_ARGUMENTS,
        ("grpc.max_concurrent_streams", most_streams),
        *age_arguments(connection_age, longest_stream),
        (REUSE_PORT, int(shares_port)),
    )
    return cast("grpc.aio.Server", Server(options, interceptors, on_unknown, on_end))


def age_arguments(connection_age: float, longest_stream: float) -> Sequence[tuple[str, int]]:
    """The channel arguments that depend on settings; both in seconds."""
    return (
        ("grpc.max_connection_age_ms", round(1000 * connection_age)),
        ("grpc.max_connection_age_grace_ms", round(1000 * (longest_stream + _AGE_MARGIN))),
    )


class _HealthServicer(health.aio.HealthServicer):  # type: ignore[misc] # the library is not typed
    async def List(self, _request: object, _context: object) -> health_pb2.HealthListResponse:  # noqa: N802 - named by gRPC
        """The library's own answers that it is not implemented, with the name of a Python class."""
        found = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._server_status.items()}
        return health_pb2.HealthListResponse(statuses=found)


class Health:
    """`grpc.health.v1` for the server as a whole and for each service by name."""

    def __init__(self) -> None:
        self._servicer = _HealthServicer()

    def register(self, server: grpc.aio.Server, streams: Streams) -> None:
        """Serve the health of this process on `server`."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, streams.side(server))

    async def serving(self) -> None:
        """Report SERVING for the server and every service."""
        for name in ("", *SERVICE_NAMES):
            await self._servicer.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def leaving(self) -> None:
        """Report NOT_SERVING from now on, for good."""
        await self._servicer.enter_graceful_shutdown()


class _PoolWithMethods:
    """A descriptor pool that also finds methods: Python's does not, and tools such as ghz look them up."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the pool
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - named by protobuf
        service, _, method = symbol.rpartition(".")
        try:
            found = self._pool.FindServiceByName(service)
        except KeyError:
            return self._pool.FindFileContainingSymbol(symbol)
        if method not in found.methods_by_name:
            raise KeyError(symbol)
        return found.file


def enable_reflection(server: grpc.aio.Server, streams: Streams) -> None:
    """Serve the contract's descriptors to tools such as grpcurl, which ask for v1 of the service before v1alpha."""
    from grpc_reflection.v1alpha import reflection, reflection_pb2  # noqa: PLC0415 - cost memory; most run without

    _describe_v1(reflection_pb2.DESCRIPTOR)
    versions = reflection.SERVICE_NAME, reflection.SERVICE_NAME.replace("v1alpha", "v1")
    names = (*SERVICE_NAMES, health.SERVICE_NAME, *versions)
    servicer = reflection.aio.ReflectionServicer(names, pool=_PoolWithMethods())
    # The messages of both are the same on the wire, and the library has only those of v1alpha.
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in versions:
        streams.side(server).add_registered_method_handlers(name, {"ServerReflectionInfo": handler})


def _describe_v1(alpha: FileDescriptor) -> None:
    """Add the descriptors of v1 of reflection to the pool: tools that describe all listed services ask for them."""
    proto = descriptor_pb2.FileDescriptorProto()
    alpha.CopyToProto(proto)
    text = text_format.MessageToString(proto).replace("v1alpha", "v1")
    v1 = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())
