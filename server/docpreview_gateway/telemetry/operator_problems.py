"""What is wrong with a gateway, by its own metrics: the conditions of the alerts, and the runbook of each.

Here a condition counts at once, where its alert waits for minutes. Alerts about the edge, and about more than the last
minutes, are left to Prometheus.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.model.circuit_breaker import State
from docpreview_gateway.telemetry.operator_view import REFUSALS, pages, view

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from docpreview_gateway.telemetry.metrics_snapshot import Interval, Snapshot
    from docpreview_gateway.telemetry.operator_view import View
    from docpreview_gateway.telemetry.readiness import Dependency

FAILING = 14.4 * 0.001
"""Share of failed calls of a method above which calls are failing: it uses up a month's error budget in two days."""

HOST_FAILING, HOST_CALLS = 0.2, 20
"""Share of failed requests to the cloud above which it is failing, and the requests that it takes to say so."""

BUDGET_USED = 0.9
CERTIFICATE_SECONDS = 7 * 86400
UNRECONCILED_SECONDS = 900
ROUND_SECONDS = 120
LIST_LAG_SECONDS = 60
CONNECTIONS_USED = 0.75

DEGRADED = 0.05
"""Share of the limit decisions above which limits are not shared any more: a single one may have met a slow moment."""

CALLBACKS_MISSING, ENDS = 0.5, 5
"""Share of a queue's ended jobs that polls found first above which callbacks do not come, and the ends it takes."""

UNDELIVERED_SECONDS = 900
"""Since the end of a job, after which its event should have been taken by the webhook target."""

OVER = "; none in the last minute"


class Problem(NamedTuple):
    """Something that is wrong, its runbook (empty: it has none), and whether calls or records suffer from it now."""

    text: str
    runbook: str = ""
    is_failing: bool = True


def problems(
    span: Interval,
    page: View,
    unready: str | None,
    dependencies: Mapping[str, Dependency],
    *,
    minute: Interval | None = None,
) -> list[Problem]:
    """All problems, those from which calls or records suffer first.

    `unready` and `dependencies` are those of `/readyz`: why the process is not ready (None: it is), and what it needs.
    What failed in `span` and succeeds in its last `minute` says so, and is no failure any more.
    """
    last = view(minute or span)
    found = chain(
        _of_process(span, unready),
        _of_dependencies(span.now, dependencies),
        _of_calls(page, last),
        _of_cloud(span, page, minute or span, last),
        _of_creates(span.now),
        _of_records(span.now),
        _of_budgets(span.now),
        _of_limits(span),
        _of_callbacks(span),
        _of_webhooks(span.now),
        _of_files(span, page),
    )
    return sorted(found, key=lambda problem: not problem.is_failing)


def _of_process(span: Interval, unready: str | None) -> Iterator[Problem]:
    now = span.now
    if unready is not None:
        yield Problem(f"not ready: {unready}", "" if unready in {"starting", "stopping"} else "not-listening")
    wanted, serving = now.value("docpreview_workers_configured"), now.value("docpreview_workers")
    if serving < wanted and unready is None:
        yield Problem(f"{serving:.0f} of {wanted:.0f} workers serve", "not-listening")
    if restarts := _new(span, "docpreview_worker_restarts_total"):
        yield Problem(f"workers crashed and were started again: {restarts:.0f}", "workers-restarting")
    limit = now.value("docpreview_grpc_connections_limit")
    used = now.value("docpreview_grpc_connections") / limit if limit else 0.0
    if used > CONNECTIONS_USED:
        yield Problem(
            f"{used:.0%} of the connections that the gateway accepts are in use", "silent-callers", is_failing=False
        )


def _of_dependencies(now: Snapshot, dependencies: Mapping[str, Dependency]) -> Iterator[Problem]:
    is_lost = now.value("docpreview_store_lost") > 0
    runbooks = {"records": "store-lost" if is_lost else "records-failing", "cloud": "upstream-failing"}
    for name, each in dependencies.items():
        if each.problem:
            is_refused = any(outcome in each.problem for outcome in REFUSALS)
            runbook = "credentials-refused" if is_refused else runbooks.get(name, "")
            yield Problem(f"{name} failing: {each.problem}", runbook)


def _of_calls(page: View, last: View) -> Iterator[Problem]:
    well = {method.name for method in last.methods if not method.failed}
    for method in page.methods:
        if method.share is not None and method.share > FAILING:
            text = f"{method.failed:,} of {method.calls:,} calls of {method.name} failed"
            yield _unless_over(text, "error-budget-burns-fast", is_over=method.name in well)


