"""The telemetry of one gateway: metrics of each part, traces, and the log of calls."""

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

from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.telemetry.call_log import CallLog
from docpreview_gateway.telemetry.prometheus_access import PrometheusAccess
from docpreview_gateway.telemetry.prometheus_callbacks import PrometheusCallbacks
from docpreview_gateway.telemetry.prometheus_creates import PrometheusCreates
from docpreview_gateway.telemetry.prometheus_jobs import PrometheusJobs
from docpreview_gateway.telemetry.prometheus_limits import PrometheusLimits
from docpreview_gateway.telemetry.prometheus_rpc import PrometheusRpc
from docpreview_gateway.telemetry.prometheus_server import PrometheusServer
from docpreview_gateway.telemetry.prometheus_uploads import PrometheusUploads
from docpreview_gateway.telemetry.prometheus_upstream import PrometheusUpstream
from docpreview_gateway.telemetry.prometheus_webhooks import PrometheusWebhooks
from docpreview_gateway.telemetry.recent_calls import RecentCalls
from docpreview_gateway.upstream.job_ends import JobEnds
from docpreview_gateway.upstream.middleware.observed import observed
from docpreview_gateway.upstream.middleware.traced import traced
from docpreview_gateway.wiring.preflight import tracing_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.model.call import Call, Clock, Method
    from docpreview_gateway.model.trace_context import Trace
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.settings.sections import TracingSettings
    from docpreview_gateway.telemetry.opentelemetry_traces import OpenTelemetryTraces
    from docpreview_gateway.upstream.operations import Upstream


class CallTelemetry:
    """The port `RpcTelemetry`: metrics of the server; of every call metrics, log, and its span if there are traces.

    The last calls are in `recent` too.
    """

    def __init__(
        self,
        metrics: PrometheusRpc,
        server: PrometheusServer,
        recent: RecentCalls,
        traces: OpenTelemetryTraces | None,
        log: CallLog,
    ) -> None:
        self._metrics, self._recent, self._traces, self._log = metrics, recent, traces, log
        self.message_sent = metrics.message_sent
        self.listening, self.unknown_method = server.listening, server.unknown_method

    def call_started(self, method: Method, call: Call) -> Trace | None:
        """Record a started call and start its span, if there are traces."""
        self._metrics.call_started(method, call)
        return None if self._traces is None else self._traces.call_started(method, call)

    def call_ended(self, method: Method, call: Call, code: str, seconds: float) -> None:
        """Record an ended call and end its span."""
        self._metrics.call_ended(method, call, code, seconds)
        self._recent.call_ended(method, call, code, seconds)
        if self._traces is not None:
            self._traces.call_ended(method, call, code, seconds)
        self._log.call_ended(method, call, code, seconds)


class Observability:
    """The telemetry of each part by the part's name, `tracing` (None: no traces), and `log`, the log of calls.

    `recent` has the last calls and failed jobs, for the operator page.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        for collect in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            self.registry.register(collect)
        release, logging = version("docpreview-gateway"), settings.logging
        self.tracing = _traces(settings.tracing, release)
        event = None if self.tracing is None else self.tracing.event
        self.access = PrometheusAccess(self.registry)
        self.limits = PrometheusLimits(self.registry)
        self.callbacks = PrometheusCallbacks(self.registry)
        self.upstream = PrometheusUpstream(self.registry, event)
        self.creates = PrometheusCreates(self.registry, self.limits, event)
        self.jobs = PrometheusJobs(self.registry)
        self.uploads = PrometheusUploads(self.registry)
        self.webhooks = PrometheusWebhooks(self.registry)
        calls = PrometheusRpc(self.registry)
        calls.build(release, platform.python_version(), grpc.__version__)
        as_json = logging.format == "json" or (logging.format == "auto" and not sys.stderr.isatty())
        self.log = CallLog(clock, calls=logging.access, as_json=as_json)
        self.recent = RecentCalls(clock)
        self.rpc = CallTelemetry(calls, PrometheusServer(self.registry), self.recent, self.tracing, self.log)

    def attempts(
        self,
        client: Upstream,
        job_ended: Callable[[PreviewJob], None] | None = None,
        job_read: Callable[[PreviewJob], None] | None = None,
    ) -> Upstream:
        """`client` with metrics of its attempts, and spans if there are traces.

        `job_ended` is `ended` of `JobEnds`, `job_read` that of `observed`.
        """
        attempts = observed(client, self.upstream, JobEnds(self.upstream, self.recent, job_ended), job_read)
        return attempts if self.tracing is None else traced(attempts, self.tracing)

    async def close(self) -> None:
        """Write the remaining log lines and export the remaining spans."""
        self.log.flush()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)


def _traces(settings: TracingSettings, release: str) -> OpenTelemetryTraces | None:
    if problem := tracing_problem(settings):
        raise StartError(problem)
    if settings.endpoint is None:
        return None
    from docpreview_gateway.telemetry.opentelemetry_traces import OpenTelemetryTraces  # noqa: PLC0415 - an extra

    return OpenTelemetryTraces(str(settings.endpoint), share=settings.share, version=release)
