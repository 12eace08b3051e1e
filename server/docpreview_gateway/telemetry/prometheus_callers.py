"""Metrics of callers' connections and streams, read when they are scraped: they cost the path of a call nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client import CollectorRegistry, Metric


class Connections(Protocol):
    """The callers' connections of the process."""

    most: int
    ended: int

    def count(self) -> int:
        """Number of open connections."""
        ...


class Streams(Protocol):
    """The callers' streams of the process."""

    @property
    def waiting(self) -> int:
        """Number of streams that wait for a message."""
        ...

    @property
    def served(self) -> int:
        """Number of streams whose handler runs."""
        ...

    @property
    def ended(self) -> Mapping[str, int]:
        """Number of streams that were ended, by reason."""
        ...


class PrometheusCallers:
    """A collector, registered by itself."""

    def __init__(self, registry: CollectorRegistry, connections: Connections, streams: Streams) -> None:
        self._connections, self._streams = connections, streams
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """All families, for the registry."""
        connections, streams = self._connections, self._streams
        yield GaugeMetricFamily(
            "docpreview_grpc_connections", "Open connections of callers.", value=connections.count()
        )
        yield GaugeMetricFamily(
            "docpreview_grpc_connections_limit", "Most connections of callers.", value=connections.most
        )
        by_state = GaugeMetricFamily(
            "docpreview_grpc_streams",
            "Open streams: waiting for their message, or served.",
            labels=("state",),
        )
        by_state.add_metric(("waiting",), streams.waiting)
        by_state.add_metric(("served",), streams.served)
        yield by_state
        ended = CounterMetricFamily(
            "docpreview_grpc_ended_total",
            "Streams and connections that the gateway ended, by reason.",
            labels=("reason",),
        )
        for reason, count in {**streams.ended, "silent_connection": connections.ended}.items():
            ended.add_metric((reason,), count)
        yield ended
