"""Metrics of files that are reloaded, and of the gateway's certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PrometheusAccess:
    """The port `AccessTelemetry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reloads = Counter(
            "docpreview_reloads_total", "Reloads of changed files, by outcome.", ("file", "outcome"), registry=registry
        )
        self._certificate = Gauge(
            "docpreview_certificate_expiry_timestamp_seconds",
            "Unix time at which the certificate expires.",
            ("certificate",),
            registry=registry,
        )

    def reloaded(self, what: str, outcome: str) -> None:
        """Count a reload of a file."""
        self._reloads.labels(what, outcome).inc()

    def certificate_ends(self, at: float) -> None:
        """Set the expiry of the server's certificate."""
        self._certificate.labels("server").set(at)
