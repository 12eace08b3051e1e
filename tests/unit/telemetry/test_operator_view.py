"""The operator page's figures, out of two snapshots of the metrics."""

from __future__ import annotations

from docpreview_gateway.telemetry.operator_view import CallerUse, ErrorKind, Host, Snapshot, snapshot, view

BUCKET = {"bucket": "docs-1250000000"}


def handled(code: str, count: float, kind: str = "unary") -> tuple[str, dict[str, str], float]:
    return "grpc_server_handled_total", {"grpc_code": code, "grpc_type": kind, "grpc_method": "GetPreviewJob"}, count


def attempts(outcome: str, count: float) -> tuple[str, dict[str, str], float]:
    return "docpreview_upstream_requests_total", {**BUCKET, "operation": "get", "outcome": outcome}, count


def test_a_gateway_just_started_has_no_shares_and_no_tables() -> None:
    """A gateway that has just started has no shares, and no tables."""
    page = view(snapshot(100.0, []), Snapshot(100.0, {}), "starting")
    assert (page.unready, page.calls, page.failed, page.saved, page.uptime) == ("starting", 0, None, None, 0)
    assert (page.hosts, page.callers, page.errors, page.workers) == ([], [], [], None)
    assert page.unreconciled is None


def test_call_rates_are_of_the_interval_and_ended_watches_are_no_failures() -> None:
    """Rates and shares are of what happened between the snapshots; watches that end are no failures."""
    before = snapshot(100.0, [handled("OK", 1000), handled("Unavailable", 500)])
    now = snapshot(
        110.0, [handled("OK", 1090), handled("Unavailable", 510), handled("Unavailable", 99, "server_stream")]
    )
    page = view(now, before, None)
    assert page.calls == 19.9
    assert page.failed == 0.1


def test_counter_that_began_again() -> None:
    """A restarted process does not make figures negative."""
    page = view(snapshot(110.0, [handled("OK", 5)]), snapshot(100.0, [handled("OK", 1000)]), None)
    assert page.calls == 0


def test_every_answer_but_a_miss_counts_as_saved() -> None:
    """Everything but a miss is an answer that did not ask the cloud."""
    sources = {"hit": 60.0, "miss": 20.0, "coalesced": 15.0, "stale": 5.0}
    samples = [
        ("docpreview_responses_total", {"grpc_method": "GetPreviewJob", "source": source}, count)
        for source, count in sources.items()
    ]
    page = view(snapshot(10.0, samples), Snapshot(0.0, {}), None)
    assert page.saved == 0.8
    assert page.answers == {"coalesced": 15, "hit": 60, "miss": 20, "stale": 5}


def test_refusals_are_no_failures_of_a_host_and_its_top_error_is_named() -> None:
    """The cloud's refusals are no failures of its; the most frequent error is named."""
    samples = [
        ("docpreview_upstream_breaker_state", BUCKET, 1.0),
        ("docpreview_upstream_in_flight", BUCKET, 3.0),
        ("docpreview_upstream_concurrency_limit", BUCKET, 32.0),
        ("docpreview_upstream_queued", BUCKET, 2.0),
        *(attempts("OK", 60), attempts("JOB_NOT_FOUND", 30), attempts("UPSTREAM_TIMEOUT", 10)),
    ]
    page = view(snapshot(10.0, samples), Snapshot(0.0, {}), None)
    assert page.hosts == [Host("docs-1250000000", "half-open", 3, 32, 2, 100, 0.1, "JOB_NOT_FOUND")]


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
        ("docpreview_pages_left", {"caller": "shop", "period": "day"}, 15.0),
        ("docpreview_pages_used", {"caller": "shop", "period": "month"}, 500.0),
    ]
    page = view(snapshot(10.0, samples), Snapshot(0.0, {}), None)
    assert page.callers == [CallerUse("archive", 5.0, None, 0, {}), CallerUse("shop", 1.0, 20.0, 3, {"day": (85, 100)})]


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
    assert view(now, before, None).errors == [
        ErrorKind("INTERNAL", 2, 2, "CreatePreviewJob, GetPreviewJob", 2.0),
        ErrorKind("OVERLOADED", 0, 4, "GetPreviewJob", 60.0),
    ]


def test_a_process_shows_build_age_certificates_and_refused_files() -> None:
    """Build, the oldest worker's age, certificates, and files that are refused now; not those that once were."""
    samples = [
        ("docpreview_build_info", {"version": "0.1.0", "python": "3.11.7", "grpc": "1.85.1"}, 1.0),
        ("process_start_time_seconds", {"worker": "0"}, 40.0),
        ("process_start_time_seconds", {"worker": "1"}, 90.0),
        ("docpreview_workers", {}, 2.0),
        ("docpreview_certificate_expiry_timestamp_seconds", {"certificate": "server"}, 500.0),
        ("docpreview_reloads_total", {"file": "jwks", "outcome": "invalid"}, 2.0),
        ("docpreview_file_refused", {"file": "policy"}, 1.0),
        ("docpreview_file_refused", {"file": "jwks"}, 0.0),
    ]
    page = view(snapshot(100.0, samples), Snapshot(0.0, {}), None)
    assert (page.version, page.runtime) == ("0.1.0", "Python 3.11.7, gRPC 1.85.1")
    assert (page.uptime, page.workers) == (60.0, 2)
    assert (page.certificates, page.refused_files) == ({"server": 400.0}, ["policy"])
