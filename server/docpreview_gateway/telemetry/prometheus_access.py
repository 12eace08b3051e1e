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
        self._refused = Gauge(
            "docpreview_file_refused",
            "1 while a file on disk is refused and its last valid version is in use, 0 when that on disk is in use.",
            ("file",),
            registry=registry,
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

    def file_refused(self, what: str, refused: bool) -> None:  # noqa: FBT001 - as in the port
        """Set whether a file of this kind is refused now."""
        self._refused.labels(what).set(refused)

    def certificate_ends(self, at: float) -> None:
        """Set the expiry of the server's certificate."""
        self._certificate.labels("server").set(at)
