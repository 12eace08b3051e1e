"""Metrics of uploads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from prometheus_client import Counter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PrometheusUploads:
    """The port `UploadsTelemetry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._bytes = Counter(
            "docpreview_upload_bytes_total",
            "Bytes of uploads of a caller, by stage: announced by CreateUpload, and completed by CompleteUpload.",
            ("caller", "stage"),
            registry=registry,
        )

    def uploaded(self, caller: str, stage: Literal["announced", "completed"], size: int) -> None:
        """Count the bytes of an upload."""
        self._bytes.labels(caller, stage).inc(size)
