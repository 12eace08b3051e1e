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
        replaced = "gRPC servers that ended unasked, by bytes of a stranger, and were replaced on their port."
        self._replaced = Counter("docpreview_grpc_server_replacements_total", replaced, registry=registry)

    def listening(self, listening: bool) -> None:  # noqa: FBT001 - as in the port
        """Report whether connections are accepted."""
        self._listening.set(listening)

    def server_replaced(self) -> None:
        """Count a server that ended unasked."""
        self._replaced.inc()
