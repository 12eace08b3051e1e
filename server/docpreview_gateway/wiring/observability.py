"""Puts together what watches the gateway: metrics, traces and the log of calls."""

from __future__ import annotations

import asyncio
import platform
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import grpc
from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
)

from docpreview_gateway.rpc.observers import Observers
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.telemetry.call_log import CallLog
from docpreview_gateway.telemetry.prometheus_calls import PrometheusCalls
from docpreview_gateway.telemetry.prometheus_identity import IdentityMetrics
from docpreview_gateway.telemetry.prometheus_limits import PrometheusLimits
from docpreview_gateway.telemetry.prometheus_upstream import PrometheusTelemetry
from docpreview_gateway.upstream.job_ends import JobEnds
from docpreview_gateway.upstream.middleware.observed import observed
from docpreview_gateway.upstream.middleware.traced import traced

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.settings.sections import TracingSettings
    from docpreview_gateway.telemetry.opentelemetry_traces import OpenTelemetryTraces
    from docpreview_gateway.upstream.operations import Upstream


class _Traced(PrometheusTelemetry):
    """Metrics, and of what belongs to a call also an event in its span."""

    def __init__(self, registry: CollectorRegistry, event: Callable[..., None]) -> None:
        super().__init__(registry)
        self._event = event

    def cache_lookup(self, tier: str, outcome: str) -> None:
        """A tier was asked."""
        super().cache_lookup(tier, outcome)
        self._event("cache", tier=tier, outcome=outcome)

    def ledger(self, event: str) -> None:
        """A recorded create came to a stage."""
        super().ledger(event)
        self._event("ledger", stage=event)


class Observability:
    """The parts, of one gateway. `calls` hears of every call. Without traces there is no cost of them either."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        for collect in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            self.registry.register(collect)
        release, logging = version("docpreview-gateway"), settings.logging
        self.tracing = _traces(settings.tracing, release)
        self.metrics = (
            _Traced(self.registry, self.tracing.event) if self.tracing else PrometheusTelemetry(self.registry)
        )
        calls = PrometheusCalls(self.registry)
        calls.build(release, platform.python_version(), grpc.__version__)
        self.limits = PrometheusLimits(self.registry)
        self.identity = IdentityMetrics(self.registry)
        as_json = logging.format == "json" or (logging.format == "auto" and not sys.stderr.isatty())
        self.log = CallLog(clock, calls=logging.access, as_json=as_json)
        self.calls = Observers(calls, self.tracing, self.log)

    def attempts(self, client: Upstream) -> Upstream:
        """`client` with metrics and, when there is tracing, a span for every attempt."""
        attempts = observed(client, self.metrics, JobEnds(self.metrics))
        return attempts if self.tracing is None else traced(attempts, self.tracing)

    async def close(self) -> None:
        """Write and send what is left."""
        self.log.flush()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)


def _traces(settings: TracingSettings, release: str) -> OpenTelemetryTraces | None:
    if settings.endpoint is None:
        return None
    try:
        from docpreview_gateway.telemetry.opentelemetry_traces import OpenTelemetryTraces  # noqa: PLC0415 - an extra
    except ImportError:
        raise StartError('tracing.endpoint needs OpenTelemetry: pip install "docpreview-gateway[otel]"') from None
    return OpenTelemetryTraces(str(settings.endpoint), share=settings.share, version=release)
