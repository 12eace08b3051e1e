"""The states of a circuit breaker: the same words, numbers and colours wherever people read them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from docpreview_gateway.model.circuit_breaker import State
from docpreview_gateway.telemetry.operator_page import OperatorPage
from docpreview_gateway.telemetry.prometheus_upstream import PrometheusUpstream
from docpreview_gateway.telemetry.recent_calls import RecentCalls
from docpreview_gateway.upstream.ports import HostLoad
from tests.fakes.clock import FakeClock
from tests.monitoring.test_documents import DASHBOARDS, ROOT, panels, rules

if TYPE_CHECKING:
    from typing import Any

WORDS = {State.CLOSED: (0, "closed"), State.HALF_OPEN: (1, "half-open"), State.OPEN: (2, "open")}
NUMBERED = "0 closed, 1 half-open, 2 open"
METRIC = "docpreview_upstream_breaker_state"


def breaker_panels(kind: str) -> list[dict[str, Any]]:
    found = [panel for path in DASHBOARDS for panel in panels(path)]
    return [panel for panel in found if METRIC in json.dumps(panel["targets"]) and panel["type"] == kind]


def test_the_code_has_these_words_and_numbers() -> None:
    assert {state: (state.value, state.word) for state in State} == WORDS


def test_metric_document_and_dashboard_have_the_same_words_for_the_same_numbers() -> None:
    registry = CollectorRegistry()
    PrometheusUpstream(registry)
    assert f"State of the circuit breaker: {NUMBERED}." in generate_latest(registry).decode()
    (row,) = re.findall(rf"^\| `{METRIC}` .*$", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert NUMBERED in row
    assert [panel["description"] for panel in breaker_panels("timeseries")] == [f"{NUMBERED}."]


@pytest.mark.parametrize("state", State)
async def test_closed_is_green_on_page_and_dashboard_and_no_alert_and_others_are_red(state: State) -> None:
    """Page, dashboard and alert agree whether a breaker in this state is healthy."""
    registry = CollectorRegistry()
    metrics, clock = PrometheusUpstream(registry), FakeClock()
    metrics.measure_host("docs-1250000000", lambda: HostLoad(0, 32, 0))
    metrics.breaker("docs-1250000000", state)
    page = OperatorPage(registry, clock, unready=lambda: None, dependencies=dict, recent=RecentCalls(clock))
    html = await page.html("/", {})
    assert html is not None
    (colour,) = re.findall(rf'class="state (\w+)">{state.word}</span>', html)
    is_healthy = state is State.CLOSED
    assert colour == ("good" if is_healthy else "bad")
    assert f'<p class="state {colour}">{"healthy" if is_healthy else "failing"}</p>' in html
    for panel in breaker_panels("stat"):
        # The panel counts the breakers that are not closed.
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert "> 0" in panel["targets"][0]["expr"]
        assert [(step["color"], step["value"]) for step in steps] == [("green", None), ("red", 1)]
    (alert,) = [rule for rule in rules("alert") if rule["alert"] == "DocpreviewBreakerOpen"]
    (above,) = re.findall(rf"{METRIC}\) > (\d)", alert["expr"])
    assert (state.value > int(above)) is not is_healthy


@pytest.mark.parametrize("state", State)
def test_transitions_are_counted_under_the_same_word(state: State) -> None:
    registry = CollectorRegistry()
    PrometheusUpstream(registry).breaker("docs-1250000000", state)
    labels = {"bucket": "docs-1250000000", "state": state.word}
    assert registry.get_sample_value("docpreview_upstream_breaker_transitions_total", labels) == 1


def test_the_runbook_has_the_words_of_the_page() -> None:
    text = (ROOT / "docs" / "runbooks" / "breaker-open.md").read_text()
    assert "open or half-open" in text
    assert "The breaker closes" in text
