"""An OTLP collector that stores the spans that it receives."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Received spans and resources, in order. `raw` has the bytes of all requests, to search for secrets."""

    def __init__(self) -> None:
        self.url = ""
        self.raw = b""
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw += body
        export = ExportTraceServiceRequest.FromString(body)
        for resource_spans in export.resource_spans:
            self.resources.append({found.key: found.value.string_value for found in resource_spans.resource.attributes})
            for scope_spans in resource_spans.scope_spans:
                self.spans += scope_spans.spans
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    """A collector on a free loopback port."""
    collector, application = Collector(), web.Application()
    application.add_routes([web.post("/v1/traces", collector.take)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield collector
    finally:
        await runner.cleanup()


def attributes(span: Span) -> dict[str, str]:
    return {found.key: found.value.string_value for found in span.attributes}


def events(span: Span) -> list[tuple[str, dict[str, str]]]:
    return [(event.name, {found.key: found.value.string_value for found in event.attributes}) for event in span.events]
