"""The operator page's figures, out of two snapshots of the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.model.circuit_breaker import State
from docpreview_gateway.telemetry.metrics_snapshot import Interval, Snapshot, snapshot
from docpreview_gateway.telemetry.operator_view import (
    CallbackUse,
    CallerUse,
    ErrorKind,
    Host,
    MethodUse,
    View,
    pages,
    view,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

BUCKET = {"bucket": "docs-1250000000"}


def handled(
    code: str, count: float, kind: str = "unary", method: str = "GetPreviewJob"
) -> tuple[str, dict[str, str], float]:
    return "grpc_server_handled_total", {"grpc_code": code, "grpc_type": kind, "grpc_method": method}, count


def errors(reason: str, count: float, method: str) -> tuple[str, dict[str, str], float]:
    return "docpreview_errors_total", {"grpc_method": method, "reason": reason}, count


def shown(now: Snapshot, before: Snapshot) -> View:
    return view(Interval(before, now))


def attempts(outcome: str, count: float) -> tuple[str, dict[str, str], float]:
    return "docpreview_upstream_requests_total", {**BUCKET, "operation": "get", "outcome": outcome}, count


def test_a_gateway_just_started_has_no_shares_and_no_tables() -> None:
    """A gateway that has just started has no shares, and no tables."""
    page = shown(snapshot(100.0, []), Snapshot(100.0, {}))
    assert (page.calls, page.failed, page.saved, page.uptime) == (0, None, None, 0)
    assert (page.methods, page.hosts, page.callers, page.errors, page.workers) == ([], [], [], [], None)
    assert page.unreconciled is None


def test_call_rates_are_of_the_interval_and_ended_watches_are_no_failures() -> None:
    """Rates and shares are of what happened between the snapshots; watches that end are no failures."""
    before = snapshot(100.0, [handled("OK", 1000), handled("Unavailable", 500)])
    now = snapshot(
        110.0, [handled("OK", 1090), handled("Unavailable", 510), handled("Unavailable", 99, "server_stream")]
    )
    page = shown(now, before)
    assert page.calls == 19.9
    assert page.failed == 0.1


def test_counter_that_began_again() -> None:
    """A restarted process does not make figures negative."""
    page = shown(snapshot(110.0, [handled("OK", 5)]), snapshot(100.0, [handled("OK", 1000)]))
    assert page.calls == 0


def test_every_answer_but_a_miss_counts_as_saved() -> None:
    """Everything but a miss is an answer that did not ask the cloud."""
    sources = {"hit": 60.0, "miss": 20.0, "coalesced": 15.0, "stale": 5.0}
    samples = [
        ("docpreview_responses_total", {"grpc_method": "GetPreviewJob", "source": source}, count)
        for source, count in sources.items()
    ]
    page = shown(snapshot(10.0, samples), Snapshot(0.0, {}))
    assert page.saved == 0.8
    assert page.answers == {"coalesced": 15, "hit": 60, "miss": 20, "stale": 5}


def durations(method: str, counts: Mapping[str, float]) -> list[tuple[str, dict[str, str], float]]:
    name = "grpc_server_handling_seconds_bucket"
    return [(name, {"grpc_method": method, "le": bound}, count) for bound, count in counts.items()]


def test_methods_come_busiest_first_with_failures_and_latency_of_the_interval() -> None:
    """What was slow or failed before the interval does not count."""
    old = [handled("Unavailable", 90), *durations("GetPreviewJob", {"0.1": 0, "1.0": 0, "+Inf": 90})]
    new = [
        handled("Unavailable", 92),
        handled("OK", 98),
        *durations("GetPreviewJob", {"0.1": 90, "1.0": 100, "+Inf": 190}),
        handled("OK", 200, method="ListPreviewJobs"),
        *durations("ListPreviewJobs", {"0.1": 200, "1.0": 200, "+Inf": 200}),
        handled("OK", 0, method="GetUsage"),
    ]
    page = shown(snapshot(20.0, new), snapshot(10.0, old))
    (lists, gets) = page.methods
    assert lists == MethodUse("ListPreviewJobs", 20.0, 200, 0, 0.05, 0.099)
    assert (gets.name, gets.calls, gets.failed, gets.share) == ("GetPreviewJob", 100, 2, 0.02)
    assert gets.p50 is not None
    assert gets.p99 is not None
    assert (round(gets.p50, 4), round(gets.p99, 4)) == (0.0556, 0.91)


def test_streams_have_no_latency_and_fail_unless_they_end_by_design() -> None:
    """A stream ends with UNAVAILABLE at its greatest age, and when the gateway stops."""
    name = "WatchPreviewJob"
    samples = [
        handled("Unavailable", 10, "server_stream", name),
        errors("WATCH_LIMIT_REACHED", 5, name),
        errors("SHUTTING_DOWN", 2, name),
        errors("UPSTREAM_UNAVAILABLE", 3, name),
        *durations(name, {"0.1": 0, "+Inf": 10}),
    ]
    page = shown(snapshot(10.0, samples), Snapshot(0.0, {}))
    assert page.methods == [MethodUse(name, 1.0, 10, 3, None, None)]


def test_refusals_are_no_failures_of_a_host_and_its_top_error_is_named() -> None:
    """The cloud's refusals are no failures of its; the most frequent error is named."""
    samples = [
        ("docpreview_upstream_breaker_state", BUCKET, 1.0),
        ("docpreview_upstream_in_flight", BUCKET, 3.0),
        ("docpreview_upstream_concurrency_limit", BUCKET, 32.0),
        ("docpreview_upstream_queued", BUCKET, 2.0),
        *(attempts("OK", 60), attempts("JOB_NOT_FOUND", 30), attempts("UPSTREAM_TIMEOUT", 10)),
    ]
    page = shown(snapshot(10.0, samples), Snapshot(0.0, {}))
    assert page.hosts == [Host("docs-1250000000", State.HALF_OPEN, 3, 32, 2, 100, 0.1, "JOB_NOT_FOUND")]


