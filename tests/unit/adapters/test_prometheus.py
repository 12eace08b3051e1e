"""Metrics under the names and labels that dashboards of go-grpc-middleware know."""

from __future__ import annotations

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.adapters.prometheus import PrometheusTelemetry
from docpreview_gateway.core.breaker import State
from docpreview_gateway.ports import LaneLoad, Method

METHOD = Method("docpreview.v1.PreviewJobService", "GetPreviewJob", "unary")
LABELS = {"grpc_type": "unary", "grpc_service": METHOD.service, "grpc_method": METHOD.name}
# https://github.com/grpc/grpc-go/blob/master/codes/code_string.go
GO_CODES = {
    *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"),
    *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented"),
    *("Internal", "Unavailable", "DataLoss", "Unauthenticated"),
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_calls(registry: CollectorRegistry) -> None:
    """Calls that came in and ended, messages in and out, and the time between."""
    telemetry = PrometheusTelemetry(registry)
    for _ in range(2):
        telemetry.call_started(METHOD)
    telemetry.message_sent(METHOD)
    telemetry.call_ended(METHOD, "NOT_FOUND", 0.3)
    assert registry.get_sample_value("grpc_server_started_total", LABELS) == 2
    assert registry.get_sample_value("grpc_server_msg_received_total", LABELS) == 2
    assert registry.get_sample_value("grpc_server_msg_sent_total", LABELS) == 1
    assert registry.get_sample_value("grpc_server_handled_total", {**LABELS, "grpc_code": "NotFound"}) == 1
    assert registry.get_sample_value("grpc_server_handling_seconds_sum", LABELS) == 0.3


def test_codes(registry: CollectorRegistry) -> None:
    """Codes are spelt as Go spells them, so that Go's dashboards and alerts fit."""
    telemetry = PrometheusTelemetry(registry)
    for code in grpc.StatusCode:
        telemetry.call_ended(METHOD, code.name, 0.1)
    shown = {code for code in GO_CODES if f'grpc_code="{code}"'.encode() in generate_latest(registry)}
    assert shown == GO_CODES


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [(r.ERROR_REASON_UNSPECIFIED, "OK"), (r.ERROR_REASON_UPSTREAM_THROTTLED, "UPSTREAM_THROTTLED")],
)
def test_attempts_at_the_cloud(registry: CollectorRegistry, reason: r.ErrorReason.ValueType, outcome: str) -> None:
    """Counted by operation and outcome."""
    PrometheusTelemetry(registry).upstream_attempt("get", reason, 1.5)
    labels = {"operation": "get", "outcome": outcome}
    assert registry.get_sample_value("docpreview_upstream_requests_total", labels) == 1
    assert registry.get_sample_value("docpreview_upstream_seconds_count", {"operation": "get"}) == 1


def test_watching(registry: CollectorRegistry) -> None:
    """The numbers as they are."""
    telemetry = PrometheusTelemetry(registry)
    telemetry.watching(pollers=3, watchers=7)
    telemetry.watching(pollers=2, watchers=5)
    assert registry.get_sample_value("docpreview_pollers") == 2
    assert registry.get_sample_value("docpreview_watchers") == 5


def test_way_to_a_bucket(registry: CollectorRegistry) -> None:
    """How full it is now, what the breaker does, and whom it refused."""
    telemetry, bucket = PrometheusTelemetry(registry), {"bucket": "docs-1250000000"}
    telemetry.measure_lane("docs-1250000000", lambda: LaneLoad(3, 32, 7))
    shown = [
        registry.get_sample_value(f"docpreview_upstream_{name}", bucket) for name in ("in_flight", "limit", "queued")
    ]
    assert shown == [3, 32, 7]
    assert registry.get_sample_value("docpreview_upstream_breaker", bucket) == 0
    telemetry.breaker("docs-1250000000", State.OPEN)
    assert registry.get_sample_value("docpreview_upstream_breaker", bucket) == 2
    changes = {**bucket, "state": "open"}
    assert registry.get_sample_value("docpreview_upstream_breaker_changes_total", changes) == 1
    telemetry.shed("docs-1250000000", "queue")
    assert registry.get_sample_value("docpreview_upstream_shed_total", {**bucket, "reason": "queue"}) == 1


def test_retries(registry: CollectorRegistry) -> None:
    """Those that were made and those that the budget refused."""
    PrometheusTelemetry(registry).retry("get", "over_budget")
    labels = {"operation": "get", "outcome": "over_budget"}
    assert registry.get_sample_value("docpreview_upstream_retries_total", labels) == 1
