"""Traces as received by an OTLP collector."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, GetPreviewJobRequest, WaitPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from docpreview_gateway.settings.sections import TracingSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.fakes.collector import Collector, attributes, events, running_collector
from tests.integration.conftest import BUCKET, REGION, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub

SERVICE = "docpreview.v1.PreviewJobService"
PDF = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PASSWORD = "CANARY-of-a-password"


def traceparent(trace: str = TRACE, *, sampled: bool = True) -> tuple[tuple[str, str], ...]:
    return (("traceparent", f"00-{trace}-{SPAN}-{'01' if sampled else '00'}"),)


@asynccontextmanager
async def traced(share: float = 0.0) -> AsyncIterator[tuple[PreviewJobServiceAsyncStub, Collector, Emulator]]:
    """A gateway, whose spans have all reached the collector when the block has ended."""
    async with running_collector() as collector, Emulator() as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", PDF.read_bytes())
        tracing = TracingSettings(endpoint=collector.url, share=share)
        async with (
            Gateway(settings(emulator, tracing=tracing)) as gateway,
            grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
        ):
            yield PreviewJobServiceStub(channel), collector, emulator


def create_request(request_id: str = "") -> CreatePreviewJobRequest:
    request = CreatePreviewJobRequest(bucket=BUCKET, input_object="a.pdf", request_id=request_id)
    request.output.object = "p/${Number}.jpg"
    return request


async def test_a_calls_span_is_the_child_of_the_callers_and_the_parent_of_its_attempt() -> None:
    """Its attributes are the names and codes of the log."""
    async with traced() as (stub, collector, _):
        job = await stub.CreatePreviewJob(create_request(), metadata=traceparent())
    (server,), (attempt,) = collector.named(f"{SERVICE}/CreatePreviewJob"), collector.named("cloud create")
    assert (server.trace_id.hex(), server.parent_span_id.hex(), server.kind) == (TRACE, SPAN, Span.SPAN_KIND_SERVER)
    assert (attempt.trace_id.hex(), attempt.parent_span_id, attempt.kind) == (
        TRACE,
        server.span_id,
        Span.SPAN_KIND_CLIENT,
    )
    shown = attributes(server)
    assert (shown["rpc.method"], shown["rpc.response.status_code"]) == ("CreatePreviewJob", "OK")
    assert shown["docpreview.caller"] == "anonymous"
    assert shown["docpreview.upstream_request_id"] == attributes(attempt)["docpreview.upstream_request_id"] != ""
    assert collector.resources[0]["service.name"] == "docpreview-gateway"
    assert job.job_id


async def test_a_failed_attempt_says_why_and_only_our_failures_are_span_errors() -> None:
    """A call's span is an error unless the caller caused the failure."""
    async with traced() as (stub, collector, emulator):
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id="d" + "0" * 32), metadata=traceparent())
        emulator.add_fault("error", "get", status=500, code="InternalError", times=None)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id="d" + "1" * 32), metadata=traceparent())
    missing, broken = collector.named(f"{SERVICE}/GetPreviewJob")
    assert (attributes(missing)["error.type"], missing.status.code) == ("JOB_NOT_FOUND", Status.STATUS_CODE_UNSET)
    assert (attributes(broken)["error.type"], broken.status.code) == ("UPSTREAM_INTERNAL", Status.STATUS_CODE_ERROR)
    assert attributes(collector.named("cloud get")[1])["error.type"] == "UPSTREAM_INTERNAL"


async def test_cache_look_ups_and_ledger_stages_are_events_of_the_calls_span() -> None:
    """Creates with `request_id` have stages."""
    async with traced() as (stub, collector, _):
        request = create_request(request_id=str(uuid.uuid4()))
        job = await stub.CreatePreviewJob(request, metadata=traceparent())
        await stub.CreatePreviewJob(request, metadata=traceparent())
        get = GetPreviewJobRequest(bucket=BUCKET, job_id=job.job_id)
        await stub.GetPreviewJob(get, metadata=traceparent())
    first, again = collector.named(f"{SERVICE}/CreatePreviewJob")
    (attempt,) = collector.named("cloud create")
    assert attempt.parent_span_id == first.span_id
    assert attributes(first)["docpreview.upstream_request_id"] == attributes(attempt)["docpreview.upstream_request_id"]
    assert ("ledger", {"stage": "accepted"}) in events(first)
    assert ("ledger", {"stage": "replayed"}) in events(again)
    (read,) = collector.named(f"{SERVICE}/GetPreviewJob")
    assert [name for name, _ in events(read)] == ["cache"]


