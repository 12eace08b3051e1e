"""Metrics of recorded and deduplicated creates, and of callers' pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

from docpreview_gateway.telemetry.prometheus_store import StoreMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prometheus_client import CollectorRegistry

    from docpreview_gateway.creates.pages import Pages
    from docpreview_gateway.telemetry.prometheus_limits import PrometheusLimits


class PrometheusCreates(StoreMetrics):
    """The port `CreatesTelemetry`; page budgets are counted with the other `limits`.

    `event`, if there are traces, adds an event to the current span.
    """

    def __init__(
        self, registry: CollectorRegistry, limits: PrometheusLimits, event: Callable[..., None] | None = None
    ) -> None:
        super().__init__(registry)

        def gauge(name: str, help_text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, help_text, labels, registry=registry)

        self.limit = limits.limit
        self._event = event
        stages = "Events of creates recorded in the ledger."
        self._ledger = Counter("docpreview_ledger_events_total", stages, ("event",), registry=registry)
        self._unreconciled = gauge(
            "docpreview_ledger_unreconciled", "Creates with an unknown outcome that wait for reconciliation."
        )
        self._oldest_unreconciled = gauge(
            "docpreview_ledger_oldest_unreconciled_seconds", "Age of the oldest create that waits for reconciliation."
        )
        self._reconciled_at = gauge(
            "docpreview_ledger_reconciled_timestamp_seconds",
            "Unix time of the last reconciliation round that could read the ledger.",
        )
        self._findings = gauge(
            "docpreview_reconciliation_findings",
            "Findings of the last reconciliation with the cloud's list, by kind: jobs without a record, second jobs of "
            "a create, jobs charged wrongly, and pages by which made and counted ones differ.",
            ("bucket", "kind"),
        )
        self._list_reconciled_at = gauge(
            "docpreview_reconciliation_timestamp_seconds",
            "Unix time of the last reconciliation with the cloud's list.",
            ("bucket",),
        )
        spared = "Creates answered with the existing job of an equal create."
        self._deduped = Counter("docpreview_creates_deduped_total", spared, ("caller",), registry=registry)
        period = ("caller", "period")
        used = "Pages charged to a caller in the current period."
        self._used = gauge("docpreview_pages_used", used, period)
        reserved = "Pages reserved for unfinished jobs of a caller."
        self._reserved = gauge("docpreview_pages_reserved", reserved, period)
        left = "Pages left of a caller's budget in the current period."
        self._left = gauge("docpreview_pages_left", left, period)

    def ledger(self, event: str) -> None:
        """Count an event of a recorded create."""
        self._ledger.labels(event).inc()
        if self._event is not None:
            self._event("ledger", stage=event)

    def unreconciled(self, count: int, oldest_sent_at: float | None, now: float) -> None:
        """Set number and age of creates that wait for reconciliation."""
        self._unreconciled.set(count)
        self._oldest_unreconciled.set(0.0 if oldest_sent_at is None else max(0.0, now - oldest_sent_at))
        self._reconciled_at.set(now)

    def reconciled(self, bucket: str, findings: Mapping[str, int], now: float) -> None:
        """Set what a reconciliation of a bucket found."""
        for kind, number in findings.items():
            self._findings.labels(bucket, kind).set(number)
        self._list_reconciled_at.labels(bucket).set(now)

    def deduped(self, caller: str) -> None:
        """Count a create answered with an existing job."""
        self._deduped.labels(caller).inc()

    def pages(self, caller: str, period: str, pages: Pages, budget: int | None) -> None:
        """Set a caller's pages of the current period, as far as this process knows them."""
        self._used.labels(caller, period).set(pages.used)
        self._reserved.labels(caller, period).set(pages.reserved)
        if budget is not None:
            self._left.labels(caller, period).set(max(0, budget - sum(pages)))
