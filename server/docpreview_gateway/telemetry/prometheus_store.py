"""Metrics of the store of creates, of the lists that it is compared with, and of page leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prometheus_client import CollectorRegistry


class StoreMetrics:
    """The part of the port `CreatesTelemetry` that is about the store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, help_text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, help_text, labels, registry=registry)

        self._failing = gauge(
            "docpreview_store_failing",
            "Whether creates with request_id are refused because they cannot be recorded (1).",
        )
        self._lost = gauge(
            "docpreview_store_lost", "Whether the store of creates has lost records and is not rebuilt yet (1)."
        )
        self._health = gauge(
            "docpreview_store_health",
            "Whether a check of the Redis server of the store of creates fails (1), by check.",
            ("check",),
        )
        self._evicted = gauge(
            "docpreview_store_evicted_keys", "Keys of any kind that the Redis server of the store has evicted."
        )
        self._list_lag = gauge(
            "docpreview_list_lag_seconds",
            "Seconds since the acceptance of the oldest job that the bucket's last list should have shown and did not.",
            ("bucket",),
        )
        self._leased = gauge(
            "docpreview_lease_pages",
            "Pages that a caller may spend at this process while the store cannot be reached.",
            ("caller",),
        )

    def measure_store(self, *, is_failing: Callable[[], bool], is_lost: Callable[[], bool]) -> None:
        """Show whether creates cannot be recorded, and whether the store has lost records."""
        self._failing.set_function(lambda: float(is_failing()))
        self._lost.set_function(lambda: float(is_lost()))

    def store_health(self, failing: Mapping[str, bool], evicted_keys: int) -> None:
        """Set the health of the store's server."""
        for check, fails in failing.items():
            self._health.labels(check).set(fails)
        self._evicted.set(evicted_keys)

    def list_lag(self, bucket: str, seconds: float) -> None:
        """Set by how much a bucket's list lags."""
        self._list_lag.labels(bucket).set(seconds)

    def leased(self, caller: str, pages: int) -> None:
        """Set what is left of a caller's lease."""
        self._leased.labels(caller).set(pages)
