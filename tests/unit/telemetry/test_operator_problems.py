"""What the operator page says is wrong: as the alerts, with their runbooks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from docpreview_gateway.telemetry import operator_problems as rules
from docpreview_gateway.telemetry.metrics_snapshot import Interval, Snapshot, snapshot
from docpreview_gateway.telemetry.operator_problems import Problem, problems
from docpreview_gateway.telemetry.operator_view import view
from docpreview_gateway.telemetry.readiness import Dependency

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "helm" / "docpreview-gateway" / "rules" / "alerts.yaml"
LEFT_TO_PROMETHEUS = {
    "error-budget-burns-slowly",
    "edge-refuses-connections",
    "edge-keeps-old-certificates",
    "gateway-down",
}
"""Runbooks of alerts about hours, about the edge, whose metrics the gateway has not, and about no gateway."""

NOW = 1_000_000.0
BUCKET = "docs-1250000000"


def of(
    *samples: tuple[str, dict[str, str], float],
    unready: str | None = None,
    dependencies: Mapping[str, Dependency] | None = None,
    minute_ago: Sequence[tuple[str, dict[str, str], float]] = (),
) -> list[Problem]:
    """The problems of a gateway with these samples, five minutes after its start; `minute_ago` it had those."""
    now = snapshot(NOW, samples)
    span, minute = Interval(Snapshot(NOW - 300, {}), now), Interval(snapshot(NOW - 60, minute_ago), now)
    return problems(span, view(span), unready, dependencies or {}, minute=minute)


def handled(code: str, count: float, method: str = "GetPreviewJob") -> tuple[str, dict[str, str], float]:
    return "grpc_server_handled_total", {"grpc_code": code, "grpc_type": "unary", "grpc_method": method}, count


def attempts(outcome: str, count: float) -> tuple[str, dict[str, str], float]:
    return "docpreview_upstream_requests_total", {"bucket": BUCKET, "operation": "get", "outcome": outcome}, count


def decisions(outcome: str, count: float) -> tuple[str, dict[str, str], float]:
    return "docpreview_limit_decisions_total", {"caller": "shop", "outcome": outcome}, count


BREAKER = "docpreview_upstream_breaker_state"
PAGES = {"caller": "shop", "period": "day"}
FAULTS: list[tuple[str, bool, list[tuple[str, dict[str, str], float]], list[tuple[str, dict[str, str], float]]]] = [
    (
        "error-budget-burns-fast",
        True,
        [handled("OK", 98), handled("Internal", 2)],
        [handled("OK", 99), handled("Internal", 1)],
    ),
    ("breaker-open", True, [(BREAKER, {"bucket": BUCKET}, 2)], [(BREAKER, {"bucket": BUCKET}, 0)]),
    ("breaker-open", True, [(BREAKER, {"bucket": BUCKET}, 1)], []),
    (
        "upstream-failing",
        True,
        [(BREAKER, {"bucket": BUCKET}, 0), attempts("OK", 70), attempts("UPSTREAM_TIMEOUT", 30)],
        [
            (BREAKER, {"bucket": BUCKET}, 0),
            attempts("OK", 7),
            attempts("UPSTREAM_TIMEOUT", 3),
            attempts("JOB_NOT_FOUND", 30),
        ],
    ),
    ("credentials-refused", True, [attempts("UPSTREAM_CREDENTIALS", 1)], [attempts("UPSTREAM_CREDENTIALS", 0)]),
    (
        "reconciliation-stuck",
        True,
        [("docpreview_ledger_oldest_unreconciled_seconds", {}, 901)],
        [
            ("docpreview_ledger_oldest_unreconciled_seconds", {}, 900),
            ("docpreview_ledger_reconciled_timestamp_seconds", {}, NOW - 100),
        ],
    ),
    (
        "reconciliation-stuck",
        True,
        [("docpreview_ledger_reconciled_timestamp_seconds", {}, NOW - 121)],
        [
            # The rounds wait for the store, which is what is wrong.
            ("docpreview_ledger_reconciled_timestamp_seconds", {}, NOW - 500),
            ("docpreview_store_failing", {}, 1),
        ],
    ),
    (
        "workers-restarting",
        True,
        [("docpreview_worker_restarts_total", {}, 1)],
        [("docpreview_worker_restarts_total", {}, 0)],
    ),
    (
        "not-listening",
        True,
        [("docpreview_workers", {}, 1), ("docpreview_workers_configured", {}, 2)],
        [("docpreview_workers", {}, 2), ("docpreview_workers_configured", {}, 2)],
    ),
    (
        "store-may-evict",
        False,
        [("docpreview_store_health", {"check": "maxmemory_policy"}, 1)],
        [("docpreview_store_health", {"check": "appendonly"}, 1)],
    ),
    ("store-may-evict", False, [("docpreview_store_health", {"check": "default_user"}, 1)], []),
    (
        "list-lag",
        False,
        [("docpreview_list_lag_seconds", {"bucket": BUCKET}, 61)],
        [("docpreview_list_lag_seconds", {"bucket": BUCKET}, 60)],
    ),
    (
        "reconciliation-findings",
        False,
        [("docpreview_reconciliation_findings", {"bucket": BUCKET, "kind": "orphan"}, 1)],
        [("docpreview_reconciliation_findings", {"bucket": BUCKET, "kind": "pages"}, 9)],
    ),
    (
        "budget-nearly-used",
        False,
        [
            ("docpreview_pages_used", PAGES, 85),
            ("docpreview_pages_reserved", PAGES, 6),
            ("docpreview_caller_limit", {"caller": "shop", "limit": "pages_day"}, 100),
        ],
        [
            ("docpreview_pages_used", PAGES, 90),
            ("docpreview_caller_limit", {"caller": "shop", "limit": "pages_day"}, 100),
        ],
    ),
    (
        "limiter-degraded",
        False,
        [decisions("degraded", 6), decisions("allowed", 94)],
        [decisions("degraded", 5), decisions("refused", 95)],
    ),
    (
        "certificate-expiring",
        False,
        [("docpreview_certificate_expiry_timestamp_seconds", {"certificate": "server"}, NOW + 6 * 86400)],
        [("docpreview_certificate_expiry_timestamp_seconds", {"certificate": "server"}, NOW + 8 * 86400)],
    ),
    (
        "certificate-expiring",
        True,
        [("docpreview_certificate_expiry_timestamp_seconds", {"certificate": "server"}, NOW - 1)],
        [],
    ),
    (
        "reload-refused",
        False,
        [("docpreview_file_refused", {"file": "policy"}, 1)],
        [("docpreview_file_refused", {"file": "policy"}, 0)],
    ),
    (
        "callbacks-missing",
        False,
        [("docpreview_callback_ends_total", {"bucket": BUCKET, "queue": "p1", "found": "poll"}, 6)],
        [
            ("docpreview_callback_ends_total", {"bucket": BUCKET, "queue": "p1", "found": "poll"}, 6),
            ("docpreview_callback_ends_total", {"bucket": BUCKET, "queue": "p1", "found": "callback"}, 6),
        ],
    ),
    (
        "webhooks-undelivered",
        False,
        [("docpreview_webhook_oldest_undelivered_seconds", {}, 901)],
        [("docpreview_webhook_oldest_undelivered_seconds", {}, 900)],
    ),
    (
        "issuer-unreachable",
        False,
        [("docpreview_reloads_total", {"file": "jwks", "outcome": "unreachable"}, 1)],
        [("docpreview_reloads_total", {"file": "jwks", "outcome": "ok"}, 1)],
    ),
    (
        "silent-callers",
        False,
        [("docpreview_grpc_connections", {}, 76), ("docpreview_grpc_connections_limit", {}, 100)],
        [("docpreview_grpc_connections", {}, 75), ("docpreview_grpc_connections_limit", {}, 100)],
    ),
]
"""Runbook, whether calls or records suffer, samples with the fault, and samples that are just not it."""


@pytest.mark.parametrize(("runbook", "is_failing", "faulty", "sound"), FAULTS)
def test_a_fault_is_one_problem_with_its_runbook_and_what_is_just_not_it_is_none(
    runbook: str,
    is_failing: bool,  # noqa: FBT001 - a column of the table
    faulty: list[tuple[str, dict[str, str], float]],
    sound: list[tuple[str, dict[str, str], float]],
) -> None:
    assert [(found.runbook, found.is_failing) for found in of(*faulty)] == [(runbook, is_failing)]
    assert of(*sound) == []


def test_what_readyz_says_is_a_problem() -> None:
    """And the part that fails, with its text, which does not make the process unready."""
    assert of(unready="starting") == [Problem("not ready: starting")]
    assert of(unready="the gRPC port is not listening")[0].runbook == "not-listening"
    assert of(dependencies={"records": Dependency("disk is full"), "others": Dependency()}) == [
        Problem("records failing: disk is full", "records-failing")
    ]
    (lost,) = of(("docpreview_store_lost", {}, 1), dependencies={"records": Dependency("lost")})
    assert lost.runbook == "store-lost"


def test_a_key_that_the_cloud_refuses_leads_to_its_runbook_wherever_it_is_told() -> None:
    """In what `/readyz` says of the cloud, and in the share of failed requests, which have a line of their own."""
    why = "no bucket can be used; docs: it refuses the gateway's key or signature (UPSTREAM_CREDENTIALS)"
    found = of(
        (BREAKER, {"bucket": BUCKET}, 0),
        attempts("UPSTREAM_CREDENTIALS", 100),
        dependencies={"cloud": Dependency(why)},
    )
    assert [problem.runbook for problem in found] == ["credentials-refused"] * 2
    assert of(dependencies={"cloud": Dependency("no connection")})[0].runbook == "upstream-failing"


CURED = [
    ([handled("OK", 98), handled("Internal", 2)], handled("OK", 99), handled("Internal", 3)),
    (
        [(BREAKER, {"bucket": BUCKET}, 0), attempts("OK", 70), attempts("UPSTREAM_TIMEOUT", 30)],
        attempts("OK", 71),
        attempts("UPSTREAM_TIMEOUT", 31),
    ),
    ([attempts("OK", 1), attempts("UPSTREAM_CREDENTIALS", 1)], attempts("OK", 2), attempts("UPSTREAM_CREDENTIALS", 2)),
]
"""What there was a minute ago, and then a success or a failure more."""


@pytest.mark.parametrize(("before", "success", "failure"), CURED)
def test_what_has_succeeded_for_a_minute_is_told_as_over_and_is_no_failure(
    before: list[tuple[str, dict[str, str], float]],
    success: tuple[str, dict[str, str], float],
    failure: tuple[str, dict[str, str], float],
) -> None:
    """The engineer sees that the cure worked; without any calls since, nobody knows."""
    (cured,) = of(*_with(before, success), minute_ago=before)
    assert (cured.text.endswith("; none in the last minute"), cured.is_failing) == (True, False)
    for now in (_with(before, failure), before):
        (failing,) = of(*now, minute_ago=before)
        assert failing.is_failing
        assert "last minute" not in failing.text


def _with(
    before: list[tuple[str, dict[str, str], float]], new: tuple[str, dict[str, str], float]
) -> list[tuple[str, dict[str, str], float]]:
    return [each for each in before if each[:2] != new[:2]] + [new]


def test_a_method_of_few_calls_that_all_fail_is_not_hidden_by_one_of_many() -> None:
    """Creates fail, and a thousand cached reads do not."""
    found = of(handled("OK", 100_000), handled("Unavailable", 3, "CreatePreviewJob"))
    assert [problem.text for problem in found] == ["3 of 3 calls of CreatePreviewJob failed"]


@pytest.mark.parametrize("budget", [0, 20])
def test_a_budget_that_was_lowered_below_what_is_used_is_told_as_it_is_configured(budget: int) -> None:
    limit = ("docpreview_caller_limit", {"caller": "shop", "limit": "pages_day"}, budget)
    (found,) = of(limit, ("docpreview_pages_used", PAGES, 346), ("docpreview_pages_left", PAGES, 0))
    assert found.text == f"shop has used 346 of {budget} pages of the day"


def test_refused_callers_are_no_failing_calls() -> None:
    assert of(*(handled(code, 50) for code in ("NotFound", "PermissionDenied", "ResourceExhausted"))) == []


def test_what_makes_calls_fail_comes_first() -> None:
    found = of(("docpreview_file_refused", {"file": "policy"}, 1), (BREAKER, {"bucket": BUCKET}, 2))
    assert [problem.runbook for problem in found] == ["breaker-open", "reload-refused"]


def test_every_alert_that_the_gateways_own_metrics_can_show_is_a_problem_of_the_page() -> None:
    """By its runbook; a new alert gets a rule here, or is left to Prometheus."""
    alerts = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    runbooks = {Path(rule["annotations"]["runbook"]).stem for rule in alerts}
    tested = {runbook for runbook, *_ in FAULTS} | {"records-failing", "store-lost"}
    assert tested == runbooks - LEFT_TO_PROMETHEUS
    assert all((ROOT / "docs" / "runbooks" / f"{name}.md").exists() for name in tested)


@pytest.mark.parametrize(
    ("alert", "threshold"),
    [
        ("DocpreviewErrorBudgetBurnsFast", "> 14.4 * 0.001"),
        ("DocpreviewUpstreamFailing", f"> {rules.HOST_FAILING}"),
        ("DocpreviewUpstreamFailing", f"> {rules.HOST_CALLS}"),
        ("DocpreviewBudgetNearlyUsed", f"> {rules.BUDGET_USED}"),
        ("DocpreviewReconciliationStuck", f"> {rules.UNRECONCILED_SECONDS}"),
        ("DocpreviewReconciliationStuck", f"> {rules.ROUND_SECONDS}"),
        ("DocpreviewListLag", f"> {rules.LIST_LAG_SECONDS}"),
        ("DocpreviewCertificateExpiring", f"< {rules.CERTIFICATE_SECONDS // 86400} * 86400"),
        ("DocpreviewSilentCallers", f"> {rules.CONNECTIONS_USED}"),
    ],
)
def test_the_page_has_the_thresholds_of_the_alerts(alert: str, threshold: str) -> None:
    (rule,) = [
        rule
        for group in yaml.safe_load(ALERTS.read_text())["groups"]
        for rule in group["rules"]
        if rule["alert"] == alert
    ]
    assert re.search(re.escape(threshold) + r"\b", rule["expr"])
    assert rules.FAILING == 14.4 * 0.001