def _of_cloud(span: Interval, page: View, minute: Interval, last: View) -> Iterator[Problem]:
    well = {host.bucket for host in last.hosts if host.failed == 0}
    for host in page.hosts:
        if host.breaker is not State.CLOSED:
            yield Problem(f"the circuit breaker of {host.bucket} is {host.breaker.word}", "breaker-open")
        is_many = host.failed is not None and host.failed > HOST_FAILING and host.attempts > HOST_CALLS
        if is_many and host.worst not in REFUSALS:
            text = f"{host.failed:.0%} of the requests to the cloud for {host.bucket} failed"
            yield _unless_over(text, "upstream-failing", is_over=host.bucket in well)
    requests = "docpreview_upstream_requests_total"
    refused, lately = span.increase(requests, "outcome"), minute.increase(requests, "outcome")
    for outcome in REFUSALS:
        if refused.get(outcome):
            text = f"the cloud rejects the gateway's signature or key: {outcome}"
            yield _unless_over(text, "credentials-refused", is_over=not lately.get(outcome) and bool(lately.get("OK")))


def _unless_over(text: str, runbook: str, *, is_over: bool) -> Problem:
    return Problem(text + OVER, runbook, is_failing=False) if is_over else Problem(text, runbook)


def _of_creates(now: Snapshot) -> Iterator[Problem]:
    oldest = now.value("docpreview_ledger_oldest_unreconciled_seconds")
    last = now.value("docpreview_ledger_reconciled_timestamp_seconds")
    # Rounds wait for the store: without it they are not what is wrong.
    is_late = bool(last) and now.at - last > ROUND_SECONDS and not now.value("docpreview_store_failing")
    if oldest > UNRECONCILED_SECONDS or is_late:
        text = (
            "records of creates have not been looked at for minutes" if is_late else "a create has an unknown outcome"
        )
        yield Problem(text, "reconciliation-stuck")


def _of_records(now: Snapshot) -> Iterator[Problem]:
    for check in ("maxmemory_policy", "evicted_keys", "default_user"):
        if now.value("docpreview_store_health", check=check):
            yield Problem(f"the store of creates may lose records: {check}", "store-may-evict", is_failing=False)
    for bucket, lag in now.by("docpreview_list_lag_seconds", "bucket").items():
        if lag > LIST_LAG_SECONDS:
            yield Problem(f"the cloud's list of {bucket} lacks a job of {lag:.0f} s ago", "list-lag", is_failing=False)
    for kind, count in now.by("docpreview_reconciliation_findings", "kind").items():
        if count and kind != "pages":
            text = f"the cloud's jobs and the records of creates disagree: {count:.0f} {kind}"
            yield Problem(text, "reconciliation-findings", is_failing=False)


def _of_budgets(now: Snapshot) -> Iterator[Problem]:
    for caller in now.by("docpreview_pages_used", "caller"):
        for period, (used, budget) in pages(now, caller).items():
            if used > BUDGET_USED * budget:
                text = f"{caller} has used {used:,} of {budget:,} pages of the {period}"
                yield Problem(text, "budget-nearly-used", is_failing=False)


def _of_limits(span: Interval) -> Iterator[Problem]:
    made = span.increase("docpreview_limit_decisions_total", "outcome")
    alone, of_all = made.get("degraded", 0.0), sum(made.values())
    if alone > DEGRADED * of_all:
        text = (
            f"{alone:,.0f} of {of_all:,.0f} limit decisions were made by each process alone:"
            " Redis answered too late, not at all, or refused"
        )
        yield Problem(text, "limiter-degraded", is_failing=False)


def _of_callbacks(span: Interval) -> Iterator[Problem]:
    counter = "docpreview_callback_ends_total"
    for bucket in span.now.by(counter, "bucket"):
        polled = span.increase(counter, "queue", bucket=bucket, found="poll")
        for queue_id, ends in span.increase(counter, "queue", bucket=bucket).items():
            missing = polled.get(queue_id, 0.0)
            if ends > ENDS and missing > CALLBACKS_MISSING * ends:
                text = (
                    f"the cloud's callbacks for {bucket} do not come: polls found {missing:.0f} of {ends:.0f} ends of "
                    f"jobs in queue {queue_id}"
                )
                yield Problem(text, "callbacks-missing", is_failing=False)


def _of_webhooks(now: Snapshot) -> Iterator[Problem]:
    oldest = now.value("docpreview_webhook_oldest_undelivered_seconds")
    if oldest > UNDELIVERED_SECONDS:
        text = f"a webhook target has not taken an event for {oldest / 60:.0f} min since the end of its job"
        yield Problem(text, "webhooks-undelivered", is_failing=False)


def _of_files(span: Interval, page: View) -> Iterator[Problem]:
    for name, left in page.certificates.items():
        if left <= 0:
            yield Problem(f"the {name} certificate has expired", "certificate-expiring")
        elif left < CERTIFICATE_SECONDS:
            yield Problem(
                f"the {name} certificate expires in {left / 3600:.0f} h", "certificate-expiring", is_failing=False
            )
    for name, is_refused in span.now.by("docpreview_file_refused", "file").items():
        if is_refused:
            text = f"the present version of {name} is invalid and refused; the last valid one is in use"
            yield Problem(text, "reload-refused", is_failing=False)
    if span.increase("docpreview_reloads_total", "outcome", file="jwks").get("unreachable"):
        yield Problem("the keys of an issuer of tokens cannot be fetched", "issuer-unreachable", is_failing=False)


def _new(span: Interval, name: str) -> float:
    return max(0.0, span.now.value(name) - span.before.value(name))
