"""Metrics under the names and labels that dashboards of go-grpc-middleware know."""

from __future__ import annotations

from typing import ClassVar

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.creates.pages import CallerPages
from docpreview_gateway.model.call import Call, Method, ResponseInfo
from docpreview_gateway.model.callers import Caller, PageBudget, Rate
from docpreview_gateway.model.circuit_breaker import State
from docpreview_gateway.model.trace_context import Trace
from docpreview_gateway.telemetry.prometheus_callers import PrometheusCallers
from docpreview_gateway.telemetry.prometheus_creates import PrometheusCreates
from docpreview_gateway.telemetry.prometheus_jobs import PrometheusJobs
from docpreview_gateway.telemetry.prometheus_limits import PrometheusLimits
from docpreview_gateway.telemetry.prometheus_rpc import PrometheusRpc
from docpreview_gateway.telemetry.prometheus_upstream import PrometheusUpstream
from docpreview_gateway.upstream.ports import Attempt, HostLoad, JobPages
from docpreview_gateway.wiring.system_clock import SystemClock

BUCKET = "docs-1250000000"
METHOD = Method("docpreview.v1.PreviewJobService", "GetPreviewJob", "unary")
STREAM = Method("docpreview.v1.PreviewJobService", "WatchPreviewJob", "server_stream")
LABELS = {"grpc_type": "unary", "grpc_service": METHOD.service, "grpc_method": METHOD.name}
CALL = Call("r1", 0.0, Caller("billing"), response=ResponseInfo(cache="hit"))
TRACED = Call("r2", 0.0, trace=Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=True))
# https://github.com/grpc/grpc-go/blob/master/codes/code_string.go
GO_CODES = {
    *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"),
    *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented"),
    *("Internal", "Unavailable", "DataLoss", "Unauthenticated"),
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_a_time_with_a_recorded_trace_has_an_exemplar(registry: CollectorRegistry) -> None:
    """A time whose trace is recorded names it, in the format that has a place for that."""
    PrometheusRpc(registry).call_ended(METHOD, TRACED, "OK", 0.1)
    PrometheusUpstream(registry).upstream_attempt(Attempt(BUCKET, "get", TRACED.trace), r.ERROR_REASON_UNSPECIFIED, 0.1)
    text = openmetrics.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    found = [
        line.split("{")[0] for line in text.splitlines() if '# {trace_id="0af7651916cd43dd8448eb211c80319c"}' in line
    ]
    assert found == ["grpc_server_handling_seconds_bucket", "docpreview_upstream_request_duration_seconds_bucket"]


def test_calls_messages_and_times_are_counted(registry: CollectorRegistry) -> None:
    """Calls that came in and ended, messages in and out, and the time between."""
    telemetry = PrometheusRpc(registry)
    for _ in range(2):
        telemetry.call_started(METHOD, CALL)
    telemetry.call_ended(METHOD, CALL, "NOT_FOUND", 0.3)
    telemetry.call_ended(METHOD, CALL, "OK", 0.1)
    assert registry.get_sample_value("grpc_server_started_total", LABELS) == 2
    assert registry.get_sample_value("grpc_server_msg_received_total", LABELS) == 2
    assert registry.get_sample_value("grpc_server_msg_sent_total", LABELS) == 1
    assert registry.get_sample_value("grpc_server_handled_total", {**LABELS, "grpc_code": "NotFound"}) == 1
    assert registry.get_sample_value("grpc_server_handling_seconds_sum", LABELS) == 0.4


def test_messages_of_streams(registry: CollectorRegistry) -> None:
    """Each is counted as it leaves, whatever becomes of the call."""
    telemetry = PrometheusRpc(registry)
    for _ in range(3):
        telemetry.message_sent(STREAM)
    telemetry.call_ended(STREAM, CALL, "OK", 0.3)
    labels = {"grpc_type": STREAM.kind, "grpc_service": STREAM.service, "grpc_method": STREAM.name}
    assert registry.get_sample_value("grpc_server_msg_sent_total", labels) == 3


def test_errors_are_counted_by_method_and_reason_with_their_last_time(registry: CollectorRegistry) -> None:
    """By method and reason, and when a reason was last seen; calls without one are no errors."""
    telemetry = PrometheusRpc(registry)
    telemetry.call_ended(METHOD, CALL, "OK", 0.1)
    telemetry.call_ended(METHOD, Call("r3", 0, response=ResponseInfo(reason="JOB_NOT_FOUND")), "NOT_FOUND", 0.1)
    labels = {"grpc_method": METHOD.name, "reason": "JOB_NOT_FOUND"}
    assert registry.get_sample_value("docpreview_errors_total", labels) == 1
    last = registry.get_sample_value("docpreview_error_last_timestamp_seconds", {"reason": "JOB_NOT_FOUND"})
    assert last == pytest.approx(SystemClock().now(), abs=10)


def test_status_codes_are_spelt_as_in_go(registry: CollectorRegistry) -> None:
    """Codes are spelt as Go spells them, so that Go's dashboards and alerts fit."""
    telemetry = PrometheusRpc(registry)
    for code in grpc.StatusCode:
        telemetry.call_ended(METHOD, CALL, code.name, 0.1)
    shown = {code for code in GO_CODES if f'grpc_code="{code}"'.encode() in generate_latest(registry)}
    assert shown == GO_CODES


def test_callers_and_caches(registry: CollectorRegistry) -> None:
    """Calls by the caller's name in the configuration, and reads by where their answer came from."""
    telemetry = PrometheusRpc(registry)
    telemetry.call_ended(METHOD, CALL, "OK", 0.1)
    labels = {"caller": "billing", "grpc_code": "OK"}
    assert registry.get_sample_value("docpreview_caller_calls_total", labels) == 1
    labels = {"grpc_method": METHOD.name, "source": "hit"}
    assert registry.get_sample_value("docpreview_responses_total", labels) == 1


@pytest.mark.parametrize(
    ("reason", "outcome", "outcome_class"),
    [
        (r.ERROR_REASON_UNSPECIFIED, "OK", "ok"),
        (r.ERROR_REASON_UPSTREAM_THROTTLED, "UPSTREAM_THROTTLED", "throttled"),
        (r.ERROR_REASON_JOB_NOT_FOUND, "JOB_NOT_FOUND", "refused"),
    ],
)
def test_attempts_at_the_cloud(
    registry: CollectorRegistry, reason: r.ErrorReason.ValueType, outcome: str, outcome_class: str
) -> None:
    """Counted by bucket, operation and reason; timed by operation and class."""
    PrometheusUpstream(registry).upstream_attempt(Attempt(BUCKET, "get", None), reason, 1.5)
    labels = {"bucket": BUCKET, "operation": "get", "outcome": outcome}
    assert registry.get_sample_value("docpreview_upstream_requests_total", labels) == 1
    labels = {"operation": "get", "outcome_class": outcome_class}
    assert registry.get_sample_value("docpreview_upstream_request_duration_seconds_count", labels) == 1


def test_creates_without_an_outcome_are_measured_from_the_first_round_on(registry: CollectorRegistry) -> None:
    """How many, how old the oldest is, and when that was known: 0 would say that there are none.

    A process that has just started is late with no round: its time is that of the start.
    """
    started = SystemClock().now()
    telemetry = PrometheusCreates(registry, PrometheusLimits(registry))
    names = ("unreconciled", "oldest_unreconciled_seconds", "reconciled_timestamp_seconds")
    *unknown, last = [registry.get_sample_value(f"docpreview_ledger_{name}") for name in names]
    assert unknown == [None, None]
    assert last is not None
    assert started <= last <= SystemClock().now()
    telemetry.unreconciled(2, 900.0, 1000.0)
    assert [registry.get_sample_value(f"docpreview_ledger_{name}") for name in names] == [2, 100, 1000]
    telemetry.unreconciled(0, None, 1010.0)
    assert [registry.get_sample_value(f"docpreview_ledger_{name}") for name in names] == [0, 0, 1010]


def test_pages_of_callers_that_are_not_known_any_more_are_not_shown(registry: CollectorRegistry) -> None:
    telemetry = PrometheusCreates(registry, PrometheusLimits(registry))
    telemetry.pages([CallerPages("shop", "day", 20, 5, 50, 25), CallerPages("shop", "month", 20, 5, 50, None)])
    names = ("used", "reserved", "leased", "left")

    def shown(period: str) -> list[float | None]:
        labels = {"caller": "shop", "period": period}
        return [registry.get_sample_value(f"docpreview_pages_{name}", labels) for name in names]

    assert (shown("day"), shown("month")) == ([20, 5, 50, 25], [20, 5, 50, None])
    telemetry.pages([])
    assert shown("day") == [None] * 4


def test_limits_of_callers_are_those_of_the_present_policy_before_their_first_call(registry: CollectorRegistry) -> None:
    """Only those that are set; with a new policy they change, and a caller that it has no more has none."""
    policy = [
        Caller("archive", rate=Rate(2.5, 5), budget=PageBudget(per_day=400, per_month=9000)),
        Caller("shop", concurrency=7, budget=PageBudget(per_day=0)),
        Caller("free", budget=PageBudget()),
    ]
    PrometheusLimits(registry).measure_callers(lambda: policy)

    def shown() -> dict[tuple[str, str], float]:
        samples = (each for family in registry.collect() for each in family.samples)
        return {
            (each.labels["caller"], each.labels["limit"]): each.value
            for each in samples
            if each.name == "docpreview_caller_limit"
        }

    assert shown() == {
        ("archive", "rate"): 2.5,
        ("archive", "pages_day"): 400,
        ("archive", "pages_month"): 9000,
        ("shop", "concurrency"): 7,
        ("shop", "pages_day"): 0,
    }
    policy[:] = [Caller("archive", budget=PageBudget(per_day=20))]
    assert shown() == {("archive", "pages_day"): 20}


def test_jobs_that_ended(registry: CollectorRegistry) -> None:
    """Their number and time by state, their pages by outcome; a job without times adds no time."""
    telemetry = PrometheusUpstream(registry)
    telemetry.job_ended("SUCCESS", 12.0, JobPages(7, 2))
    telemetry.job_ended("SUCCESS", None, JobPages(1, 0))
    assert registry.get_sample_value("docpreview_jobs_ended_total", {"state": "SUCCESS"}) == 2
    assert registry.get_sample_value("docpreview_job_duration_seconds_sum", {"state": "SUCCESS"}) == 12
    assert registry.get_sample_value("docpreview_job_duration_seconds_count", {"state": "SUCCESS"}) == 1
    assert registry.get_sample_value("docpreview_job_pages_total", {"outcome": "succeeded"}) == 8
    assert registry.get_sample_value("docpreview_job_pages_total", {"outcome": "failed"}) == 2


def test_pollers_and_watchers_are_gauges_of_the_latest_numbers(registry: CollectorRegistry) -> None:
    """The numbers as they are."""
    telemetry = PrometheusJobs(registry)
    telemetry.watching(pollers=3, watchers=7)
    telemetry.watching(pollers=2, watchers=5)
    assert registry.get_sample_value("docpreview_pollers") == 2
    assert registry.get_sample_value("docpreview_watchers") == 5


def test_way_to_a_bucket(registry: CollectorRegistry) -> None:
    """How full it is now, what the breaker does, and whom it refused."""
    telemetry, bucket = PrometheusUpstream(registry), {"bucket": "docs-1250000000"}
    telemetry.measure_host("docs-1250000000", lambda: HostLoad(3, 32, 7))
    names = ("in_flight", "concurrency_limit", "queued")
    shown = [registry.get_sample_value(f"docpreview_upstream_{name}", bucket) for name in names]
    assert shown == [3, 32, 7]
    assert registry.get_sample_value("docpreview_upstream_breaker_state", bucket) == 0
    telemetry.breaker("docs-1250000000", State.OPEN)
    assert registry.get_sample_value("docpreview_upstream_breaker_state", bucket) == 2
    changes = {**bucket, "state": "open"}
    assert registry.get_sample_value("docpreview_upstream_breaker_transitions_total", changes) == 1
    telemetry.shed("docs-1250000000", "queue")
    assert registry.get_sample_value("docpreview_upstream_shed_total", {**bucket, "reason": "queue"}) == 1


def test_retries_are_counted_by_operation_and_outcome(registry: CollectorRegistry) -> None:
    """Those that were made and those that the budget refused."""
    PrometheusUpstream(registry).retry("get", "over_budget")
    labels = {"operation": "get", "outcome": "over_budget"}
    assert registry.get_sample_value("docpreview_upstream_retries_total", labels) == 1


class FakeConnections:
    most, ended = 1000, 3

    def count(self) -> int:
        return 7


class FakeStreams:
    waiting, served = 2, 5
    ended: ClassVar[dict[str, int]] = {"no_message": 1, "crowded": 0}


def test_connections_and_streams_are_read_when_they_are_scraped() -> None:
    """All reasons have a series from the start, so that an alert sees the first event."""
    registry = CollectorRegistry()
    PrometheusCallers(registry, FakeConnections(), FakeStreams())
    lines = generate_latest(registry).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "docpreview_grpc_connections 7.0",
        "docpreview_grpc_connections_limit 1000.0",
        'docpreview_grpc_streams{state="waiting"} 2.0',
        'docpreview_grpc_streams{state="served"} 5.0',
        'docpreview_grpc_ended_total{reason="no_message"} 1.0',
        'docpreview_grpc_ended_total{reason="crowded"} 0.0',
        'docpreview_grpc_ended_total{reason="silent_connection"} 3.0',
    ]
