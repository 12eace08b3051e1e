"""Metrics of outgoing webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Gauge

from docpreview_gateway.telemetry.plain_counter import PlainCounter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PrometheusWebhooks:
    """The port `WebhookTelemetry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        text = "Attempts to deliver an event to a webhook target, and deliveries given up, by what became of them."
        self._outcomes = PlainCounter("docpreview_webhook_deliveries", text, ("target", "outcome"), registry)
        waiting = "Webhook deliveries whose job has not ended."
        self._waiting = Gauge("docpreview_webhook_waiting", waiting, registry=registry)
        undelivered = "Webhook deliveries whose job has ended and that their target has not taken."
        self._undelivered = Gauge("docpreview_webhook_undelivered", undelivered, registry=registry)
        oldest = "Seconds since the end of the job of the oldest undelivered webhook delivery; 0: there is none."
        self._oldest = Gauge("docpreview_webhook_oldest_undelivered_seconds", oldest, registry=registry)

    def webhook(self, target: str, outcome: str) -> None:
        """Count an attempt or a delivery that is given up."""
        self._outcomes.count(target, outcome)

    def webhook_queue(self, waiting: int, undelivered: int, oldest_seconds: float) -> None:
        """Set what the queue holds."""
        self._waiting.set(waiting)
        self._undelivered.set(undelivered)
        self._oldest.set(oldest_seconds)
