"""Consistency of metrics, dashboards, rules, runbooks and documents."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from docpreview_gateway.settings.loading import Settings
from docpreview_gateway.wiring.gateway import Gateway
from docpreview_gateway.wiring.supervisor import Supervisor
from tests.packaging.project import run
from tests.programs import need

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "docpreview-gateway"
RULES = sorted((CHART / "rules").glob("*.yaml"))
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
GATEWAY = '$ GATEWAY="app.kubernetes.io/instance=$RELEASE,app.kubernetes.io/component=gateway"'
RUNBOOKS = sorted(path for path in (ROOT / "docs" / "runbooks").glob("*.md") if path.name != "README.md")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
METRIC = re.compile(r"(?<![\w:/.])(?:docpreview|grpc_server|process|python)_\w+(?![\w:/.-])")
RECORD = re.compile(r"\bjob(?:_\w+)?:\w+:\w+")
LIBRARIES = ("process_", "python_")
NO_METRICS = {"docpreview_gateway", "docpreview_client", "docpreview_emulator"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
SETTINGS = Settings.model_validate(
    {
        "buckets": [{"name": "docs-1250000000", "region": "ap-chongqing", "credentials": "main"}],
        "credentials": {"main": {"secret_id": "example-id", "secret_key": "example-key"}},
    }
)


def exported(tmp_path: Path) -> dict[str, str]:
    """Names and types of the metrics of a gateway and of a supervisor."""
    registries = (Gateway(SETTINGS).registry, Supervisor(SETTINGS, (), tmp_path).registry)
    return {family.name: family.type for registry in registries for family in registry.collect()}


def series(families: dict[str, str]) -> set[str]:
    """Names of series, as queries use them."""
    return {f"{name}{suffix}" for name, kind in families.items() for suffix in SUFFIXES.get(kind, ("",))} | set(
        families
    )


def rules(kind: str) -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def panels(path: Path) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    shown = [target["expr"] for path in DASHBOARDS for panel in panels(path) for target in panel["targets"]]
    return shown + [rule["expr"] for kind in ("alert", "record") for rule in rules(kind)]


@pytest.mark.parametrize("path", [*RULES, *DASHBOARDS, *DOCUMENTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_named_metric_exists(path: Path, tmp_path: Path) -> None:
    """As a metric or as a recording rule."""
    text = path.read_text()
    of_libraries = {name for name in METRIC.findall(text) if name.startswith(LIBRARIES)}
    assert set(METRIC.findall(text)) - of_libraries - NO_METRICS <= series(exported(tmp_path))
    assert set(RECORD.findall(text)) <= {rule["record"] for rule in rules("record")}


def test_every_metric_is_documented(tmp_path: Path) -> None:
    """In docs/metrics.md, under the name that queries use."""
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    found = {
        name + ("_total" if kind == "counter" else "")
        for name, kind in exported(tmp_path).items()
        if not name.startswith(LIBRARIES)
    }
    assert found <= documented


def test_every_alert_has_a_runbook_with_the_same_sections() -> None:
    """Every runbook has an alert, too, and contains commands."""
    alerts = {rule["annotations"]["runbook"]: rule["alert"] for rule in rules("alert")}
    assert set(alerts) == {str(path.relative_to(ROOT)) for path in RUNBOOKS}
    for path in RUNBOOKS:
        title, *parts = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
        assert title == alerts[str(path.relative_to(ROOT))]
        assert parts == ["Symptom", "Impact", "Diagnosis", "Mitigation"]
        assert "\n$ " in path.read_text()


def test_runbooks_search_the_log_for_events_that_the_gateway_logs() -> None:
    """A renamed log event would leave a runbook's query without results."""
    code = "".join(path.read_text() for path in (ROOT / "server" / "docpreview_gateway").rglob("*.py"))
    wanted = {event for path in RUNBOOKS for event in re.findall(r'\.event == "([^"]+)"', path.read_text())}
    logged = set(re.findall(r'\blog\.\w+\(\s*f?"([^"]+)"', code)) | {"call", "create"}
    assert wanted - logged == set()


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.name)
def test_commands_of_runbooks_name_what_exists_in_every_release(path: Path) -> None:
    """Labels of the chart select pods and deployments, and the release's name is set before."""
    text = path.read_text()
    commands = re.findall(r"\b(?:kubectl|helm) [^`\n]+", text)
    for command in commands:
        assert not re.search(r"\b(?:deploy|deployments?|pods?|svc|service)/docpreview", command)
        selectors = set(re.findall(r" -l (\S+?)(?=[\s`)]|$)", command))
        assert selectors <= {'"$GATEWAY"'}
        if re.match(r"kubectl (logs|rollout restart|describe pod)\b", command):
            assert selectors
        if re.match(r"kubectl (exec|debug|port-forward)\b", command):
            assert '"$POD"' in command
        if re.match(r"helm (?!list)", command):
            assert re.match(r'helm \w+ "\$RELEASE"', command)
    assert ('"$GATEWAY"' in text) == (f"\n$ RELEASE=docpreview   # as `helm list` shows it\n{GATEWAY}\n" in text)


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.name)
def test_commands_of_runbooks_search_the_whole_log(path: Path) -> None:
    """With a selector kubectl prints ten lines of a pod unless it is told otherwise, and not every line is JSON."""
    for command in re.findall(r"\bkubectl logs [^\n]+", path.read_text()):
        assert " --tail=-1 " in command
        assert re.search(r" --since=\d+[mh] ", command)
        assert "| jq" not in command or "| jq -cR 'fromjson? | " in command


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.name)
def test_commands_of_runbooks_show_the_last_lines_of_a_log_by_time(path: Path) -> None:
    """With a selector kubectl prints the log of one pod after the other: `tail` would show one pod's."""
    for command in re.findall(r"\bkubectl logs [^\n]+", path.read_text()):
        assert "| tail" not in command
        if "| jq" in command:
            assert re.search(r"\| (jq -cs 'sort_by\(\.timestamp\).*\[\]'|sort \| uniq -c)$", command)


