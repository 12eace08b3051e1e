"""Traces by OpenTelemetry over OTLP, for gateways with the extra `otel` and `tracing.endpoint`.

Spans of calls, attempts at the cloud and polls hold names, codes and ids: no object, no request, no key.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model.errors import SERVER_ERROR_CODES, GatewayError
from docpreview_gateway.model.trace_context import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace.sampling import SamplingResult
    from opentelemetry.trace import TraceState
    from opentelemetry.util.types import Attributes

    from docpreview_gateway.model.call import Call, Method
    from docpreview_gateway.upstream.ports import Attempt

EXPORT_SECONDS = 5.0
MOST_LINKS = 128
_current: ContextVar[Span | None] = ContextVar("span", default=None)


class OpenTelemetryTraces:
    """Spans of calls, and the ports `Tracing` and `PollTracing`.

    `share` is the sampling ratio of calls without `traceparent`; with one the caller's sampling flag decides.
    """

    def __init__(self, endpoint: str, *, share: float, version: str) -> None:
        resource = Resource.create({"service.name": "docpreview-gateway", "service.version": version})
        sampler = _Sampler(TraceIdRatioBased(share))
        self._provider = TracerProvider(sampler=ParentBased(sampler), resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("docpreview_gateway", version)
        self._calls: dict[int, Span] = {}

    def close(self) -> None:
        """Export the remaining spans. Blocks, for some seconds when the collector is down."""
        self._provider.shutdown()

    def call_started(self, method: Method, call: Call) -> Trace:
        """Start the span of a call, a child of the caller's span if there is one. Returns its position in the trace."""
        attributes = {"rpc.system": "grpc", "rpc.service": method.service, "rpc.method": method.name}
        name = f"{method.service}/{method.name}"
        span = self._tracer.start_span(name, _within(call.trace), SpanKind.SERVER, attributes)
        # The response information is the one object that a call keeps from its start to its end.
        self._calls[id(call.response)] = span
        _current.set(span)
        return _place(span)

    def call_ended(self, _method: Method, call: Call, code: str, _seconds: float) -> None:
        """End the span of a call, with the attributes that its log line has."""
        span = self._calls.pop(id(call.response))
        span.set_attributes(
            {
                "rpc.response.status_code": code,
                "docpreview.caller": call.caller.name,
                "docpreview.request_id": call.request_id,
                "docpreview.cache": call.response.cache,
                "docpreview.upstream_request_id": call.response.upstream_request_id,
            }
        )
        if call.response.reason:
            span.set_attribute("error.type", call.response.reason)
        if code in SERVER_ERROR_CODES:
            span.set_status(Status(StatusCode.ERROR, call.response.reason))
        span.end()

    @contextmanager
    def attempt(self, attempt: Attempt, call: Call) -> Iterator[None]:
        """A client span around one attempt at the cloud."""
        attributes = {"docpreview.bucket": attempt.bucket, "docpreview.operation": attempt.operation}
        name = f"cloud {attempt.operation}"
        span = self._tracer.start_span(name, _within(attempt.trace), SpanKind.CLIENT, attributes)
        try:
            yield
        except GatewayError as error:
            reason = ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
            span.set_attribute("error.type", reason)
            span.set_status(Status(StatusCode.ERROR, reason))
            raise
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            span.set_attribute("docpreview.upstream_request_id", call.response.upstream_request_id)
            span.end()

    @contextmanager
    def poll(self, job_id: str, watchers: Sequence[Trace]) -> Iterator[Trace]:
        """A span around one poll, linked to the spans of the calls that wait for the job."""
        linked = set(watchers[:MOST_LINKS])
        links = [Link(_context(trace)) for trace in linked]
        attributes = {"docpreview.job_id": job_id}
        span = self._tracer.start_span("poll", Context(), SpanKind.INTERNAL, attributes, links)
        before = _current.set(span)
        try:
            yield _place(span)
        finally:
            _current.reset(before)
            # Watchers that came during the poll share its answer.
            for trace in set(watchers[:MOST_LINKS]) - linked:
                span.add_link(_context(trace))
            span.end()

    def event(self, name: str, **attributes: str) -> None:
        """Add an event to the current span."""
        span = _current.get()
        if span is not None and span.is_recording():
            span.add_event(name, attributes)


class _Sampler(Sampler):
    """A sampler of spans without a parent: spans with links are recorded when a linked span is."""

    def __init__(self, ratio: Sampler) -> None:
        self._ratio = ratio

    def should_sample(  # noqa: PLR0913, PLR0917 - the library's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        sampler = self._ratio
        if links:
            sampler = ALWAYS_ON if any(link.context.trace_flags.sampled for link in links) else ALWAYS_OFF
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"Linked({self._ratio.get_description()})"


def _context(trace: Trace) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), is_remote=True, trace_flags=flags)


def _within(trace: Trace | None) -> Context:
    return Context() if trace is None else set_span_in_context(NonRecordingSpan(_context(trace)), Context())


def _place(span: Span) -> Trace:
    found = span.get_span_context()
    return Trace(f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags.sampled)