async def test_a_pollers_spans_are_linked_to_the_calls_of_its_watchers() -> None:
    """They are in traces of their own."""
    async with traced() as (stub, collector, emulator):
        emulator.add_fault("latency", "get", seconds=0.2, times=None)
        job = await stub.CreatePreviewJob(create_request())
        wait = WaitPreviewJobRequest(bucket=BUCKET, job_id=job.job_id)
        both = (stub.WaitPreviewJob(wait, metadata=traceparent(trace)) for trace in (TRACE, OTHER_TRACE))
        await asyncio.gather(*both)
    waits = {span.span_id for span in collector.named(f"{SERVICE}/WaitPreviewJob")}
    polls = collector.named("poll")
    assert {link.span_id for link in polls[-1].links} == waits
    assert len(waits) == 2
    assert not {span.trace_id.hex() for span in polls} & {TRACE, OTHER_TRACE}
    assert {span.parent_span_id for span in polls} == {b""}
    attempts = [span for span in collector.named("cloud get") if span.parent_span_id == polls[-1].span_id]
    assert len(attempts) == 1


async def test_the_caller_or_the_configured_share_decides_on_sampling() -> None:
    """`tracing.share` applies to calls without a trace."""
    missing = GetPreviewJobRequest(bucket=BUCKET, job_id="d" + "0" * 32)
    for share, metadata, expected in (
        (1.0, (), 1),
        (0.0, (), 0),
        (1.0, traceparent(sampled=False), 0),
        (0.0, traceparent(), 1),
    ):
        async with traced(share) as (stub, collector, _):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetPreviewJob(missing, metadata=metadata)
        assert len(collector.named(f"{SERVICE}/GetPreviewJob")) == expected


async def test_an_exported_trace_contains_no_secret() -> None:
    """No password, key, signature or object name."""
    async with traced() as (stub, collector, _):
        request = create_request()
        request.options.password = PASSWORD
        await stub.CreatePreviewJob(request, metadata=(*traceparent(), ("authorization", "Bearer CANARY-token")))
        await stub.CreatePreviewJob(create_request(), metadata=traceparent())
    assert collector.spans
    for secret in (b"CANARY", b"EXAMPLEsecretKEY", b"q-signature", b"a.pdf"):
        assert secret not in collector.raw


async def test_an_unreachable_collector_affects_neither_calls_nor_the_stop() -> None:
    """Spans are dropped."""
    tracing = TracingSettings(endpoint="http://127.0.0.1:1", share=1.0)
    async with asyncio.timeout(30), Emulator() as emulator, Gateway(settings(emulator, tracing=tracing)) as gateway:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
            stub: PreviewJobServiceAsyncStub = PreviewJobServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id="d" + "0" * 32))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_opentelemetry_is_not_imported_without_the_setting() -> None:
    """The import would cost memory and start-up time."""
    program = """
import sys
from docpreview_gateway.settings.loading import Settings
from docpreview_gateway.wiring.gateway import Gateway
Gateway(Settings.model_validate({
    "buckets": [{"name": "docs-1250000000", "region": "ap-chongqing", "credentials": "main"}],
    "credentials": {"main": {"secret_id": "example-id", "secret_key": "example-key"}},
}))
sys.exit(any(name.startswith("opentelemetry") for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_the_setting_without_the_extra_is_an_error_that_names_the_extra() -> None:
    """OpenTelemetry is not a dependency of the gateway itself."""
    program = """
import sys
sys.modules["opentelemetry"] = None
from docpreview_gateway.settings.loading import Settings, StartError
from docpreview_gateway.wiring.gateway import Gateway
try:
    Gateway(Settings.model_validate({
        "buckets": [{"name": "docs-1250000000", "region": "ap-chongqing", "credentials": "main"}],
        "credentials": {"main": {"secret_id": "example-id", "secret_key": "example-key"}},
        "tracing": {"endpoint": "http://127.0.0.1:4318"},
    }))
except StartError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert 'pip install "docpreview-gateway[otel]"' in done.stdout
