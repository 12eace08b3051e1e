"""The gRPC server and its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from docpreview_gateway.model.contract import SERVICE_NAMES
from docpreview_gateway.rpc.handlers import MAX_SEND_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import FileDescriptor

MAX_RECEIVE_BYTES = 1024 * 1024
MAX_METADATA_BYTES = 16 * 1024

SHARES_PORT = "grpc.so_reuseport"
_AGE_MARGIN = 30.0
CHANNEL_ARGUMENTS: Sequence[tuple[str, int]] = (
    # Caps for one connection and one process: what an Envoy at the edge would use.
    ("grpc.max_concurrent_streams", 100),
    ("grpc.max_allowed_incoming_connections", 1000),
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", MAX_SEND_BYTES + 1024),
    # Soft and hard limit the same: between two different ones gRPC refuses at random.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    # Clients are told to ping every 30 s, also without calls.
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.keepalive_permit_without_calls", 1),
    # Finds dead peers behind NAT.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.server_max_unrequested_time_in_server", 5),
    # Calls that wait for the event loop, of all connections. Above the first number gRPC cancels some at random, above
    # the second all. Its own 1000 and 3000 let calls wait for longer than many callers do, so that under ten times the
    # load that it can bear the gateway would answer most of them too late (tests/faults/test_overload.py).
    ("grpc.server.max_pending_requests", 500),
    ("grpc.server.max_pending_requests_hard_limit", 1000),
    ("grpc.enable_channelz", 0),
    ("grpc.max_channel_trace_event_memory_per_node", 0),
)
"""Unknown names are silently ignored by gRPC: `tests/unit/rpc/test_server.py` looks each up in the library."""


def grpc_server(
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    *,
    shares_port: bool = False,
    connection_age: float = 120.0,
    longest_stream: float = 300.0,
) -> grpc.aio.Server:
    """A server with the settings above. Message sizes and pings are bounded before any of our code runs.

    Unless it is one of several workers that share a port, a second server on the port fails instead of silently taking
    half of the connections. Connections are renewed after `connection_age` seconds (+-10 % by gRPC itself), so that new
    replicas get their share and those that leave lose theirs; a stream of `longest_stream` seconds that runs then comes
    to its end.
    """
    options = (*CHANNEL_ARGUMENTS, *ages(connection_age, longest_stream), (SHARES_PORT, int(shares_port)))
    return grpc.aio.server(options=options, interceptors=interceptors)


def ages(connection_age: float, longest_stream: float) -> Sequence[tuple[str, int]]:
    """The channel arguments that depend on settings; both in seconds."""
    return (
        ("grpc.max_connection_age_ms", round(1000 * connection_age)),
        ("grpc.max_connection_age_grace_ms", round(1000 * (longest_stream + _AGE_MARGIN))),
    )


class Health:
    """`grpc.health.v1` for the server as a whole and for each service by name."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def serving(self) -> None:
        """Everything answers."""
        for name in ("", *SERVICE_NAMES):
            await self._servicer.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def leaving(self) -> None:
        """Nothing new, please: NOT_SERVING for good."""
        await self._servicer.enter_graceful_shutdown()


class _MethodsToo:
    """The pool of descriptors; it also finds methods, which Python's does not and tools such as ghz ask for."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the pool has
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


def enable_reflection(server: grpc.aio.Server) -> None:
    """Let tools such as grpcurl ask for the contract."""
    from grpc_reflection.v1alpha import reflection  # noqa: PLC0415 - costs memory, and most gateways run without

    reflection.enable_server_reflection(
        (*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME), server, pool=_MethodsToo()
    )