def test_the_object_stores_requests_are_those_of_its_host_and_refused_signatures_count_as_failed() -> None:
    """They stood with the job API's, and the host had none."""
    host = {"bucket": "docs-1250000000.cos.ap-guangzhou.myqcloud.com"}
    name = "docpreview_upstream_requests_total"
    samples = [
        ("docpreview_upstream_breaker_state", BUCKET, 0.0),
        ("docpreview_upstream_breaker_state", host, 0.0),
        attempts("UPSTREAM_CREDENTIALS", 3),
        attempts("OK", 1),
        (name, {**BUCKET, "operation": "head_object", "outcome": "OK"}, 7.0),
        (name, {**BUCKET, "operation": "head_object", "outcome": "OBJECT_NOT_FOUND"}, 1.0),
    ]
    page = shown(snapshot(10.0, samples), Snapshot(0.0, {}))
    assert [(each.attempts, each.failed, each.worst) for each in page.hosts] == [
        (4, 0.75, "UPSTREAM_CREDENTIALS"),
        (8, 0.0, "OBJECT_NOT_FOUND"),
    ]


def test_callers_come_busiest_first_with_their_rates_and_pages() -> None:
    """The busiest first, each against its rate and its pages, where it has any."""
    samples = [
        ("docpreview_caller_calls_total", {"caller": "shop", "grpc_code": "OK"}, 10.0),
        ("docpreview_caller_calls_total", {"caller": "archive", "grpc_code": "OK"}, 40.0),
        ("docpreview_caller_calls_total", {"caller": "archive", "grpc_code": "NotFound"}, 10.0),
        ("docpreview_caller_limit", {"caller": "shop", "limit": "rate"}, 20.0),
        ("docpreview_caller_limit", {"caller": "shop", "limit": "concurrency"}, 7.0),
        ("docpreview_limit_decisions_total", {"caller": "shop", "limit": "rate", "outcome": "refused"}, 3.0),
        ("docpreview_limit_decisions_total", {"caller": "shop", "limit": "rate", "outcome": "allowed"}, 9.0),
        ("docpreview_pages_used", {"caller": "shop", "period": "day"}, 70.0),
        ("docpreview_pages_reserved", {"caller": "shop", "period": "day"}, 10.0),
        ("docpreview_pages_leased", {"caller": "shop", "period": "day"}, 5.0),
        ("docpreview_caller_limit", {"caller": "shop", "limit": "pages_day"}, 100.0),
        ("docpreview_pages_used", {"caller": "shop", "period": "month"}, 500.0),
    ]
    page = shown(snapshot(10.0, samples), Snapshot(0.0, {}))
    assert page.callers == [CallerUse("archive", 5.0, None, 0, {}), CallerUse("shop", 1.0, 20.0, 3, {"day": (85, 100)})]


