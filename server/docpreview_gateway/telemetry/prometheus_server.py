"""Metrics of the gRPC server as such: whether it listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PrometheusServer:
    """The part of the port `RpcTelemetry` that is about the server, not about calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        listening = "Processes that accept gRPC connections."
        self._listening = Gauge("docpreview_grpc_listening", listening, registry=registry)
        unknown = "Calls of methods that do not exist."
        self._unknown = Counter("docpreview_grpc_unknown_methods_total", unknown, registry=registry)

    def listening(self, listening: bool) -> None:  # noqa: FBT001 - as in the port
        """Report whether connections are accepted."""
        self._listening.set(listening)

    def unknown_method(self) -> None:
        """Count a call of a method that does not exist."""
        self._unknown.inc()
