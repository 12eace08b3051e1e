"""Metrics of files that change, in a registry that is handed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class IdentityMetrics:
    """The port `ReloadTelemetry`, and when the gateway's own certificate ends."""

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
        """A file changed."""
        self._reloads.labels(what, outcome).inc()

    def certificate_ends(self, at: float) -> None:
        """When the certificate that callers are shown ends."""
        self._certificate.labels("server").set(at)
