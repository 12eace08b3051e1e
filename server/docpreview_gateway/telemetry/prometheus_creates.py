"""Metrics of recorded and deduplicated creates, and of callers' pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from docpreview_gateway.telemetry.prometheus_store import StoreMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client import CollectorRegistry, Metric

    from docpreview_gateway.creates.pages import CallerPages
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
        self._unreconciled = _Unreconciled(registry)
        self._reconciled_at = gauge(
            "docpreview_ledger_reconciled_timestamp_seconds",
            "Unix time of the last round that could read the records of creates, at first that of the start.",
        )
        # A process that has just started is not one whose rounds have stopped.
        self._reconciled_at.set_to_current_time()
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
        used = "Pages charged to a caller in the current period, at all replicas."
        self._used = gauge("docpreview_pages_used", used, period)
        reserved = "Pages reserved for unfinished jobs of a caller, at all replicas."
        self._reserved = gauge("docpreview_pages_reserved", reserved, period)
        leased = "Pages leased to replicas, for creates of a caller while they cannot reach the store."
        self._leased_to_all = gauge("docpreview_pages_leased", leased, period)
        left = "Pages left of a caller's budget in the current period."
        self._left = gauge("docpreview_pages_left", left, period)

    def ledger(self, event: str) -> None:
        """Count an event of a recorded create."""
        self._ledger.labels(event).inc()
        if self._event is not None:
            self._event("ledger", stage=event)

    def unreconciled(self, count: int, oldest_sent_at: float | None, now: float) -> None:
        """Set number and age of creates that wait for reconciliation."""
        self._unreconciled.found = count, 0.0 if oldest_sent_at is None else max(0.0, now - oldest_sent_at)
        self._reconciled_at.set(now)

    def reconciled(self, bucket: str, findings: Mapping[str, int], now: float) -> None:
        """Set what a reconciliation of a bucket found."""
        for kind, number in findings.items():
            self._findings.labels(bucket, kind).set(number)
        self._list_reconciled_at.labels(bucket).set(now)

    def deduped(self, caller: str) -> None:
        """Count a create answered with an existing job."""
        self._deduped.labels(caller).inc()

    def pages(self, found: Sequence[CallerPages]) -> None:
        """Set the pages of all callers; those that are not among them have none."""
        for gauge in (self._used, self._reserved, self._leased_to_all, self._left):
            gauge.clear()
        for each in found:
            labels = each.caller, each.period
            self._used.labels(*labels).set(each.used)
            self._reserved.labels(*labels).set(each.reserved)
            self._leased_to_all.labels(*labels).set(each.leased)
            if each.left is not None:
                self._left.labels(*labels).set(each.left)


class _Unreconciled(Collector):
    """Creates with an unknown outcome. Without samples before the first round: 0 would say that there are none."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.found: tuple[int, float] | None = None
        """Their number, and the age of the oldest in seconds."""
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Both families, for the registry."""
        number, age = self.found or (None, None)
        yield GaugeMetricFamily(
            "docpreview_ledger_unreconciled",
            "Creates with an unknown outcome that wait for reconciliation.",
            value=number,
        )
        yield GaugeMetricFamily(
            "docpreview_ledger_oldest_unreconciled_seconds",
            "Age of the oldest create that waits for reconciliation.",
            value=age,
        )