def test_the_last_lines_by_time_are_those_of_all_logs() -> None:
    """The runbooks' own command, with lines of several pods, whose `timestamp` is their first key or their last."""
    (command,) = {
        found
        for path in RUNBOOKS
        for found in re.findall(r"(jq -cs 'sort_by\(\.timestamp\)\[-3:\]\[\]')$", path.read_text(), re.MULTILINE)
    }
    lines = [
        *({"timestamp": f"2026-11-30T02:0{minute}:00.5Z", "event": "call"} for minute in (0, 4, 8)),
        *({"event": "reloaded", "timestamp": f"2026-11-30T02:0{minute}:00Z"} for minute in (2, 6)),
    ]
    done = subprocess.run(
        [need("jq"), *shlex.split(command)[1:]],
        input="\n".join(map(json.dumps, lines)),
        check=True,
        capture_output=True,
        text=True,
    )
    assert [json.loads(line)["timestamp"][14:16] for line in done.stdout.splitlines()] == ["04", "06", "08"]


def test_the_command_for_addresses_of_callers_counts_those_that_are_connected() -> None:
    """The runbook's own command, with the port of this test."""
    (code,) = re.findall(r"-- python3 -c '(.+)'$", (ROOT / "docs/runbooks/silent-callers.md").read_text(), re.MULTILINE)
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection(("127.0.0.1", port := listener.getsockname()[1])),
        socket.create_connection(("127.0.0.1", port)),
        socket.create_connection(("::1", port)),
    ):
        done = run(sys.executable, "-c", code.replace("50051", str(port)))
    assert done.stdout.splitlines() == ["('127.0.0.1', 2)", "('::1', 1)"]


def test_every_alert_has_a_severity_and_a_summary() -> None:
    """The severity is `critical` or `warning`."""
    for rule in rules("alert"):
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert len(rule["annotations"]["summary"]) > 20


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_every_panel_of_a_dashboard_has_a_title_a_unit_and_its_own_area(path: Path) -> None:
    """Panels do not overlap; job, instance and caller are variables."""
    dashboard = json.loads(path.read_text())
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert variables == {"datasource", "job", "instance", "caller"}
    taken: set[tuple[int, int]] = set()
    for panel in panels(path):
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["legendFormat"] or panel["type"] == "stat" for target in panel["targets"])
        assert all('job=~"$job"' in target["expr"] for target in panel["targets"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