def test_pages_are_compared_with_the_configured_budget_and_not_with_what_is_left() -> None:
    """A budget that was lowered is less than what is used; no pages are shown while they are not known."""
    samples = [
        ("docpreview_caller_limit", {"caller": "archive", "limit": "pages_day"}, 20.0),
        ("docpreview_caller_limit", {"caller": "archive", "limit": "pages_month"}, 900.0),
        ("docpreview_pages_used", {"caller": "archive", "period": "day"}, 346.0),
        ("docpreview_pages_left", {"caller": "archive", "period": "day"}, 0.0),
        ("docpreview_caller_limit", {"caller": "shop", "limit": "pages_day"}, 20.0),
    ]
    now = snapshot(10.0, samples)
    assert pages(now, "archive") == {"day": (346, 20)}
    assert pages(now, "shop") == {}


def test_errors_come_latest_first_with_what_is_new() -> None:
    """The latest first, with what is new since the earlier look."""
    name, last = "docpreview_errors_total", "docpreview_error_last_timestamp_seconds"
    before = snapshot(50.0, [(name, {"grpc_method": "GetPreviewJob", "reason": "OVERLOADED"}, 4.0)])
    now = snapshot(
        100.0,
        [
            (name, {"grpc_method": "GetPreviewJob", "reason": "OVERLOADED"}, 4.0),
            (name, {"grpc_method": "CreatePreviewJob", "reason": "INTERNAL"}, 1.0),
            (name, {"grpc_method": "GetPreviewJob", "reason": "INTERNAL"}, 1.0),
            (last, {"reason": "OVERLOADED"}, 40.0),
            (last, {"reason": "INTERNAL"}, 98.0),
        ],
    )
    assert shown(now, before).errors == [
        ErrorKind("INTERNAL", 2, 2, "CreatePreviewJob, GetPreviewJob", 2.0),
        ErrorKind("OVERLOADED", 0, 4, "GetPreviewJob", 60.0),
    ]


def test_a_process_shows_build_age_and_certificates() -> None:
    """Build, the oldest worker's age, certificates."""
    samples = [
        ("docpreview_build_info", {"version": "0.1.0", "python": "3.11.7", "grpc": "1.85.1"}, 1.0),
        ("process_start_time_seconds", {"worker": "0"}, 40.0),
        ("process_start_time_seconds", {"worker": "1"}, 90.0),
        ("docpreview_workers", {}, 2.0),
        ("docpreview_certificate_expiry_timestamp_seconds", {"certificate": "server"}, 500.0),
    ]
    page = shown(snapshot(100.0, samples), Snapshot(0.0, {}))
    assert (page.version, page.runtime) == ("0.1.0", "Python 3.11.7, gRPC 1.85.1")
    assert (page.uptime, page.workers) == (60.0, 2)
    assert page.certificates == {"server": 400.0}


def test_callbacks_have_their_address_and_by_bucket_whether_they_come_and_the_last_one() -> None:
    ends, last = "docpreview_callback_ends_total", "docpreview_callback_last_timestamp_seconds"
    docs, old = {"bucket": "docs"}, {"bucket": "old"}
    before = snapshot(100.0, [(ends, {**docs, "found": "callback"}, 3)])
    now = snapshot(
        160.0,
        [
            ("docpreview_callbacks_address", {"address": "https://a.example/cb"}, 1),
            (ends, {**docs, "found": "callback"}, 12),
            (ends, {**docs, "found": "poll"}, 1),
            (ends, {**old, "found": "poll"}, 2),
            ("docpreview_callbacks_working", docs, 1),
            (last, docs, 150.0),
        ],
    )
    page = shown(now, before)
    assert page.callback_address == "https://a.example/cb"
    assert page.callbacks == [
        CallbackUse("docs", works=True, ends=10, called_back=9, ago=10.0),
        CallbackUse("old", works=False, ends=2, called_back=0, ago=None),
    ]
